//! Rules that wait for what does not come: telemetry, a connection, an answer.

use serde_json::json;
use setpoint_tests::{Version, eventually, harness::alerts::Watched};

#[tokio::test]
async fn silence_is_noticed_and_its_end_too() {
    let watched = Watched::start().await;
    let device = watched.server.device("HOME-1").await;
    let never = watched.server.device("HOME-2").await;
    watched
        .rule("quiet", json!({"condition": "no telemetry for 15m"}))
        .await;
    watched
        .rule(
            "no-heat",
            json!({"condition": "no temperature for 30m", "scope": {"serial": "HOME-1"}}),
        )
        .await;
    watched.send(&device, json!({"temperature": 20})).await;
    for _ in 0..3 {
        watched.pass(600);
        watched.send(&device, json!({"humidity": 40})).await;
    }
    // Half an hour without a temperature; the other device was never heard of.
    eventually!(watched.state("HOME-1", "no-heat").await == "firing");
    assert_eq!(
        watched.message("HOME-1", "no-heat").await,
        "no temperature since 14:00"
    );
    eventually!(watched.state("HOME-2", "quiet").await == "firing");
    assert_eq!(
        never.timeline("alert_firing").await[0]["at"],
        "2026-01-15T14:15:00Z"
    );
    assert_eq!(watched.state("HOME-1", "quiet").await, "ok");
    watched.pass(899);
    watched.send(&never, json!({"temperature": 20})).await;
    eventually!(watched.state("HOME-2", "quiet").await == "resolved");
    watched.pass(1);
    eventually!(watched.state("HOME-1", "quiet").await == "firing");
    let fired = device.timeline("alert_firing").await;
    assert_eq!(fired[0]["data"]["message"], "no telemetry since 14:30");
    assert_eq!(fired[0]["at"], "2026-01-15T14:45:00Z");
    watched.pass(60);
    let mut session = device.mqtt(Version::V3).connect().await;
    session
        .publish(&device.topic("telemetry"), json!({"temperature": 21}).to_string())
        .await;
    eventually!(watched.state("HOME-1", "quiet").await == "resolved");
    eventually!(watched.state("HOME-1", "no-heat").await == "resolved");
    assert_eq!(
        device.timeline("alert_resolved").await[0]["at"],
        "2026-01-15T14:46:00Z"
    );
    // And anew.
    watched.pass(900);
    eventually!(watched.state("HOME-1", "quiet").await == "firing");
    assert_eq!(
        device.timeline("alert_firing").await[0]["at"],
        "2026-01-15T15:01:00Z"
    );
}

#[tokio::test]
async fn a_device_that_stays_away_is_noticed() {
    let watched = Watched::start().await;
    let device = watched.server.device("HOME-1").await;
    let session = device.mqtt_v5().await;
    watched.server.device("HOME-2").await;
    watched
        .rule(
            "away",
            json!({"condition": "offline for 10m", "severity": "critical"}),
        )
        .await;
    // When the rule was made, the device may not have been written down as online yet: it was pending then.
    eventually!(watched.api().get("/devices/HOME-1").await.expect(200)["online"] == true);
    eventually!(watched.state("HOME-1", "away").await == "ok");
    watched.pass(120);
    drop(session);
    eventually!(watched.state("HOME-1", "away").await == "pending");
    assert_eq!(
        watched.message("HOME-1", "away").await,
        "offline since 14:02, fires at 14:12"
    );
    // Back within its time: nothing happened.
    watched.pass(300);
    let session = device.mqtt_v5().await;
    eventually!(watched.state("HOME-1", "away").await == "ok");
    drop(session);
    eventually!(watched.state("HOME-1", "away").await == "pending");
    watched.pass(300);
    // The other one never came at all.
    eventually!(watched.state("HOME-2", "away").await == "firing");
    assert_eq!(watched.state("HOME-1", "away").await, "pending");
    watched.pass(300);
    eventually!(watched.state("HOME-1", "away").await == "firing");
    let fired = device.timeline("alert_firing").await;
    assert_eq!(fired.len(), 1, "{fired:?}");
    let data = &fired[0]["data"];
    assert_eq!(
        (
            &data["alert"],
            &data["severity"],
            &data["since"],
            &data["message"]
        ),
        (
            &json!("away"),
            &json!("critical"),
            &json!("2026-01-15T14:07:00Z"),
            &json!("offline since 14:07")
        )
    );
    let _session = device.mqtt_v5().await;
    eventually!(watched.state("HOME-1", "away").await == "resolved");
}

#[tokio::test]
async fn settings_without_an_answer_are_noticed() {
    let watched = Watched::start().await;
    let device = watched.server.device("HOME-1").await;
    let mut session = device.listening(Version::V5).await;
    let acked = |version: i64| json!({"version": version}).to_string();
    session.publish(&device.topic("settings/ack"), acked(1)).await;
    eventually!(device.key_state("privacyMode").await == "synced");
    watched
        .rule("stuck", json!({"condition": "settings pending for 10m"}))
        .await;
    watched.pass(60);
    device.change(json!({"privacyMode": true})).await;
    eventually!(watched.state("HOME-1", "stuck").await == "pending");
    watched.pass(300);
    // Changed once more, and still not answered.
    let version = device.change(json!({"privacyMode": false, "label": "x"})).await;
    watched.pass(300);
    eventually!(watched.state("HOME-1", "stuck").await == "firing");
    assert_eq!(
        watched.message("HOME-1", "stuck").await,
        "settings pending since 14:01"
    );
    session
        .publish(&device.topic("settings/ack"), acked(version))
        .await;
    eventually!(watched.state("HOME-1", "stuck").await == "resolved");
    assert_eq!(device.timeline("alert_firing").await.len(), 1);
    assert_eq!(device.timeline("alert_resolved").await.len(), 1);
}
