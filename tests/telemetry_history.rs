//! Reading telemetry back.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use setpoint_tests::{Device, Harness};

const PATH: &str = "/devices/HOME-1/telemetry";
const FROM: &str = "2026-01-01T12:00:00Z";

/// `count` samples of `t` a second apart from [`FROM`], the values counting from 0, stored in pieces.
async fn fill(device: &Device, count: i64) {
    let from: DateTime<Utc> = FROM.parse().unwrap();
    let samples: Vec<Value> = (0..count)
        .map(|second| json!({"t": second, "at": (from + TimeDelta::seconds(second)).to_rfc3339()}))
        .collect();
    for piece in samples.chunks(1000) {
        let sent = device.api.post(PATH).json(&Value::from(piece)).await;
        assert_eq!(sent.json()["stored"], piece.len());
    }
}

fn values(list: &Value) -> Vec<Value> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["value"].clone()).collect()
}

#[tokio::test]
async fn history_is_cut_by_metric_and_time() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    fill(&device, 10).await;
    let api = server.api();
    api.post(PATH)
        .json(&json!({"u": true, "at": "2026-01-01T12:00:05Z"}))
        .await
        .json();
    for (query, expected) in [
        (
            "from=2026-01-01T12:00:03Z&to=2026-01-01T12:00:06Z&metric=t",
            json!([3, 4, 5]),
        ),
        (
            "from=2026-01-01T12:00:03Z&to=2026-01-01T12:00:03Z&metric=t",
            json!([]),
        ),
        (
            "from=2026-01-01T12:00:05Z&to=2026-01-01T12:00:06Z&metric=u",
            json!([true]),
        ),
        (
            "from=2026-01-01T12:00:05Z&to=2026-01-01T12:00:06Z&metric=t,u",
            json!([5, true]),
        ),
        (
            "from=2026-01-01T12:00:05Z&to=2026-01-01T12:00:06Z",
            json!([5, true]),
        ),
        (
            "from=2026-01-01T14:00:08%2B02:00&to=2026-01-01T12:01:00Z&metric=t",
            json!([8, 9]),
        ),
        (
            "from=2026-01-01T12:00:00Z&to=2026-01-02T12:00:00Z&metric=nothing",
            json!([]),
        ),
    ] {
        let list = api.get(&format!("{PATH}?{query}")).await.expect(200);
        assert_eq!(Value::from(values(&list)), expected, "{query}");
        assert_eq!(list["next"], Value::Null, "{query}");
    }
    let list = api
        .get(&format!("{PATH}?metric=t&from={FROM}&to=2026-01-01T12:00:01Z"))
        .await
        .expect(200);
    assert_eq!(
        list["items"],
        json!([{"at": "2026-01-01T12:00:00Z", "metric": "t", "value": 0}])
    );
}

#[tokio::test]
async fn history_goes_on_by_cursor() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    fill(&device, 25).await;
    let query = format!("metric=t&from={FROM}&to=2026-01-01T13:00:00Z&limit=10");
    let (mut seen, mut path) = (Vec::new(), format!("{PATH}?{query}"));
    loop {
        let page = server.api().get(&path).await.expect(200);
        seen.extend(values(&page));
        assert!(seen.len() <= 25, "each once");
        match page["next"].as_str() {
            Some(next) => path = format!("{PATH}?{query}&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (0..25).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn buckets_bring_many_samples_down_to_one() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    fill(&device, 120).await;
    for (aggregate, expected) in [
        ("avg", json!([29.5, 89.5])),
        ("min", json!([0, 60])),
        ("max", json!([59, 119])),
        ("sum", json!([1770, 5370])),
        ("count", json!([60, 60])),
        ("last", json!([59, 119])),
    ] {
        let query = format!("metric=t&from={FROM}&to=2026-01-01T13:00:00Z&bucket=1m&agg={aggregate}");
        let list = server.api().get(&format!("{PATH}?{query}")).await.expect(200);
        assert_eq!(Value::from(values(&list)), expected, "{aggregate}");
        assert_eq!(
            list["items"][1]["at"], "2026-01-01T12:01:00Z",
            "a bucket is named by its beginning"
        );
    }
    let query = format!("metric=t&from={FROM}&to=2026-01-01T13:00:00Z&bucket=1h");
    let list = server.api().get(&format!("{PATH}?{query}")).await.expect(200);
    assert_eq!(values(&list), [json!(59.5)], "the mean unless told");
}

#[tokio::test]
async fn latest_is_the_newest_of_each_metric() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    fill(&device, 3).await;
    let api = server.api();
    api.post(PATH)
        .json(&json!({"t": 99, "at": "2025-12-31T00:00:00Z"}))
        .await
        .json();
    api.post(PATH)
        .json(&json!({"mode": "eco", "at": FROM}))
        .await
        .json();
    let list = api.get("/devices/HOME-1/telemetry/latest").await.expect(200);
    assert_eq!(
        list["items"],
        json!([
            {"at": "2026-01-01T12:00:00Z", "metric": "mode", "value": "eco"},
            {"at": "2026-01-01T12:00:02Z", "metric": "t", "value": 2}
        ]),
        "what came last is not always the newest"
    );
}

#[tokio::test]
async fn every_wrong_parameter_is_named() {
    let server = Harness::start().await;
    server.device("HOME-1").await;
    for (query, field) in [
        ("from=yesterday", "from"),
        ("to=5", "to"),
        ("metric=a%20b", "metric"),
        ("bucket=5", "bucket"),
        ("bucket=0s&metric=t", "bucket"),
        ("bucket=5m&agg=median", "agg"),
        ("agg=avg", "agg"),
        ("limit=0", "limit"),
        ("limit=100000000", "limit"),
        ("cursor=%7B", "cursor"),
        ("colour=red", "colour"),
    ] {
        let errors = server.api().get(&format!("{PATH}?{query}")).await.invalid();
        assert!(errors[field].is_string(), "{query}: {errors}");
    }
    let backwards = "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z";
    let errors = server.api().get(&format!("{PATH}?{backwards}")).await.invalid();
    assert_eq!(errors.as_object().unwrap().len(), 1, "{errors}");
}

#[tokio::test]
async fn samples_that_come_late_in_many_hours_are_all_told() {
    let server = Harness::start().await;
    server.device("HOME-1").await;
    let from: DateTime<Utc> = FROM.parse().unwrap();
    let samples: Vec<Value> = (0..120)
        .map(|n| json!({"t": n, "at": (from + TimeDelta::hours(3 * n)).to_rfc3339()}))
        .collect();
    let sent = server.api().post(PATH).json(&Value::from(samples)).await;
    assert_eq!(sent.json()["stored"], 120, "{sent:?}");
    let query = format!("metric=t&from={FROM}&to=2026-02-01T00:00:00Z&bucket=1h&agg=max");
    let list = server.api().get(&format!("{PATH}?{query}")).await.expect(200);
    assert_eq!(values(&list), (0..120).map(Value::from).collect::<Vec<_>>());
    let query = format!("metric=t&from={FROM}&to=2026-02-01T00:00:00Z&bucket=1d&agg=count");
    let list = server.api().get(&format!("{PATH}?{query}")).await.expect(200);
    let counts: Vec<u64> = values(&list)
        .iter()
        .map(|count| count.as_u64().unwrap())
        .collect();
    assert_eq!(counts.iter().sum::<u64>(), 120);
    assert_eq!(counts[1], 8, "a whole day of them");
}

#[tokio::test]
async fn latest_may_be_of_some_metrics_alone() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let path = device.path("/telemetry");
    let sample = json!({"t": 1, "u": 2, "v": 3});
    server.api().post(&path).json(&sample).await.expect(200);
    for (query, metrics) in [
        ("", vec!["t", "u", "v"]),
        ("?metric=u", vec!["u"]),
        ("?metric=v,%20t,nothing", vec!["t", "v"]),
        ("?metric=nothing", vec![]),
    ] {
        let list = server
            .api()
            .get(&format!("{path}/latest{query}"))
            .await
            .expect(200);
        let items = list["items"].as_array().unwrap();
        let named: Vec<&str> = items
            .iter()
            .map(|item| item["metric"].as_str().unwrap())
            .collect();
        assert_eq!(named, metrics, "{query}");
    }
    for (query, field) in [
        ("metric=", "metric"),
        ("metric=a%20b", "metric"),
        ("limit=1", "limit"),
    ] {
        let refused = server.api().get(&format!("{path}/latest?{query}")).await;
        assert!(refused.invalid()[field].is_string(), "{query}");
    }
}
