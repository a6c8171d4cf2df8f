//! The simulator's devices against the server.

use std::time::Duration;

use device_sim::{
    Device as Simulated, DeviceOptions, Endpoint, Fleet, FleetOptions, Registrar, Rest, Token,
    device::{MqttVersion, Session},
    endpoint::TlsFiles,
};
use serde_json::json;
use setpoint_tests::{Device, Harness, WAIT, eventually};
use tokio_util::task::TaskTracker;

fn options(device: &Device) -> DeviceOptions {
    let token = Some(Token::new(device.token.clone()));
    DeviceOptions::new(
        device.serial.parse().unwrap(),
        token,
        Endpoint::loopback(device.mqtt_port),
    )
}

#[tokio::test]
async fn a_change_is_applied_and_synced() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let tracker = TaskTracker::new();
    for version in [MqttVersion::V3, MqttVersion::V5] {
        let simulated = Simulated::start(
            DeviceOptions {
                version,
                ..options(&device)
            },
            &tracker,
        );
        simulated.ready(WAIT).await.unwrap();
        let number = device
            .change(json!({"privacyMode": version == MqttVersion::V3}))
            .await;
        let state = simulated
            .applied(u64::try_from(number).unwrap(), WAIT)
            .await
            .unwrap();
        assert_eq!(state.settings["privacyMode"], version == MqttVersion::V3);
        eventually!(device.key_state("privacyMode").await == "synced");
        simulated.stop().await;
    }
}

#[tokio::test]
async fn a_device_behind_a_firewall_comes_by_websocket() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let url = format!("{}/mqtt", server.api().server().replace("http://", "ws://"));
    let endpoint = Endpoint::new(url.parse().unwrap(), &TlsFiles::default()).unwrap();
    for version in [MqttVersion::V3, MqttVersion::V5] {
        let options = DeviceOptions {
            version,
            endpoint: endpoint.clone(),
            ..options(&device)
        };
        let simulated = Simulated::start(options, &TaskTracker::new());
        simulated.ready(WAIT).await.unwrap();
        let label = format!("{version:?}");
        let number = device.change(json!({"label": label})).await;
        simulated
            .applied(u64::try_from(number).unwrap(), WAIT)
            .await
            .unwrap();
        eventually!(device.key_state("label").await == "synced");
        simulated.stop().await;
    }
    let connected = eventually!({
        let connected = device.timeline("connected").await;
        (connected.len() == 2).then_some(connected)
    });
    for entry in connected {
        assert!(entry.to_string().contains("websocket"), "{entry}");
    }
}

#[tokio::test]
async fn a_refusing_device_says_so() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let refusing = DeviceOptions {
        refuse: vec!["privacyMode".to_owned()],
        ..options(&device)
    };
    let simulated = Simulated::start(refusing, &TaskTracker::new());
    simulated.ready(WAIT).await.unwrap();
    let number = device
        .change(json!({"privacyMode": true, "reportInterval": 30}))
        .await;
    eventually!(device.key_state("privacyMode").await == "refused");
    let settings = device.settings().await;
    assert_eq!(
        settings["status"]["privacyMode"]["message"],
        "refused by the simulator"
    );
    assert_eq!(settings["status"]["reportInterval"]["state"], "synced");
    assert_eq!(settings["reported"]["privacyMode"], false);
    let verdict = device.version(number).await["verdict"].clone();
    assert_eq!(verdict, "refused: privacyMode: refused by the simulator");
}

#[tokio::test]
async fn a_device_that_was_away_catches_up() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    // REST may never show it offline, if it is back before that is written.
    let cuts = async || {
        let ends = device.timeline("disconnected").await;
        let lost = ends
            .iter()
            .filter(|entry| entry.to_string().contains("connection_lost"));
        lost.count()
    };
    for session in [Session::Clean, Session::Persistent] {
        let simulated = Simulated::start(
            DeviceOptions {
                session,
                ..options(&device)
            },
            &TaskTracker::new(),
        );
        simulated.ready(WAIT).await.unwrap();
        let before = cuts().await;
        simulated.cut(Duration::from_secs(1)).await;
        eventually!(cuts().await > before);
        let number = device.change(json!({"label": format!("{session:?}")})).await;
        simulated
            .applied(u64::try_from(number).unwrap(), WAIT)
            .await
            .unwrap();
        eventually!(device.key_state("label").await == "synced");
        simulated.stop().await;
    }
}

#[tokio::test]
async fn it_reports_a_believable_temperature() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let simulated = Simulated::start(options(&device), &TaskTracker::new());
    simulated
        .wait(WAIT, |state| state.telemetry_acknowledged > 0)
        .await
        .unwrap();
    let items = device.telemetry("metric=temperature").await;
    let celsius = items[0]["value"].as_f64().unwrap();
    assert!((-40.0..60.0).contains(&celsius), "{celsius}");
}

#[tokio::test]
async fn a_fleet_registers_itself_and_is_in_step() {
    let server = Harness::start().await;
    let rest = Rest::new(server.api().server(), Some(Token::new(server.api().token()))).unwrap();
    let registrar = Registrar::new(rest, "home");
    let serials = device_sim::fleet::serials("SIM-", 50).unwrap();
    let mut fleet = Fleet::new(FleetOptions::default(), TaskTracker::new());
    let endpoint = Endpoint::loopback(server.mqtt_port());
    let make = |serial, token| DeviceOptions {
        telemetry: None,
        ..DeviceOptions::new(serial, Some(token), endpoint.clone())
    };
    fleet.register(&registrar, serials, make).await.unwrap();
    fleet
        .wait(WAIT, |state| state.acknowledged.is_some())
        .await
        .unwrap();
    eventually!({
        let page = server
            .api()
            .get("/devices?online=true&limit=100")
            .await
            .expect(200);
        page["items"].as_array().unwrap().len() == 50
    });
    assert!(fleet.stop(WAIT).await, "all said goodbye");
    eventually!({
        let page = server.api().get("/devices?online=true").await.expect(200);
        page["items"].as_array().unwrap().is_empty()
    });
}
