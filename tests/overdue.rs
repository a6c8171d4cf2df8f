//! Settings that are pending for longer than they should be.

use serde_json::json;
use setpoint_tests::{
    eventually,
    harness::{Harness, mqtt::Version},
};

#[tokio::test]
async fn what_is_not_answered_in_time_is_told_once_with_its_reason() {
    let server = Harness::setup()
        .with("settings.expected_within", "200ms")
        .with("settings.reconcile_every", "50ms")
        .start()
        .await;
    let (away, deaf) = (server.device("AWAY").await, server.device("DEAF").await);
    let (silent, good) = (server.device("SILENT").await, server.device("GOOD").await);
    let _deaf = deaf.mqtt(Version::V5).connect().await;
    let _silent = silent.listening(Version::V5).await;
    let mut applying = good.listening(Version::V5).await;
    for device in [&away, &deaf, &silent, &good] {
        assert_eq!(device.change(json!({"privacyMode": true})).await, 2);
    }
    applying.next(&good.topic("settings")).await;
    applying
        .publish(&good.topic("settings/ack"), json!({"version": 2}).to_string())
        .await;
    eventually!(good.key_state("privacyMode").await == "synced");
    for (device, verdict) in [
        (&away, "the device has never connected"),
        (&deaf, "connected, but not subscribed to its settings"),
    ] {
        eventually!(!device.timeline("settings_pending").await.is_empty());
        let entries = device.timeline("settings_pending").await;
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(entries[0]["data"], json!({"version": 2, "verdict": verdict}));
    }
    eventually!(!silent.timeline("settings_pending").await.is_empty());
    // A version after it is told of by itself, and the one before never again.
    assert_eq!(away.change(json!({"privacyMode": false})).await, 3);
    eventually!(away.timeline("settings_pending").await.len() == 2);
    let versions: Vec<_> = away
        .timeline("settings_pending")
        .await
        .iter()
        .map(|entry| entry["data"]["version"].clone())
        .collect();
    assert_eq!(versions, [3, 2]);
    let metrics = server.api().root(reqwest::Method::GET, "/metrics").await.text;
    assert!(metrics.contains("setpoint_settings_overdue_total"), "{metrics}");
}

#[tokio::test]
async fn a_model_may_have_a_time_of_its_own() {
    let server = Harness::setup()
        .with("settings.reconcile_every", "50ms")
        .start()
        .await;
    server.sql("update models set settings_expected_within = 1").await;
    let device = server.device("HOME-1").await;
    device.change(json!({"privacyMode": true})).await;
    eventually!(device.timeline("settings_pending").await.len() == 1);
}
