//! Settings set by an operator over MQTT.

use serde_json::json;
use setpoint_tests::{
    Harness, Version, eventually,
    harness::{mqtt::VERSIONS, operator_login},
    mosquitto,
};

#[tokio::test]
async fn an_operators_patch_is_the_same_as_over_rest() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let operator = server.api().scoped(&["mqtt"]).await;
    let mut session = device.listening(Version::V5).await;
    for (version, interval) in VERSIONS.into_iter().zip([20, 30]) {
        let login = operator_login(operator.token(), "ops");
        let patch = json!({"reportInterval": interval}).to_string();
        let sent = mosquitto::publish(
            server.mqtt_port(),
            version,
            &login,
            "devices/HOME-1/settings/set",
            &patch,
            &[],
        );
        let (code, output) = sent.await;
        assert_eq!(code, Some(0), "{output}");
        let document = session.next("devices/HOME-1/settings").await.json();
        assert_eq!(document["settings"]["reportInterval"], interval);
        let told = device.version(document["version"].as_i64().unwrap()).await;
        assert_eq!(told["source"], "mqtt");
        assert_eq!(told["actor"], "token:mqtt");
    }
    let number = {
        let mut ops = server
            .operator(Version::V3, operator.token(), "ops-2")
            .connect()
            .await;
        ops.publish("devices/HOME-1/settings/set", r#"{"reportInterval":null}"#)
            .await;
        session.next("devices/HOME-1/settings").await.json()["version"]
            .as_i64()
            .unwrap()
    };
    assert_eq!(
        device.settings().await["overrides"],
        json!({}),
        "null drops, at version {number}"
    );
}

#[tokio::test]
async fn whoever_is_no_operator_sets_nothing() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let viewer = server
        .api()
        .scoped(&["settings:read", "settings:write", "devices:read"])
        .await;
    let login = operator_login(viewer.token(), "viewer");
    let topic = device.topic("settings/set");
    for version in VERSIONS {
        let sent = mosquitto::publish(
            server.mqtt_port(),
            version,
            &login,
            &topic,
            r#"{"privacyMode":true}"#,
            &[],
        );
        let (code, output) = sent.await;
        assert_ne!(code, Some(0), "without the scope `mqtt` nobody connects");
        assert!(output.to_lowercase().contains("not authori"), "{output}");
    }
    let mut session = device.mqtt_v5().await;
    assert_eq!(
        session.publish(&topic, r#"{"privacyMode":true}"#).await,
        0x87,
        "nor a device its own"
    );
    assert_eq!(device.settings().await["version"], 1);
}

#[tokio::test]
async fn a_wrong_patch_is_answered_and_shows_in_the_timeline() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut ops = server
        .operator(Version::V5, server.api().token(), "ops")
        .connect()
        .await;
    for (number, (patch, reason)) in [
        (r#"{"reportInterval":5}"#, "must be from 10 to 3600"),
        (r#"{"colour":"red"}"#, "unknown setting"),
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
    ]
    .into_iter()
    .enumerate()
    {
        let code = ops.publish("devices/HOME-1/settings/set", patch).await;
        assert_eq!(code, 0x99, "{patch}");
        let entries = eventually!({
            let entries = device.timeline("settings_set_rejected").await;
            (entries.len() == number + 1).then_some(entries)
        });
        assert!(entries[0].to_string().contains(reason), "{}", entries[0]);
    }
    assert_eq!(device.settings().await["version"], 1);
    let code = ops
        .publish("devices/NOBODY/settings/set", r#"{"privacyMode":true}"#)
        .await;
    assert_ne!(code, 0, "there is no such device");
}
