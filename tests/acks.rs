//! What a device says about its settings.

use serde_json::{Value, json};
use setpoint_tests::{Device, Harness, Mqtt, Version, eventually};

async fn acknowledge(session: &mut Mqtt, device: &Device, ack: &Value) -> u8 {
    session
        .publish(&device.topic("settings/ack"), ack.to_string())
        .await
}

#[tokio::test]
async fn an_acknowledged_document_is_synced_and_reported() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for version in [Version::V3, Version::V5] {
        let mut session = device.listening(version).await;
        let number = device
            .change(json!({"privacyMode": version == Version::V3}))
            .await;
        assert_eq!(device.key_state("privacyMode").await, "pending");
        let document = session.next("devices/HOME-1/settings").await.json();
        let ack = json!({"version": number, "settings": document["settings"]});
        assert_eq!(acknowledge(&mut session, &device, &ack).await, 0);
        let settings = eventually!({
            let settings = device.settings().await;
            (settings["reported_version"] == number).then_some(settings)
        });
        assert_eq!(settings["reported"], document["settings"]);
        for (key, status) in settings["status"].as_object().unwrap() {
            assert_eq!(status["state"], "synced", "{key}: {settings}");
        }
        session.disconnect().await;
    }
}

#[tokio::test]
async fn one_refused_key_is_refused_alone_with_the_devices_words() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.listening(Version::V5).await;
    let number = device
        .change(json!({"privacyMode": true, "reportInterval": 20}))
        .await;
    let mut running = session.next("devices/HOME-1/settings").await.json()["settings"].clone();
    running["reportInterval"] = json!(60);
    let ack = json!({"version": number, "settings": running,
        "errors": {"reportInterval": {"code": 400, "message": "30..300 only"}}});
    acknowledge(&mut session, &device, &ack).await;
    eventually!(device.key_state("reportInterval").await == "refused");
    let settings = device.settings().await;
    assert_eq!(settings["status"]["reportInterval"]["message"], "30..300 only");
    assert_eq!(settings["status"]["privacyMode"]["state"], "synced");
    assert_eq!(
        settings["reported"]["reportInterval"], 60,
        "what the device really runs"
    );
    assert_eq!(
        settings["settings"]["reportInterval"], 20,
        "what it should run stays"
    );
    let entry = eventually!(device.timeline("settings_refused").await.into_iter().next());
    assert!(entry.to_string().contains("30..300 only"), "{entry}");

    // A new wish is a new chance.
    let number = device.change(json!({"reportInterval": 40})).await;
    assert_eq!(device.key_state("reportInterval").await, "pending");
    let document = session.next("devices/HOME-1/settings").await.json();
    acknowledge(
        &mut session,
        &device,
        &json!({"version": number, "settings": document["settings"]}),
    )
    .await;
    eventually!(device.key_state("reportInterval").await == "synced");
}

#[tokio::test]
async fn a_device_that_runs_something_else_is_pending_and_quoted() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.listening(Version::V3).await;
    let number = device.change(json!({"reportInterval": 20})).await;
    let mut running = session.next("devices/HOME-1/settings").await.json()["settings"].clone();
    running["reportInterval"] = json!(61);
    acknowledge(
        &mut session,
        &device,
        &json!({"version": number, "settings": running}),
    )
    .await;
    eventually!(device.settings().await["reported_version"] == number);
    let status = device.settings().await["status"]["reportInterval"].clone();
    assert_eq!(status["state"], "pending");
    assert_eq!(status["message"], "the device runs 61");
}

#[tokio::test]
async fn an_ack_that_makes_no_sense_changes_nothing_and_shows_in_the_timeline() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.listening(Version::V5).await;
    let number = device.change(json!({"privacyMode": true})).await;
    let document = session.next("devices/HOME-1/settings").await.json();
    acknowledge(
        &mut session,
        &device,
        &json!({"version": number, "settings": document["settings"]}),
    )
    .await;
    eventually!(device.settings().await["reported_version"] == number);
    let before = device.settings().await;

    let mut rejected = 0;
    for (ack, reason) in [
        (
            json!({"version": 1}).to_string(),
            "version 1 is stale: 2 was acknowledged already",
        ),
        (
            json!({"version": 9}).to_string(),
            "version 9 does not exist yet: the newest is 2",
        ),
        (
            json!({"version": 2, "settings": {"colour": 1}}).to_string(),
            "unknown settings: colour",
        ),
        (
            json!({"version": 2, "errors": {"colour": {"message": "no"}}}).to_string(),
            "unknown settings: colour",
        ),
        (
            json!({"settings": {}}).to_string(),
            "the acknowledgement is not of the documented shape",
        ),
        (
            json!({"version": 2, "error": {}}).to_string(),
            "the acknowledgement is not of the documented shape",
        ),
        (
            json!({"version": 2, "errors": {"label": "no"}}).to_string(),
            "the acknowledgement is not of the documented shape: invalid type: string \\\"no\\\", \
             expected an object of `code` and `message`",
        ),
        (
            "{\"version\":2".to_owned(),
            "the acknowledgement is not valid JSON",
        ),
        ("[]".to_owned(), "the acknowledgement is not a JSON object"),
        (
            r#"{"version":2,"version":2}"#.to_owned(),
            "the acknowledgement is ambiguous: the key \\\"version\\\" stands there twice",
        ),
        (
            format!(
                "{{\"version\":2,\"settings\":{}1{}}}",
                r#"{"label":"#.repeat(9),
                "}".repeat(9)
            ),
            "the acknowledgement is nested more than 9 levels deep",
        ),
        (String::new(), "the acknowledgement is not valid JSON"),
        (
            format!(
                "{{\"version\":2,\"settings\":{{\"label\":\"{}\"}}}}",
                "x".repeat(70_000)
            ),
            "the acknowledgement is larger than",
        ),
    ] {
        // MQTT 5 says so at once; the message is done with either way.
        let code = session.publish("devices/HOME-1/settings/ack", ack.clone()).await;
        assert_eq!(code, 0x99, "{ack:.80}");
        rejected += 1;
        let entries = eventually!({
            let entries = device.timeline("settings_ack_rejected").await;
            (entries.len() == rejected).then_some(entries)
        });
        assert!(entries[0].to_string().contains(reason), "{}", entries[0]);
    }
    assert_eq!(device.settings().await, before);
    assert!(session.is_connected(), "a wrong payload ends no session");
    let metrics = server.api().root(reqwest::Method::GET, "/metrics").await.text;
    for (outcome, count) in [
        ("stale", 1),
        ("future_version", 1),
        ("unknown_keys", 2),
        ("shape", 3),
        ("malformed", 5),
        ("too_large", 1),
    ] {
        let line = format!("setpoint_settings_acknowledgements_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn an_ack_for_a_version_of_an_earlier_device_of_the_serial_is_no_ack() {
    let server = Harness::start().await;
    let former = server.device("HOME-1").await;
    former.change(json!({"privacyMode": true})).await;
    server.api().delete("/devices/HOME-1").await.expect(204);
    let device = server.device("HOME-1").await;
    let mut session = device.listening(Version::V5).await;
    let before = device.settings().await;
    let ack = json!({"version": 2});
    assert_eq!(acknowledge(&mut session, &device, &ack).await, 0x99);
    let entries = eventually!({
        let entries = device.timeline("settings_ack_rejected").await;
        (entries.len() == 1).then_some(entries)
    });
    let reason = "version 2 was never this device's: its first is 3";
    assert_eq!(entries[0]["data"]["reason"], reason);
    assert_eq!(device.settings().await, before);
}

#[tokio::test]
async fn version_3_sessions_outlive_a_wrong_ack_too() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.listening(Version::V3).await;
    assert_eq!(
        session.publish("devices/HOME-1/settings/ack", "nonsense").await,
        0,
        "else it would come for ever"
    );
    eventually!(device.timeline("settings_ack_rejected").await.len() == 1);
    let number = device.change(json!({"privacyMode": true})).await;
    assert_eq!(
        session.next("devices/HOME-1/settings").await.json()["version"],
        number
    );
}

#[tokio::test]
async fn an_ack_of_an_older_version_settles_only_what_it_could_know() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.listening(Version::V5).await;
    let first = device.change(json!({"privacyMode": true})).await;
    let document = session.next("devices/HOME-1/settings").await.json();
    device.change(json!({"reportInterval": 20})).await;
    acknowledge(
        &mut session,
        &device,
        &json!({"version": first, "settings": document["settings"]}),
    )
    .await;
    eventually!(device.key_state("privacyMode").await == "synced");
    let settings = device.settings().await;
    assert_eq!(settings["status"]["reportInterval"]["state"], "pending");
    assert_eq!(settings["reported_version"], first);
}

#[tokio::test]
async fn nobody_acknowledges_for_another_device() {
    let server = Harness::start().await;
    let (device, other) = (server.device("HOME-1").await, server.device("HOME-2").await);
    let mut session = other.mqtt_v5().await;
    let code = session
        .publish("devices/HOME-1/settings/ack", r#"{"version":1}"#)
        .await;
    assert_eq!(code, 0x87);
    assert_eq!(device.settings().await["reported_version"], Value::Null);
}
