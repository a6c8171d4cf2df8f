//! Telemetry over MQTT.

use serde_json::{Value, json};
use setpoint_tests::{Device, Harness, Version, eventually, harness::mqtt::VERSIONS, mosquitto};

const TOPIC: &str = "devices/HOME-1/telemetry";

fn values(items: &[Value]) -> Vec<Value> {
    items.iter().map(|item| item["value"].clone()).collect()
}

async fn newest(device: &Device) -> Value {
    let list = device
        .api
        .get(&device.path("/telemetry/latest"))
        .await
        .expect(200);
    let mut newest = json!({});
    for item in list["items"].as_array().expect("items") {
        newest[item["metric"].as_str().unwrap()] = item["value"].clone();
    }
    newest
}

#[tokio::test]
async fn an_acknowledged_sample_is_stored() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for (version, value) in VERSIONS.into_iter().zip([1, 2]) {
        let mut session = device.mqtt(version).connect().await;
        assert_eq!(session.publish(TOPIC, json!({"t": value}).to_string()).await, 0);
        // No waiting: the PUBACK came after the commit.
        assert_eq!(
            values(&device.telemetry("metric=t").await).last(),
            Some(&json!(value))
        );
    }
}

#[tokio::test]
async fn samples_without_acknowledgement_are_stored_too() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for (version, value) in VERSIONS.into_iter().zip([1, 2]) {
        let session = device.mqtt(version).connect().await;
        session.send(TOPIC, 0, json!({"t": value}).to_string()).await;
        eventually!(values(&device.telemetry("metric=t").await).last() == Some(&json!(value)));
    }
}

#[tokio::test]
async fn qos_2_is_stored_once() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for (version, login) in VERSIONS.into_iter().map(|version| (version, device.login())) {
        let before = device.telemetry("metric=t").await.len();
        let (code, output) = mosquitto::publish(
            server.mqtt_port(),
            version,
            &login,
            TOPIC,
            r#"{"t":1}"#,
            &["-q", "2"],
        )
        .await;
        assert_eq!(code, Some(0), "{output}");
        eventually!(device.telemetry("metric=t").await.len() == before + 1);
    }
}

#[tokio::test]
async fn numbers_booleans_and_texts_come_back_as_sent() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.mqtt_v5().await;
    let sample = json!({"temperature": 21.5, "count": 40, "negative": -0.25, "large": 1e300, "open": true,
        "closed": false, "mode": "eco", "empty": "", "unicode": "héé"});
    assert_eq!(session.publish(TOPIC, sample.to_string()).await, 0);
    assert_eq!(newest(&device).await, sample);
    let text = device
        .api
        .get("/devices/HOME-1/telemetry?metric=count")
        .await
        .text;
    assert!(
        text.contains("\"value\":40}") || text.contains("\"value\":40,"),
        "40, not 40.0: {text}"
    );
}

#[tokio::test]
async fn an_array_is_many_samples_each_with_its_time() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.mqtt_v3().await;
    let batch = json!([
        {"t": 2, "at": "2026-01-01T12:01:00Z"},
        {"t": 1, "at": "2026-01-01T13:00:00.5+01:00"},
        {"t": 3, "at": "2026-01-01T12:02:00.123456Z"}
    ]);
    assert_eq!(session.publish(TOPIC, batch.to_string()).await, 0);
    let items = device
        .telemetry("metric=t&from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z")
        .await;
    assert_eq!(values(&items), [json!(1), json!(2), json!(3)], "oldest first");
    let times: Vec<_> = items
        .iter()
        .map(|item| {
            item["at"]
                .as_str()
                .unwrap()
                .parse::<chrono::DateTime<chrono::Utc>>()
                .unwrap()
        })
        .collect();
    assert_eq!(
        times[0],
        "2026-01-01T12:00:00.5Z"
            .parse::<chrono::DateTime<chrono::Utc>>()
            .unwrap()
    );
    assert_eq!(
        times[2],
        "2026-01-01T12:02:00.123456Z"
            .parse::<chrono::DateTime<chrono::Utc>>()
            .unwrap()
    );
    for item in &items {
        assert!(item["at"].as_str().unwrap().ends_with('Z'), "UTC: {item}");
    }

    let untimed = json!([{"u": 1}, {"u": 2}, {"u": 3}]);
    assert_eq!(session.publish(TOPIC, untimed.to_string()).await, 0);
    let items = device.telemetry("metric=u").await;
    assert_eq!(
        values(&items),
        [json!(1), json!(2), json!(3)],
        "without a time they stay apart and in order"
    );
}

#[tokio::test]
async fn a_duplicate_is_stored_once() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let sample = r#"{"t":1,"at":"2026-01-01T12:00:00Z"}"#;
    for version in VERSIONS {
        let mut session = device.mqtt(version).connect().await;
        for _ in 0..3 {
            assert_eq!(session.publish(TOPIC, sample).await, 0, "a duplicate is no error");
        }
        let twice = format!("[{sample},{sample}]");
        assert_eq!(session.publish(TOPIC, twice).await, 0);
    }
    let items = device
        .telemetry("metric=t&from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z")
        .await;
    assert_eq!(values(&items), [json!(1)]);
}

#[tokio::test]
async fn the_good_samples_of_a_batch_are_stored_and_the_bad_ones_named() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.mqtt_v5().await;
    let batch = r#"[{"t":1},{"t":null},{"t":3,"mode":{"x":1}},5,{"t":6,"at":"yesterday"},{"a b":1},{}]"#;
    assert_eq!(session.publish(TOPIC, batch).await, 0x99);
    assert_eq!(values(&device.telemetry("metric=t").await), [json!(1), json!(3)]);
    let entry = eventually!(device.timeline("telemetry_rejected").await.into_iter().next()).to_string();
    for problem in [
        "item 1: `t`: null is not a value",
        "item 2: `mode`: must be a number, a boolean or a text",
        "item 3: must be an object of metrics",
        "item 4: `at`: must be a time in RFC 3339",
    ] {
        assert!(entry.contains(problem), "{problem} in {entry}");
    }
}

/// Every refusal in the timeline, newest first.
async fn refusals(device: &Device) -> Vec<Value> {
    let path = device.path("/timeline?kind=telemetry_rejected&limit=1000");
    let list = device.api.get(&path).await.expect(200);
    list["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn each_bad_payload_has_its_answer_and_ends_nothing() {
    let server = Harness::setup()
        .with("timeline.max_refusals_per_minute", "1000")
        .start()
        .await;
    let device = server.device("HOME-1").await;
    let mut session = device.mqtt_v5().await;
    let mut older = device.mqtt(Version::V3).client_id("HOME-1:3").connect().await;
    let (long_text, many) = (
        "x".repeat(257),
        format!("[{}]", vec!["{\"t\":1}"; 1001].join(",")),
    );
    let wide: serde_json::Map<String, Value> =
        (0..65).map(|number| (format!("m{number}"), json!(1))).collect();
    let mut expected = 0;
    for (payload, reason) in [
        (String::new(), "not JSON"),
        ("{".to_owned(), "not JSON"),
        ("\u{7f}binary".to_owned(), "not JSON"),
        (
            "null".to_owned(),
            "expected an object of metrics, or an array of them",
        ),
        (
            "21.5".to_owned(),
            "expected an object of metrics, or an array of them",
        ),
        ("{}".to_owned(), "has no metric"),
        (r#"{"t":1e999}"#.to_owned(), "`t`"),
        (r#"{"t":NaN}"#.to_owned(), "not JSON"),
        (
            r#"{"t":[1]}"#.to_owned(),
            "`t`: must be a number, a boolean or a text",
        ),
        (
            json!({"t": long_text}).to_string(),
            "`t`: a text has at most 256 bytes",
        ),
        (json!({"n".repeat(65): 1}).to_string(), "a metric name is 1 to 64"),
        (r#"{"t":1,"t":2}"#.to_owned(), "`t`: is there twice"),
        (
            r#"{"t":1,"at":"2026-13-01T00:00:00Z"}"#.to_owned(),
            "`at`: must be a time in RFC 3339",
        ),
        (r#"{"t":1,"at":5}"#.to_owned(), "`at`"),
        (Value::from(wide).to_string(), "more than 64 metrics"),
        (many, "more than 1000 items"),
    ] {
        let code = session.publish(TOPIC, payload.clone()).await;
        assert_eq!(code, 0x99, "{payload:.60}");
        let shown = eventually!({
            let entries = refusals(&device).await;
            (entries.len() > expected).then(|| entries[0].to_string())
        });
        assert!(shown.contains(reason), "{payload:.60}: {shown}");
        assert_eq!(
            older.publish(TOPIC, payload).await,
            0,
            "3.1.1 has no other answer"
        );
        expected += 2;
    }
    eventually!(refusals(&device).await.len() == expected);
    assert!(
        device.telemetry("metric=t").await.is_empty(),
        "nothing of it was stored"
    );
    assert_eq!(session.publish(TOPIC, r#"{"t":1}"#).await, 0);
    assert_eq!(older.publish(TOPIC, r#"{"t":2}"#).await, 0);
}

#[tokio::test]
async fn a_sample_from_the_future_is_stored_at_its_arrival() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.mqtt_v5().await;
    assert_eq!(
        session
            .publish(TOPIC, r#"{"t":1,"at":"2199-01-01T00:00:00Z"}"#)
            .await,
        0
    );
    let items = device.telemetry("metric=t").await;
    assert_eq!(values(&items), [json!(1)]);
    assert!(!items[0]["at"].as_str().unwrap().starts_with("2199"), "{items:?}");
    eventually!(device.timeline("clock_ahead").await.len() == 1);
}

#[tokio::test]
async fn acknowledgements_come_in_the_order_of_the_samples() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for version in VERSIONS {
        let mut session = device.mqtt(version).connect().await;
        for number in 0..200 {
            // Every fifth is refused, without a commit to wait for.
            let payload = if number % 5 == 0 {
                "nonsense".to_owned()
            } else {
                json!({"t": number}).to_string()
            };
            session.send(TOPIC, 1, payload).await;
        }
        for number in 0..200 {
            let sent = session.sent().await;
            assert_eq!(
                session.acknowledged().await,
                Some(sent),
                "{number} in {version:?}"
            );
        }
        assert_eq!(device.telemetry("metric=t").await.len() % 160, 0);
    }
    assert_eq!(device.telemetry("metric=t&limit=1000").await.len(), 320);
}

#[tokio::test]
async fn each_device_reads_its_own() {
    let server = Harness::start().await;
    let (one, two) = (server.device("HOME-1").await, server.device("HOME-2").await);
    assert_eq!(one.mqtt_v3().await.publish(TOPIC, r#"{"t":1}"#).await, 0);
    assert_eq!(
        two.mqtt_v3()
            .await
            .publish("devices/HOME-2/telemetry", r#"{"t":2}"#)
            .await,
        0
    );
    assert_eq!(newest(&one).await, json!({"t": 1}));
    assert_eq!(newest(&two).await, json!({"t": 2}));
}

#[tokio::test]
async fn watchers_hear_telemetry_as_it_comes() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut watcher = server.watcher().await;
    assert_eq!(watcher.subscribe(&["devices/+/telemetry"]).await, [1]);
    let mut session = device.mqtt_v3().await;
    session.publish(TOPIC, r#"{"t":1}"#).await;
    assert_eq!(watcher.next(TOPIC).await.json(), json!({"t": 1}));
    session.send(TOPIC, 0, r#"{"t":2}"#).await;
    assert_eq!(watcher.next(TOPIC).await.json(), json!({"t": 2}));
}
