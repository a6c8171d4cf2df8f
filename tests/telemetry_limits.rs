//! What can't be stored of telemetry: the exact answer over HTTP and in both versions of MQTT, the count and the timeline.

use serde_json::{Value, json};
use setpoint_tests::{Harness, Version, eventually};

const TOPIC: &str = "devices/HOME-1/telemetry";
const PATH: &str = "/devices/HOME-1/telemetry";

/// How often something was refused for a reason.
async fn refused(server: &Harness, reason: &str) -> f64 {
    let series = format!("setpoint_telemetry_samples_rejected_total{{reason=\"{reason}\"}}");
    server.metric(&series).await.unwrap_or(0.0)
}

/// An object of so many metrics.
fn wide(metrics: usize) -> Value {
    (0..metrics)
        .map(|number| (format!("m{number}"), json!(1)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test]
async fn each_has_its_exact_answer_everywhere() {
    let server = Harness::setup()
        .with("timeline.max_refusals_per_minute", "1000")
        .with("telemetry.max_batch", "3")
        .with("telemetry.max_metrics", "5")
        .with("telemetry.max_text", "4")
        .start()
        .await;
    let device = server.device("HOME-1").await;
    let mut session = device.mqtt_v5().await;
    let mut older = device.mqtt(Version::V3).client_id("HOME-1:3").connect().await;
    let long = "n".repeat(65);
    let name = "a metric name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit";
    let time = "must be a time in RFC 3339: \"2026-01-01T12:00:00Z\"";
    // Payload, what the timeline says, the field of the HTTP answer and its message, the reason.
    let cases: Vec<(String, String, &str, &str, &str)> = vec![
        (
            r#"{"t":NaN}"#.into(),
            "not JSON: expected value at line 1 column 6".into(),
            "body",
            "not JSON: expected value at line 1 column 6",
            "malformed",
        ),
        (
            r#"[{"t":1},{"t":Infinity}]"#.into(),
            "not JSON: expected value at line 1 column 15".into(),
            "body",
            "not JSON: expected value at line 1 column 15",
            "malformed",
        ),
        (
            r#"{"t":1e999}"#.into(),
            "`t`: number out of range".into(),
            "body.t",
            "number out of range",
            "value",
        ),
        (
            r#"[{"t":-1e999}]"#.into(),
            "item 0: `t`: number out of range".into(),
            "body[0].t",
            "number out of range",
            "value",
        ),
        (
            r#"{"t":null}"#.into(),
            "`t`: null is not a value".into(),
            "body.t",
            "null is not a value",
            "value",
        ),
        (
            r#"{"t":[1]}"#.into(),
            "`t`: must be a number, a boolean or a text".into(),
            "body.t",
            "must be a number, a boolean or a text",
            "value",
        ),
        (
            r#"{"t":"12345"}"#.into(),
            "`t`: a text has at most 4 bytes".into(),
            "body.t",
            "a text has at most 4 bytes",
            "value",
        ),
        (
            r#"{"t":"a\u0000"}"#.into(),
            "`t`: a text has no NUL character".into(),
            "body.t",
            "a text has no NUL character",
            "value",
        ),
        (
            format!(r#"{{"{long}":1}}"#),
            format!("`{}`: {name}", "n".repeat(64)),
            "body.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
            name,
            "name",
        ),
        (
            r#"{"a b":1}"#.into(),
            format!("`a b`: {name}"),
            "body.a b",
            name,
            "name",
        ),
        (
            r#"{"t":1,"t":2}"#.into(),
            "`t`: is there twice".into(),
            "body.t",
            "is there twice",
            "name",
        ),
        (
            r#"{"t":1,"at":"yesterday"}"#.into(),
            format!("`at`: {time}"),
            "body.at",
            time,
            "time",
        ),
        (
            r#"{"t":1,"at":"1999-01-01T00:00:00Z"}"#.into(),
            "`at`: is older than telemetry is kept".into(),
            "body.at",
            "is older than telemetry is kept",
            "time",
        ),
        (
            wide(6).to_string(),
            "more than 5 metrics".into(),
            "body",
            "more than 5 metrics",
            "too_many",
        ),
        (
            r#"[{"t":1},{"t":1},{"t":1},{"t":1}]"#.into(),
            "more than 3 items".into(),
            "body",
            "more than 3 items",
            "too_many",
        ),
        (
            "{}".into(),
            "has no metric".into(),
            "body",
            "has no metric",
            "shape",
        ),
        (
            "[5]".into(),
            "item 0: must be an object of metrics".into(),
            "body[0]",
            "must be an object of metrics",
            "shape",
        ),
        (
            "5".into(),
            "expected an object of metrics, or an array of them".into(),
            "body",
            "expected an object of metrics, or an array of them",
            "malformed",
        ),
    ];
    let mut entries = 0;
    for (payload, told, field, message, reason) in cases {
        let before = refused(&server, reason).await;
        let answer = server.api().post(PATH).body(payload.clone()).await;
        assert_eq!(answer.invalid(), json!({field: message}), "{payload}");
        assert_eq!(session.publish(TOPIC, payload.clone()).await, 0x99, "{payload}");
        assert_eq!(
            older.publish(TOPIC, payload.clone()).await,
            0,
            "{payload}: 3.1.1 has no other answer"
        );
        assert_eq!(refused(&server, reason).await, before + 3.0, "{payload}");
        entries += 3;
        let path = device.path("/timeline?kind=telemetry_rejected&limit=1000");
        let items = eventually!({
            let list = server.api().get(&path).await.expect(200);
            let items = list["items"].as_array().unwrap().clone();
            (items.len() == entries).then_some(items)
        });
        for entry in &items[..3] {
            assert_eq!(entry["data"]["problems"], json!([told]), "{payload}");
            assert_eq!(
                (&entry["data"]["count"], &entry["data"]["stored"]),
                (&json!(1), &json!(0)),
                "{payload}"
            );
        }
    }
    assert!(device.telemetry("").await.is_empty(), "nothing of it was stored");
    assert_eq!(
        session.publish(TOPIC, r#"{"t":1}"#).await,
        0,
        "and no session ended"
    );
    assert_eq!(older.publish(TOPIC, r#"{"t":2}"#).await, 0);
}

#[tokio::test]
async fn one_bad_item_leaves_the_others_alone() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let batch = r#"[{"t":1,"at":"2026-01-01T12:00:00Z"},{"t":1e999,"u":2,"at":"2026-01-01T12:00:00Z"},{"t":3,"at":"2026-01-01T12:00:02Z"}]"#;
    let answer = server.api().post(PATH).body(batch).await;
    let expected = json!({
        "stored": 3,
        "problems": [{"item": 1, "key": "t", "message": "number out of range"}],
        "more_problems": 0,
        "clock_ahead": 0,
    });
    assert_eq!(answer.expect(200), expected);
    // The same again, as devices do that missed the answer: nothing is there twice.
    assert_eq!(server.api().post(PATH).body(batch).await.expect(200), expected);
    let mut session = device.mqtt_v5().await;
    assert_eq!(session.publish(TOPIC, batch).await, 0x99);
    let mut older = device.mqtt(Version::V3).client_id("HOME-1:3").connect().await;
    assert_eq!(older.publish(TOPIC, batch).await, 0);
    let items = device
        .telemetry("from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z")
        .await;
    let values: Vec<_> = items
        .iter()
        .map(|item| (&item["metric"], &item["value"]))
        .collect();
    let (t, u) = (json!("t"), json!("u"));
    assert_eq!(values, [(&t, &json!(1)), (&u, &json!(2)), (&t, &json!(3))]);
    let entry = eventually!(device.timeline("telemetry_rejected").await.into_iter().next());
    assert_eq!(
        entry["data"]["problems"],
        json!(["item 1: `t`: number out of range"])
    );
    assert_eq!(entry["data"]["stored"], 3);
}

#[tokio::test]
async fn a_device_makes_up_so_many_metrics_and_no_more() {
    let server = Harness::setup()
        .with("telemetry.max_metrics_per_device", "3")
        .start()
        .await;
    let device = server.device("HOME-1").await;
    let answer = server
        .api()
        .post(PATH)
        .json(&json!([wide(2), {"m0": 2, "m2": 2, "m3": 2}]))
        .await;
    let expected = json!([{"item": 1, "key": "m3", "message": "a device has at most 3 metrics"}]);
    assert_eq!(answer.expect(200)["problems"], expected);
    let mut session = device.mqtt_v5().await;
    assert_eq!(session.publish(TOPIC, r#"{"m4":1}"#).await, 0x99);
    assert_eq!(session.publish(TOPIC, r#"{"m0":3,"m2":3}"#).await, 0);
    assert_eq!(refused(&server, "too_many").await, 2.0);
    assert_eq!(device.telemetry("").await.len(), 6);
    // One that is deleted makes room.
    server
        .api()
        .delete(&format!("{PATH}?metric=m0"))
        .await
        .expect(200);
    assert_eq!(session.publish(TOPIC, r#"{"m4":1}"#).await, 0);
}

#[tokio::test]
async fn a_clock_that_is_ahead_is_told_and_the_sample_stored_at_its_arrival() {
    let server = Harness::setup()
        .with("telemetry.max_clock_skew", "1m")
        .start()
        .await;
    let device = server.device("HOME-1").await;
    let ahead = r#"[{"t":1,"at":"2199-01-01T00:00:00Z"},{"t":2},{"t":3,"at":"2199-01-01T00:00:00Z"}]"#;
    let answer = server.api().post(PATH).body(ahead).await.expect(200);
    assert_eq!(
        answer,
        json!({"stored": 3, "problems": [], "more_problems": 0, "clock_ahead": 2})
    );
    let mut session = device.mqtt_v5().await;
    assert_eq!(session.publish(TOPIC, ahead).await, 0, "it is no error");
    let items = device.telemetry("metric=t").await;
    let values: Vec<_> = items.iter().map(|item| item["value"].as_i64().unwrap()).collect();
    assert_eq!(values, [1, 2, 3, 1, 2, 3], "in their order");
    assert!(
        items
            .iter()
            .all(|item| !item["at"].as_str().unwrap().starts_with("2199"))
    );
    assert_eq!(
        server.metric("setpoint_telemetry_items_skewed_total").await,
        Some(4.0)
    );
    let told = eventually!({
        let told = device.timeline("clock_ahead").await;
        (told.len() == 2).then_some(told)
    });
    assert!(told.iter().all(|entry| entry["data"]["items"] == 2), "{told:?}");
}
