//! Telemetry of many devices at once.

use serde_json::{Value, json};
use setpoint_tests::{Harness, eventually};

use crate::sessions::person;

const RANGE: &str = "from=2026-01-01T12:00:00Z&to=2026-01-01T14:00:00Z";

/// Three devices, two of them in the group `oslo`, with samples by the half hour.
async fn server() -> Harness {
    server_of(Harness::setup()).await
}

async fn server_of(setup: setpoint_tests::harness::Setup) -> Harness {
    let server = setup.start().await;
    let api = server.api();
    for (serial, site, base) in [("A-1", "oslo", 10), ("A-2", "oslo", 20), ("B-1", "bergen", 90)] {
        let device = json!({"serial": serial, "tags": {"site": site}});
        api.post("/devices").json(&device).await.expect(201);
        let samples = json!([
            {"t": base, "at": "2026-01-01T12:00:00Z"},
            {"t": base + 2, "at": "2026-01-01T12:30:00Z"},
            {"t": base + 4, "on": serial == "A-1", "at": "2026-01-01T13:30:00Z"},
        ]);
        let sent = api
            .post(&format!("/devices/{serial}/telemetry"))
            .json(&samples)
            .await;
        assert_eq!(sent.json()["stored"], 4, "{sent:?}");
    }
    // One more of one device: a mean over all is one of samples, not of devices.
    let more = json!({"t": 18, "at": "2026-01-01T12:45:00Z"});
    api.post("/devices/A-1/telemetry").json(&more).await.expect(200);
    let group = json!({"name": "oslo", "selector": "site=oslo"});
    api.post("/groups").json(&group).await.expect(201);
    server
}

fn values(list: &Value) -> Vec<Value> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["value"].clone()).collect()
}

#[tokio::test]
async fn all_devices_of_a_group_become_one_value_a_bucket() {
    let server = server().await;
    let api = server.api();
    for (query, expected) in [
        ("group=oslo&metric=t&bucket=1h", json!([16.4, 19])),
        ("group=oslo&metric=t&bucket=1h&agg=min", json!([10, 14])),
        ("group=oslo&metric=t&bucket=1h&agg=max", json!([22, 24])),
        ("group=oslo&metric=t&bucket=1h&agg=sum", json!([82, 38])),
        ("group=oslo&metric=t&bucket=1h&agg=count", json!([5, 2])),
        ("selector=site%3Dbergen&metric=t&bucket=1h", json!([91, 94])),
        ("metric=t&bucket=1h&agg=count", json!([7, 3])),
        ("group=oslo&metric=on&bucket=1h&agg=sum", json!([1])),
        ("group=oslo&metric=on&bucket=1h&fill=0", json!([0, 0.5])),
        (
            "group=oslo&metric=t&bucket=30m&fill=previous&agg=count",
            json!([2, 3, 3, 2]),
        ),
        ("group=oslo&metric=nothing&bucket=1h", json!([])),
        ("selector=site%3Dnowhere&bucket=1h&fill=0", json!([])),
    ] {
        let list = api.get(&format!("/telemetry?{RANGE}&{query}")).await.expect(200);
        assert_eq!(Value::from(values(&list)), expected, "{query}");
        assert_eq!(list["next"], Value::Null, "{query}");
    }
    let list = api
        .get(&format!(
            "/telemetry?{RANGE}&group=oslo&metric=t&bucket=1h&agg=last"
        ))
        .await
        .expect(200);
    assert_eq!(
        list["items"][0],
        json!({"at": "2026-01-01T12:00:00Z", "metric": "t", "value": 18})
    );
    // Without a width it is one that suits the range.
    let list = api
        .get(&format!("/telemetry?{RANGE}&group=oslo&metric=t&agg=max"))
        .await
        .expect(200);
    assert_eq!(values(&list), [json!(20), json!(22), json!(18), json!(24)]);
}

#[tokio::test]
async fn each_device_may_have_values_of_its_own() {
    let server = server().await;
    let api = server.api();
    let path = format!("/telemetry?{RANGE}&group=oslo&metric=t&bucket=1h&agg=max&by=device");
    let expected = json!([
        {"at": "2026-01-01T12:00:00Z", "serial": "A-1", "metric": "t", "value": 18},
        {"at": "2026-01-01T12:00:00Z", "serial": "A-2", "metric": "t", "value": 22},
        {"at": "2026-01-01T13:00:00Z", "serial": "A-1", "metric": "t", "value": 14},
        {"at": "2026-01-01T13:00:00Z", "serial": "A-2", "metric": "t", "value": 24},
    ]);
    let list = api.get(&path).await.expect(200);
    assert_eq!(list["items"], expected);
    let (mut seen, mut next) = (Vec::new(), format!("{path}&limit=1"));
    loop {
        let page = api.get(&next).await.expect(200);
        seen.extend(page["items"].as_array().unwrap().clone());
        assert!(seen.len() <= 4, "each once");
        match page["next"].as_str() {
            Some(cursor) => next = format!("{path}&limit=1&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(Value::from(seen), expected);
    let csv = api.get(&format!("{path}&format=csv")).await;
    assert_eq!(
        csv.header("content-disposition"),
        "attachment; filename=\"oslo.csv\""
    );
    assert_eq!(
        csv.text,
        "at,serial,metric,value\r\n\
         2026-01-01T12:00:00Z,A-1,t,18\r\n2026-01-01T12:00:00Z,A-2,t,22\r\n\
         2026-01-01T13:00:00Z,A-1,t,14\r\n2026-01-01T13:00:00Z,A-2,t,24\r\n"
    );
    let lines = api
        .get(&format!(
            "/telemetry?{RANGE}&group=oslo&metric=t&bucket=1h&format=ndjson&limit=1"
        ))
        .await
        .text;
    assert_eq!(
        lines,
        "{\"at\":\"2026-01-01T12:00:00Z\",\"metric\":\"t\",\"value\":16.4}\n"
    );
}

#[tokio::test]
async fn newest_values_come_by_device_and_in_pages() {
    let server = server().await;
    let api = server.api();
    let list = api.get("/telemetry/latest?group=oslo&metric=t").await.expect(200);
    assert_eq!(
        list["items"],
        json!([
            {"at": "2026-01-01T13:30:00Z", "serial": "A-1", "metric": "t", "value": 14},
            {"at": "2026-01-01T13:30:00Z", "serial": "A-2", "metric": "t", "value": 24},
        ])
    );
    api.post("/devices/A-1/telemetry")
        .json(&json!({"t": 1}))
        .await
        .expect(200);
    let (mut seen, mut path) = (Vec::new(), "/telemetry/latest?limit=2".to_owned());
    loop {
        let page = api.get(&path).await.expect(200);
        seen.extend(page["items"].as_array().unwrap().clone());
        assert!(seen.len() <= 6, "each once");
        match page["next"].as_str() {
            Some(next) => path = format!("/telemetry/latest?limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
    let of = |serial: &str, metric: &str| {
        let found = seen
            .iter()
            .find(|item| item["serial"] == serial && item["metric"] == metric);
        found.unwrap()["value"].clone()
    };
    assert_eq!(of("A-1", "t"), 1, "new and old ones side by side");
    assert_eq!(of("B-1", "t"), 94);
    assert_eq!(of("B-1", "on"), false);
}

#[tokio::test]
async fn an_owner_reads_only_devices_of_their_own() {
    let server = server().await;
    let anna = person(&server, "anna", "owner").await;
    server
        .sql(
            "insert into device_owners (device_id, user_id, since)
             select d.id, u.id, now() from devices d, users u where d.serial = 'A-2' and u.username = 'anna'",
        )
        .await;
    let ask = async |path: &str| {
        let call = server.api().anonymous().get(path);
        call.header("cookie", &anna.cookie)
            .header("x-csrf-token", &anna.csrf)
            .await
    };
    for which in ["group=oslo&", "selector=*&", ""] {
        let list = ask(&format!("/telemetry?{which}{RANGE}&metric=t&bucket=1h&agg=max"))
            .await
            .expect(200);
        assert_eq!(values(&list), [json!(22), json!(24)], "{which}");
        let list = ask(&format!("/telemetry/latest?{which}metric=t"))
            .await
            .expect(200);
        assert_eq!(values(&list), [json!(24)], "{which}");
    }
    let list = ask(&format!("/telemetry?selector=site%3Dbergen&{RANGE}&bucket=1h"))
        .await
        .expect(200);
    assert_eq!(list["items"], json!([]));
    // Whether there is such a group is not for them to know.
    let list = ask(&format!("/telemetry?group=nothing&{RANGE}&bucket=1h"))
        .await
        .expect(200);
    assert_eq!(list["items"], json!([]));
    server
        .api()
        .get("/telemetry?group=nothing&bucket=1h")
        .await
        .problem(404, "not_found");
    server
        .api()
        .get("/telemetry/latest?group=nothing")
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn what_is_too_much_or_wrong_is_refused() {
    let server = server().await;
    let api = server.api();
    for (query, field, message) in [
        (
            "group=oslo&selector=site%3Doslo",
            "selector",
            "not together with `group`",
        ),
        ("by=serial", "by", "one of all, device"),
        (
            "bucket=1h&agg=median",
            "agg",
            "one of avg, min, max, sum, count, last",
        ),
        (
            "fill=zero",
            "fill",
            "one of none, null, previous, linear, or a number",
        ),
        ("cursor=x", "cursor", "not the `next` of a page"),
        ("limit=0", "limit", "1 to 10000"),
        ("from=-1h&to=-2h", "from", "must not be after `to`"),
        (
            "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&bucket=1s",
            "bucket",
            "86400 buckets of 2 series are more than 100000 points: take wider buckets, a shorter range or fewer metrics",
        ),
        (
            "from=2026-01-01T00:00:00Z&to=2026-01-01T06:00:00Z&bucket=1s&by=device&metric=t,on",
            "bucket",
            "21600 buckets of 6 series are more than 100000 points: take wider buckets, a shorter range or fewer metrics",
        ),
    ] {
        let errors = api.get(&format!("/telemetry?{query}")).await.invalid();
        assert_eq!(errors, json!({field: message}), "{query}");
    }
    for query in ["selector=site%3D%3D", "group=no%20name", "colour=red"] {
        api.get(&format!("/telemetry?{query}")).await.invalid();
        api.get(&format!("/telemetry/latest?{query}")).await.invalid();
    }
    let errors = api.get("/telemetry/latest?cursor=1").await.invalid();
    assert_eq!(errors, json!({"cursor": "not the `next` of a page"}));
    let refused = api.get("/telemetry").header("accept", "image/png").await;
    refused.problem(406, "not_acceptable");

    let small = server_of(Harness::setup().with("telemetry.max_group_devices", "2")).await;
    let errors = small.api().get("/telemetry?bucket=1h").await.invalid();
    assert_eq!(errors, json!({"selector": "more than 2 devices"}));
    small
        .api()
        .get("/telemetry?bucket=1h&group=oslo")
        .await
        .expect(200);
}

#[tokio::test]
async fn what_takes_too_long_is_given_up() {
    let server = server_of(Harness::setup().with("telemetry.group_timeout", "300ms")).await;
    // Nobody gets at the samples meanwhile.
    let held = server.hold("lock table telemetry in access exclusive mode").await;
    let problem = server
        .api()
        .get(&format!("/telemetry?{RANGE}&group=oslo&bucket=90s"))
        .await;
    let problem = problem.problem(504, "timeout");
    assert_eq!(
        problem["detail"],
        "it would take longer than 300ms: take a shorter range, wider buckets or fewer devices"
    );
    assert_eq!(
        server.metric("setpoint_telemetry_reads_too_slow_total").await,
        Some(1.0)
    );
    held.release().await;
    // So short a time may be too short for a busy machine as well.
    let path = format!("/telemetry?{RANGE}&group=oslo&bucket=90s");
    eventually!(server.api().get(&path).await.status == 200);
}
