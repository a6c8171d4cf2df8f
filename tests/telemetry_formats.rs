//! How history may be had: formats, filled buckets, relative times, and what is refused.

use serde_json::{Value, json};
use setpoint_tests::Harness;

const PATH: &str = "/devices/HOME-1/telemetry";
const RANGE: &str = "from=2026-01-01T12:00:00Z&to=2026-01-01T12:10:00Z";

async fn server() -> Harness {
    let server = Harness::start().await;
    server.device("HOME-1").await;
    let samples = json!([
        {"t": 1, "at": "2026-01-01T12:01:00Z"},
        {"t": 3, "at": "2026-01-01T12:01:30Z"},
        {"t": 8.5, "on": true, "at": "2026-01-01T12:04:00Z"},
        {"mode": "=a, \"b\"", "at": "2026-01-01T12:05:00Z"},
    ]);
    let sent = server.api().post(PATH).json(&samples).await;
    assert_eq!(sent.json()["stored"], 5, "{sent:?}");
    server
}

#[tokio::test]
async fn csv_and_ndjson_are_the_whole_range() {
    let server = server().await;
    let api = server.api();
    let expected = "at,metric,value\r\n\
        2026-01-01T12:01:00Z,t,1\r\n\
        2026-01-01T12:01:30Z,t,3\r\n\
        2026-01-01T12:04:00Z,on,true\r\n\
        2026-01-01T12:04:00Z,t,8.5\r\n\
        2026-01-01T12:05:00Z,mode,\"'=a, \"\"b\"\"\"\r\n";
    // Metrics that came in one object are in no order among themselves.
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.split_inclusive("\r\n").map(str::to_owned).collect();
        lines[1..].sort();
        lines.concat()
    };
    for (query, accept) in [
        ("&format=csv", "*/*"),
        ("&format=csv", "image/png"),
        ("", "text/csv"),
    ] {
        let answer = api
            .get(&format!("{PATH}?{RANGE}{query}"))
            .header("accept", accept)
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.header("content-type"),
            "text/csv; charset=utf-8; header=present"
        );
        assert_eq!(
            answer.header("content-disposition"),
            "attachment; filename=\"HOME-1.csv\""
        );
        assert_eq!(answer.header("vary"), "accept");
        assert_eq!(sorted(&answer.text), sorted(expected));
    }
    let answer = api
        .get(&format!("{PATH}?{RANGE}&metric=t,mode"))
        .header("accept", "application/x-ndjson, application/json;q=0.9")
        .await;
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> = answer
        .text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let page = api
        .get(&format!("{PATH}?{RANGE}&metric=t,mode"))
        .await
        .expect(200);
    assert_eq!(Value::from(lines), page["items"], "the same as JSON says");
    assert_eq!(
        page["items"][3]["value"], "=a, \"b\"",
        "and texts are as they were sent"
    );

    let two = api
        .get(&format!("{PATH}?{RANGE}&metric=t&format=csv&limit=2"))
        .await
        .text;
    assert_eq!(two.lines().count(), 3, "{two}");
    let none = api
        .get(&format!("{PATH}?{RANGE}&metric=nothing&format=csv"))
        .await
        .text;
    assert_eq!(none, "at,metric,value\r\n");
    let none = api
        .get(&format!("{PATH}?{RANGE}&metric=nothing&format=ndjson"))
        .await;
    assert_eq!((none.status.as_u16(), none.text.as_str()), (200, ""));
}

#[tokio::test]
async fn what_cannot_be_had_is_refused() {
    let server = server().await;
    let api = server.api();
    let refused = api.get(PATH).header("accept", "image/png, text/html;q=0.5").await;
    let problem = refused.problem(406, "not_acceptable");
    assert_eq!(
        problem["detail"],
        "this can be had as application/json, application/x-ndjson or text/csv"
    );
    let refused = api
        .get(PATH)
        .header("accept", "application/json;q=0, text/csv;q=0")
        .await;
    refused.problem(406, "not_acceptable");
    for (query, field, message) in [
        ("format=xml", "format", "one of json, ndjson, csv"),
        ("format=csv&limit=0", "limit", "at least 1"),
        (
            "format=csv&cursor=1.2.3.4.5",
            "cursor",
            "is of pages, which are JSON",
        ),
        ("limit=10001", "limit", "1 to 10000"),
        ("fill=0", "fill", "needs `bucket`"),
        ("agg=avg", "agg", "needs `bucket`"),
        (
            "bucket=1m&fill=zero",
            "fill",
            "one of none, null, previous, linear, or a number",
        ),
        (
            "bucket=1m&fill=nan",
            "fill",
            "one of none, null, previous, linear, or a number",
        ),
        (
            "bucket=1m&agg=median",
            "agg",
            "one of avg, min, max, sum, count, last",
        ),
        (
            "bucket=5",
            "bucket",
            "a whole number with s, m, h, d or w, from 1s to 366d: `5m`",
        ),
        (
            "bucket=367d",
            "bucket",
            "a whole number with s, m, h, d or w, from 1s to 366d: `5m`",
        ),
        (
            "metric=a%20b",
            "metric",
            "at most 64 metric names with commas between, each 1 to 64 of A-Z a-z 0-9 . _ -",
        ),
        (
            "from=yesterday",
            "from",
            "a time in RFC 3339 (2026-01-01T12:00:00Z), or how long ago it was: -24h",
        ),
        ("from=-1h&to=-2h", "from", "must not be after `to`"),
        ("cursor=x", "cursor", "not the `next` of a page"),
        (
            "from=2026-01-01T00:00:00Z&to=2026-01-03T00:00:00Z&bucket=1s&fill=0",
            "bucket",
            "172800 buckets of 1 series are more than 100000 points: take wider buckets, a shorter range or fewer metrics",
        ),
    ] {
        let errors = api.get(&format!("{PATH}?{query}")).await.invalid();
        assert_eq!(errors, json!({field: message}), "{query}");
    }
    let lines = server.metric("setpoint_telemetry_reads_too_large_total").await;
    assert_eq!(lines, Some(1.0));
}

#[tokio::test]
async fn the_points_of_all_series_count() {
    let server = Harness::setup().with("telemetry.max_points", "15").start().await;
    server.device("HOME-1").await;
    let sample = json!({"a": 1, "b": 2, "at": "2026-01-01T12:01:00Z"});
    server.api().post(PATH).json(&sample).await.expect(200);
    let query = format!("{PATH}?{RANGE}&bucket=1m&fill=null");
    let errors = server.api().get(&query).await.invalid();
    assert_eq!(
        errors,
        json!({"bucket": "10 buckets of 2 series are more than 15 points: take wider buckets, a shorter range or fewer metrics"})
    );
    let one = server.api().get(&format!("{query}&metric=a")).await.expect(200);
    assert_eq!(one["items"].as_array().unwrap().len(), 10);
    let unfilled = server
        .api()
        .get(&format!("{PATH}?{RANGE}&bucket=1s"))
        .await
        .expect(200);
    assert_eq!(
        unfilled["items"].as_array().unwrap().len(),
        2,
        "what is not filled has no such limit"
    );
}

#[tokio::test]
async fn empty_buckets_are_filled_as_asked() {
    let server = server().await;
    let api = server.api();
    for (query, expected) in [
        ("", json!([2, 8.5])),
        ("&fill=none", json!([2, 8.5])),
        (
            "&fill=null",
            json!([null, 2, null, null, 8.5, null, null, null, null, null]),
        ),
        (
            "&fill=previous",
            json!([null, 2, 2, 2, 8.5, 8.5, 8.5, 8.5, 8.5, 8.5]),
        ),
        (
            "&fill=linear&agg=max",
            json!([
                null,
                3,
                4.833333333333333,
                6.666666666666666,
                8.5,
                null,
                null,
                null,
                null,
                null
            ]),
        ),
        ("&fill=0&agg=count", json!([0, 2, 0, 0, 1, 0, 0, 0, 0, 0])),
        (
            "&fill=-1.5&agg=sum",
            json!([-1.5, 4, -1.5, -1.5, 8.5, -1.5, -1.5, -1.5, -1.5, -1.5]),
        ),
    ] {
        let list = api
            .get(&format!("{PATH}?{RANGE}&metric=t&bucket=1m{query}"))
            .await
            .expect(200);
        let items = list["items"].as_array().unwrap();
        let values: Vec<Value> = items.iter().map(|item| item["value"].clone()).collect();
        let close = values
            .iter()
            .zip(expected.as_array().unwrap())
            .all(|(value, expected)| match (value.as_f64(), expected.as_f64()) {
                (Some(value), Some(expected)) => (value - expected).abs() < 1e-9,
                _ => value == expected,
            });
        assert!(
            close && values.len() == expected.as_array().unwrap().len(),
            "{query}: {values:?}"
        );
    }
    // The bucket that `from` lies in begins before it.
    let part = "from=2026-01-01T12:01:15Z&to=2026-01-01T12:02:01Z";
    let list = api
        .get(&format!("{PATH}?{part}&metric=t&bucket=1m&fill=previous"))
        .await
        .expect(200);
    assert_eq!(
        list["items"],
        json!([
            {"at": "2026-01-01T12:01:00Z", "metric": "t", "value": 3},
            {"at": "2026-01-01T12:02:00Z", "metric": "t", "value": 3},
        ])
    );
    let texts = format!("{PATH}?{RANGE}&metric=mode&bucket=5m&agg=last&fill=previous&format=csv");
    let texts = api.get(&texts).await.text;
    assert_eq!(
        texts,
        "at,metric,value\r\n2026-01-01T12:00:00Z,mode,\r\n2026-01-01T12:05:00Z,mode,\"'=a, \"\"b\"\"\"\r\n"
    );
    let unknown = api
        .get(&format!("{PATH}?{RANGE}&metric=nothing&bucket=1m&fill=0"))
        .await
        .expect(200);
    assert_eq!(unknown["items"], json!([]), "only what the device has is filled");
}

#[tokio::test]
async fn filled_history_goes_on_by_cursor_as_any_other() {
    let server = server().await;
    let query = format!("{RANGE}&bucket=1m&agg=last&fill=previous");
    let whole = server.api().get(&format!("{PATH}?{query}")).await.expect(200);
    let whole = whole["items"].as_array().unwrap();
    assert_eq!(whole.len(), 30, "three metrics in ten buckets");
    for limit in [1, 7, 30] {
        let (mut seen, mut path) = (Vec::new(), format!("{PATH}?{query}&limit={limit}"));
        loop {
            let page = server.api().get(&path).await.expect(200);
            seen.extend(page["items"].as_array().unwrap().clone());
            assert!(seen.len() <= 30, "each once");
            match page["next"].as_str() {
                Some(next) => path = format!("{PATH}?{query}&limit={limit}&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(&seen, whole, "by {limit}");
    }
}

#[tokio::test]
async fn times_may_be_counted_from_now() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    server.api().post(PATH).json(&json!({"t": 1})).await.expect(200);
    assert_eq!(device.telemetry("from=-1h").await.len(), 1);
    assert_eq!(device.telemetry("from=now-1h&to=now").await.len(), 1);
    assert_eq!(device.telemetry("from=-2h&to=-1h").await.len(), 0);
}

#[tokio::test]
async fn parameters_and_media_types_are_described() {
    let server = Harness::start().await;
    let document = server
        .api()
        .anonymous()
        .root(reqwest::Method::GET, "/openapi.json")
        .await
        .expect(200);
    let history = [
        "metric", "from", "to", "bucket", "agg", "fill", "limit", "cursor", "format",
    ];
    let group = [&["group", "selector", "by"][..], &history].concat();
    let streams = ["application/json", "text/csv", "application/x-ndjson"];
    for (path, parameters, types) in [
        ("/devices/{serial}/telemetry", &history[..], &streams[..]),
        ("/telemetry", &group, &streams),
        (
            "/telemetry/latest",
            &["group", "selector", "metric", "limit", "cursor"],
            &["application/json"],
        ),
        (
            "/devices/{serial}/telemetry.svg",
            &["metric", "from", "to", "bucket", "width", "height"],
            &["image/svg+xml"],
        ),
    ] {
        let operation = &document["paths"][format!("/api/v1{path}")]["get"];
        let described = operation["parameters"].as_array().unwrap();
        let queries = described.iter().filter(|parameter| parameter["in"] == "query");
        let mut names: Vec<&str> = queries
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let mut expected = parameters.to_vec();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected, "{path}");
        let content = operation["responses"]["200"]["content"].as_object().unwrap();
        for kind in types {
            assert!(content.contains_key(*kind), "{path}: {kind} of {content:?}");
        }
        assert_eq!(content.len(), types.len(), "{path}");
    }
}

#[tokio::test]
async fn who_takes_no_coding_of_ours_is_told_so() {
    let server = server().await;
    let get = |path: String, accepted| server.api().get(&path).header("accept-encoding", accepted);
    for format in ["json", "csv", "ndjson"] {
        for accepted in ["identity;q=0", "*;q=0", "br, *;q=0"] {
            let refused = get(format!("{PATH}?{RANGE}&format={format}"), accepted).await;
            refused.problem(406, "not_acceptable");
        }
        let path = format!("{PATH}?{RANGE}&format={format}");
        assert_eq!(get(path, "gzip;q=0").await.status, 200, "{format}");
    }
    // Also where it would have been another problem.
    let refused = get("/devices/NOBODY/telemetry".to_owned(), "identity;q=0").await;
    refused.problem(406, "not_acceptable");
}
