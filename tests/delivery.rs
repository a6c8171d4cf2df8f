//! Settings on their way to the device.

use nix::sys::signal::Signal;
use serde_json::json;
use setpoint_tests::{Harness, Options, Version, harness::mqtt::VERSIONS, mosquitto};

use crate::PROGRAM;

#[tokio::test]
async fn a_device_has_its_document_when_it_connects() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let number = device.change(json!({"privacyMode": true})).await;
    let expected = json!({"version": number, "settings": device.settings().await["settings"]});
    for version in VERSIONS {
        for filter in ["devices/HOME-1/#", "devices/HOME-1/settings", "devices/HOME-1/+"] {
            let mut session = device.mqtt(version).connect().await;
            assert_eq!(session.subscribe(&[filter]).await, [1], "{filter} in {version:?}");
            let message = session.next("devices/HOME-1/settings").await;
            assert_eq!(message.json(), expected, "{filter} in {version:?}");
            assert!(message.retain, "{filter} in {version:?}");
            assert_eq!(message.qos, 1, "{filter} in {version:?}");
        }
    }
}

#[tokio::test]
async fn mosquitto_sub_has_it_too_and_hears_each_change() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for version in VERSIONS {
        let mut sub = mosquitto::sub(
            server.mqtt_port(),
            version,
            &device.login(),
            "devices/HOME-1/#",
            &["-v"],
        );
        let current = device.settings().await["version"].as_i64().unwrap();
        let first = loop {
            let message = sub.next().await;
            if message.topic == "devices/HOME-1/settings" {
                break message;
            }
            assert_eq!(
                message.topic, "devices/HOME-1/presence",
                "nothing else is retained"
            );
        };
        assert_eq!(first.json()["version"], current);
        assert!(first.retain);
        for step in 1..=3 {
            device
                .change(json!({"reportInterval": 100 + current + step}))
                .await;
            let message = loop {
                let message = sub.next().await;
                if message.topic == "devices/HOME-1/settings" {
                    break message;
                }
            };
            let document = message.json();
            assert_eq!(document["version"], current + step);
            assert_eq!(document["settings"]["reportInterval"], 100 + current + step);
            assert_eq!(
                document["settings"]["temperatureUnit"], "celsius",
                "always the whole document"
            );
            assert!(!message.retain, "a live message is not a retained one");
        }
        sub.stop().await;
    }
}

#[tokio::test]
async fn a_watcher_has_every_retained_document() {
    let server = Harness::start().await;
    let serials: Vec<String> = (0..300).map(|number| format!("HOME-{number}")).collect();
    for chunk in serials.chunks(20) {
        futures_util::future::join_all(chunk.iter().map(|serial| server.device(serial))).await;
    }
    for version in VERSIONS {
        let mut watcher = server
            .operator(version, server.api().token(), "watcher")
            .connect()
            .await;
        watcher.subscribe(&["devices/+/settings"]).await;
        let mut seen = std::collections::HashSet::new();
        while seen.len() < serials.len() {
            let message = watcher.next_of_any().await;
            assert!(message.retain);
            assert!(seen.insert(message.topic.clone()), "{} came twice", message.topic);
        }
        watcher.disconnect().await;
    }
}

#[tokio::test]
async fn the_last_of_a_burst_of_changes_arrives_and_none_comes_out_of_order() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.listening(Version::V5).await;
    let changes = (0..50).map(|step| device.change(json!({"reportInterval": 100 + step})));
    let last = futures_util::future::join_all(changes)
        .await
        .into_iter()
        .max()
        .unwrap();
    let mut seen = 1;
    while seen < last {
        let document = session.next("devices/HOME-1/settings").await.json();
        let version = document["version"].as_i64().unwrap();
        assert!(version > seen, "{version} after {seen}");
        seen = version;
    }
    let settings = device.settings().await;
    assert_eq!(settings["version"], last);
}

#[tokio::test]
async fn a_change_while_away_is_the_first_message_on_return() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for (version, interval) in VERSIONS.into_iter().zip([20, 30]) {
        let session = device.listening(version).await;
        drop(session);
        let number = device.change(json!({"reportInterval": interval})).await;
        // At once: the answer to the PATCH is a promise.
        let mut session = device.mqtt(version).connect().await;
        session.subscribe(&["devices/HOME-1/settings"]).await;
        let message = session.next_of_any().await;
        assert_eq!(message.topic, "devices/HOME-1/settings");
        assert_eq!(message.json()["version"], number, "in {version:?}");
    }
}

#[tokio::test]
async fn a_persistent_session_hears_it_without_subscribing_again() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for (version, interval) in VERSIONS.into_iter().zip([20, 40]) {
        let mut session = device.mqtt(version).persistent().connect().await;
        session.subscribe(&["devices/HOME-1/settings"]).await;
        session.next("devices/HOME-1/settings").await;
        drop(session);
        device.change(json!({"reportInterval": interval})).await;
        let last = device.change(json!({"reportInterval": interval + 1})).await;
        let mut session = device.mqtt(version).persistent().connect().await;
        assert!(session.session_present, "in {version:?}");
        loop {
            let document = session.next("devices/HOME-1/settings").await.json();
            if document["version"] == last {
                assert_eq!(document["settings"]["reportInterval"], interval + 1);
                break;
            }
        }
        // A clean one ends what was kept.
        let clean = device.mqtt(version).connect().await;
        assert!(!clean.session_present);
        clean.disconnect().await;
    }
}

#[tokio::test]
async fn subscribing_again_brings_the_document_again() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for version in VERSIONS {
        let mut session = device.mqtt(version).connect().await;
        for _ in 0..3 {
            session.subscribe(&["devices/HOME-1/settings"]).await;
            assert_eq!(session.next("devices/HOME-1/settings").await.json()["version"], 1);
        }
        session.unsubscribe("devices/HOME-1/settings").await;
        session.subscribe(&["devices/HOME-1/settings"]).await;
        assert_eq!(session.next("devices/HOME-1/settings").await.json()["version"], 1);
    }
}

#[tokio::test]
async fn a_restarted_server_has_every_document_again() {
    let mut server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let number = device.change(json!({"privacyMode": true})).await;
    server.restart().await;
    let device = setpoint_tests::Device {
        mqtt_port: server.mqtt_port(),
        api: server.api().clone(),
        ..device
    };
    let mut session = device.mqtt_v3().await;
    session.subscribe(&["devices/HOME-1/settings"]).await;
    let document = session.next("devices/HOME-1/settings").await.json();
    assert_eq!(document["version"], number);
    assert_eq!(document["settings"]["privacyMode"], true);
}

#[tokio::test]
async fn a_change_survives_a_killed_server() {
    let mut child = Options::new(PROGRAM).start().await;
    let device = child.device("HOME-1").await;
    drop(device.listening(Version::V3).await);
    for (round, version) in [Version::V3, Version::V5, Version::V3].into_iter().enumerate() {
        let interval = 20 + round;
        let number = child
            .again(&device)
            .change(json!({"reportInterval": interval}))
            .await;
        // At once: the change is committed, and perhaps not yet published.
        child.kill().await;
        child.start_again().await;
        let login = device.login();
        let filter = ["devices/HOME-1/settings"];
        let mut sub = mosquitto::sub(child.mqtt_port, version, &login, filter[0], &[]);
        let document = sub.next_on("devices/HOME-1/settings").await;
        assert_eq!(document["version"], number, "round {round}");
        assert_eq!(document["settings"]["reportInterval"], interval, "round {round}");
        sub.stop().await;
    }
    assert!(child.stop(Signal::SIGTERM).await.success());
}
