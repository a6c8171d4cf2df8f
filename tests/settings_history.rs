//! The history of settings: versions, timelines, verdicts, reverts.

use serde_json::{Value, json};
use setpoint_tests::{Harness, Version, eventually};

fn versions(list: &Value) -> Vec<i64> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["version"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn history_tells_who_changed_what_newest_first() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    device
        .change(json!({"privacyMode": true, "reportInterval": 30}))
        .await;
    device.change(json!({"reportInterval": null})).await;
    let list = server
        .api()
        .get("/devices/HOME-1/settings/versions")
        .await
        .expect(200);
    assert_eq!(versions(&list), [3, 2, 1]);
    let items = list["items"].as_array().unwrap();
    assert_eq!(
        items[0]["diff"],
        json!({"reportInterval": {"from": 30, "to": 60}})
    );
    assert_eq!(
        items[1]["diff"],
        json!({"privacyMode": {"from": false, "to": true}, "reportInterval": {"from": 60, "to": 30}})
    );
    for item in &items[..2] {
        assert_eq!(item["source"], "rest", "{item}");
        assert_eq!(item["actor"], "token:admin-token", "{item}");
        assert_eq!(item["at"], item["timeline"]["requested"], "{item}");
    }
    assert_eq!(items[2]["source"], "created");
    let one = device.version(2).await;
    for field in ["version", "actor", "source", "at", "diff", "verdict"] {
        assert_eq!(one[field], items[1][field], "one version is told as in the list");
    }
    server
        .api()
        .get("/devices/HOME-1/settings/versions/4")
        .await
        .problem(404, "not_found");
    server
        .api()
        .get("/devices/HOME-1/settings/versions/x")
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn history_goes_on_by_cursor() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for number in 0..6 {
        device.change(json!({"reportInterval": 100 + number})).await;
    }
    let page = server
        .api()
        .get("/devices/HOME-1/settings/versions?limit=4")
        .await
        .expect(200);
    assert_eq!(versions(&page), [7, 6, 5, 4]);
    let next = page["next"].as_str().unwrap();
    let path = format!("/devices/HOME-1/settings/versions?limit=4&cursor={next}");
    let page = server.api().get(&path).await.expect(200);
    assert_eq!(versions(&page), [3, 2, 1]);
    assert_eq!(page["next"], Value::Null);
}

#[tokio::test]
async fn a_version_is_followed_from_request_to_application() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for version in [Version::V3, Version::V5] {
        let mut session = device.listening(version).await;
        let number = device
            .change(json!({"privacyMode": version == Version::V3}))
            .await;
        let document = session.next("devices/HOME-1/settings").await.json();
        assert_eq!(document["version"], number);
        let told = eventually!({
            let told = device.version(number).await;
            told["timeline"]["delivered"].is_string().then_some(told)
        });
        assert!(told["timeline"]["published"].is_string(), "{told}");
        assert_eq!(
            told["timeline"]["applied"],
            Value::Null,
            "a PUBACK is no acknowledgement: {told}"
        );
        let verdict = told["verdict"].as_str().unwrap();
        assert!(
            verdict.starts_with("delivered at ") && verdict.ends_with(", no acknowledgement yet"),
            "{verdict}"
        );

        let ack = json!({"version": number, "settings": document["settings"]});
        assert_eq!(
            session
                .publish("devices/HOME-1/settings/ack", ack.to_string())
                .await,
            0
        );
        let told = eventually!({
            let told = device.version(number).await;
            told["timeline"]["applied"].is_string().then_some(told)
        });
        let steps: Vec<&str> = ["requested", "published", "delivered", "applied"]
            .iter()
            .map(|step| told["timeline"][step].as_str().unwrap())
            .collect();
        let times: Vec<_> = steps
            .iter()
            .map(|step| chrono::DateTime::parse_from_rfc3339(step).unwrap())
            .collect();
        assert!(times.is_sorted(), "{steps:?}");
        assert_eq!(told["timeline"]["refused"], Value::Null);
        assert_eq!(told["timeline"]["superseded"], Value::Null);
        assert!(
            told["verdict"].as_str().unwrap().starts_with("applied at "),
            "{told}"
        );
        session.disconnect().await;
    }
}

#[tokio::test]
async fn a_device_that_does_not_acknowledge_has_not_been_delivered_to() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.mqtt(Version::V5).without_acks().connect().await;
    session.subscribe(&["devices/HOME-1/settings"]).await;
    session.next("devices/HOME-1/settings").await;
    let number = device.change(json!({"privacyMode": true})).await;
    session.next("devices/HOME-1/settings").await;
    // The session speaks, so what it sent before has been looked at.
    assert_eq!(session.publish("devices/HOME-1/telemetry", r#"{"t":1}"#).await, 0);
    let told = device.version(number).await;
    assert_eq!(told["timeline"]["delivered"], Value::Null, "{told}");
    let verdict = told["verdict"].as_str().unwrap();
    assert!(
        verdict.starts_with("published at ") && verdict.ends_with(", not delivered yet"),
        "{verdict}"
    );
}

#[tokio::test]
async fn the_verdict_says_why_a_change_is_stuck() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let number = device.change(json!({"privacyMode": true})).await;
    assert_eq!(
        device.version(number).await["verdict"],
        "the device has never connected"
    );

    let session = device.mqtt_v3().await;
    eventually!(device.version(number).await["verdict"] == "connected, but not subscribed to its settings");
    session.disconnect().await;
    let verdict = eventually!({
        let told = device.version(number).await;
        let verdict = told["verdict"].as_str().unwrap().to_owned();
        verdict.starts_with("offline since ").then_some(verdict)
    });
    let time = verdict.strip_prefix("offline since ").unwrap();
    assert!(time.contains(':'), "{verdict}");
}

#[tokio::test]
async fn a_newer_version_takes_an_unanswered_ones_place() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let first = device.change(json!({"label": "one"})).await;
    let second = device.change(json!({"label": "two"})).await;
    let told = device.version(first).await;
    assert!(told["timeline"]["superseded"].is_string(), "{told}");
    assert_eq!(told["verdict"], format!("superseded by version {second}"));
    assert_eq!(
        device.version(second).await["timeline"]["superseded"],
        Value::Null
    );
}

#[tokio::test]
async fn a_refused_version_says_what_the_device_said() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.listening(Version::V3).await;
    let number = device.change(json!({"reportInterval": 20})).await;
    session.next("devices/HOME-1/settings").await;
    let ack = json!({"version": number, "settings": {"reportInterval": 60},
        "errors": {"reportInterval": {"code": 400, "message": "30..300 only"}}});
    session
        .publish("devices/HOME-1/settings/ack", ack.to_string())
        .await;
    let told = eventually!({
        let told = device.version(number).await;
        told["timeline"]["refused"].is_string().then_some(told)
    });
    assert_eq!(told["timeline"]["applied"], Value::Null, "{told}");
    assert_eq!(told["verdict"], "refused: reportInterval: 30..300 only");
}

#[tokio::test]
async fn a_revert_brings_an_old_version_back_as_a_new_one() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    device.change(json!({"label": "two", "privacyMode": true})).await;
    device
        .change(json!({"label": "three", "reportInterval": 30}))
        .await;
    let mut session = device.listening(Version::V5).await;
    let reverted = server
        .api()
        .post("/devices/HOME-1/settings/versions/2/revert")
        .await;
    let settings = reverted.expect(200);
    assert_eq!(settings["version"], 4, "versions never fall");
    assert_eq!(reverted.header("etag"), "\"4\"");
    assert_eq!(
        settings["overrides"],
        json!({"label": "two", "privacyMode": true})
    );
    let document = session.next("devices/HOME-1/settings").await.json();
    assert_eq!(document["version"], 4, "the device hears it");
    assert_eq!(document["settings"]["reportInterval"], 60);
    assert_eq!(device.version(4).await["source"], "revert");

    let again = server
        .api()
        .post("/devices/HOME-1/settings/versions/2/revert")
        .await
        .expect(200);
    assert_eq!(again["version"], 4, "a revert to what is there changes nothing");
    server
        .api()
        .post("/devices/HOME-1/settings/versions/9/revert")
        .await
        .problem(404, "not_found");
    let stale = server
        .api()
        .post("/devices/HOME-1/settings/versions/1/revert")
        .header("if-match", "\"2\"")
        .await;
    assert_eq!(stale.problem(412, "version_mismatch")["current_version"], 4);
}
