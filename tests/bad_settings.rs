//! What is no change of settings: one answer each over REST and MQTT, a count, an entry in the timeline, and nothing else.

use serde_json::{Value, json};
use setpoint_tests::{Device, Harness, Mqtt, Version, eventually};

/// What is wrong, the answer's status, code and reason (in `errors`, else in `detail`).
fn wrong() -> Vec<(String, u16, &'static str, Value)> {
    let deep = format!("{}1{}", r#"{"label":"#.repeat(9), "}".repeat(9));
    let large = format!(r#"{{"label":"{}"}}"#, "x".repeat(33 * 1024));
    let invalid = |patch: &str, errors| (patch.to_owned(), 422, "validation_failed", errors);
    let malformed = |patch: &str, reason: &str| (patch.to_owned(), 400, "malformed", json!(reason));
    vec![
        invalid(r#"{"colour":1}"#, json!({"colour": "unknown setting"})),
        invalid(r#"{"colour":null}"#, json!({"colour": "unknown setting"})),
        invalid(
            r#"{"privacyMode":"yes","label":"fine"}"#,
            json!({"privacyMode": "must be true or false"}),
        ),
        invalid(
            r#"{"reportInterval":9}"#,
            json!({"reportInterval": "must be from 10 to 3600"}),
        ),
        malformed(&deep, "the body is nested more than 8 levels deep"),
        malformed(
            "{",
            "the body is not valid JSON: EOF while parsing an object at line 1 column 1",
        ),
        malformed("[]", "the body is not a JSON object"),
        malformed(
            r#"{"label":"a","label":"b"}"#,
            "the body is ambiguous: the key \"label\" stands there twice",
        ),
        (large, 413, "too_large", json!("larger than 32768 bytes")),
    ]
}

/// What the timeline says: the errors by key, or the detail.
fn sentence(reason: &Value) -> String {
    match reason {
        Value::Object(errors) => {
            let each: Vec<String> = errors
                .iter()
                .map(|(key, message)| format!("{key}: {}", message.as_str().unwrap()))
                .collect();
            each.join("; ")
        }
        reason => reason.as_str().unwrap().to_owned(),
    }
}

async fn newest(device: &Device, kind: &str, count: usize) -> Value {
    let entries = eventually!({
        let entries = device.timeline(kind).await;
        (entries.len() == count).then_some(entries)
    });
    entries[0]["data"].clone()
}

#[tokio::test]
async fn over_rest() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let before = device.settings().await;
    let mut count = 0;
    for (body, status, code, reason) in wrong() {
        let answer = server
            .api()
            .patch("/devices/HOME-1/settings")
            .body(body.clone())
            .await;
        let problem = answer.problem(status, code);
        let told = if status == 422 {
            &problem["errors"]
        } else {
            &problem["detail"]
        };
        assert_eq!(*told, reason, "{body:.80}");
        count += 1;
        let entry = newest(&device, "settings_rejected", count).await;
        assert_eq!(entry["reason"], sentence(&reason), "{body:.80}");
        assert_eq!(
            (&entry["actor"], &entry["source"]),
            (&json!("token:admin-token"), &json!("rest"))
        );
    }
    let stale = server
        .api()
        .patch("/devices/HOME-1/settings")
        .header("if-match", "\"7\"")
        .json(&json!({"label": "x"}))
        .await;
    assert_eq!(stale.problem(412, "version_mismatch")["current_version"], 1);
    let entry = newest(&device, "settings_rejected", count + 1).await;
    assert_eq!(entry["reason"], "the current version is 1");
    assert_eq!(device.settings().await, before);
    let metrics = server.api().root(reqwest::Method::GET, "/metrics").await.text;
    for (code, count) in [
        ("validation_failed", 4),
        ("malformed", 4),
        ("too_large", 1),
        ("version_mismatch", 1),
    ] {
        let line = format!("setpoint_settings_rejections_total{{outcome=\"{code}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}");
    }
}

/// An operator that listens to its answers.
async fn operator(server: &Harness, client_id: &str) -> Mqtt {
    let connect = server.operator(Version::V5, server.api().token(), client_id);
    let mut mqtt = connect.connect().await;
    assert_eq!(mqtt.subscribe(&["responses/#"]).await, [1]);
    mqtt
}

#[tokio::test]
async fn over_mqtt() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let before = device.settings().await;
    let mut ops = operator(&server, "ops").await;
    for (count, (body, status, code, reason)) in wrong().into_iter().enumerate() {
        let correlation = format!("c{count}");
        ops.request(
            "devices/HOME-1/settings/set",
            body.clone(),
            "responses/ops",
            &correlation,
        )
        .await;
        let answer = ops.next("responses/ops").await;
        assert_eq!(answer.correlation.as_deref(), Some(correlation.as_bytes()));
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{body:.80}");
        let told = if status == 422 {
            &problem["errors"]
        } else {
            &problem["detail"]
        };
        assert_eq!(*told, reason, "{body:.80}");
        let entry = newest(&device, "settings_set_rejected", count + 1).await;
        assert_eq!(entry["reason"], sentence(&reason), "{body:.80}");
    }
    assert_eq!(device.settings().await, before);
    let metrics = server.api().root(reqwest::Method::GET, "/metrics").await.text;
    for (code, count) in [("validation_failed", 4), ("malformed", 4), ("too_large", 1)] {
        let line = format!("setpoint_settings_sets_total{{outcome=\"{code}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}");
    }
}
