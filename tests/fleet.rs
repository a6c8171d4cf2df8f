//! Many changes to many devices at once.

use device_sim::{DeviceOptions, Endpoint, Fleet, FleetOptions, Registrar, Rest, Token};
use futures_util::{StreamExt, stream};
use serde_json::json;
use setpoint_tests::{Harness, WAIT, eventually};
use tokio_util::task::TaskTracker;

const DEVICES: usize = 200;
const CHANGES: usize = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_changes_to_two_hundred_devices_are_all_synced() {
    let server = Harness::setup().with("mqtt.shards", "8").start().await;
    let rest = Rest::new(server.api().server(), Some(Token::new(server.api().token()))).unwrap();
    let serials = device_sim::fleet::serials("SIM-", DEVICES).unwrap();
    let mut fleet = Fleet::new(FleetOptions::default(), TaskTracker::new());
    let endpoint = Endpoint::loopback(server.mqtt_port());
    let make = |serial, token| DeviceOptions {
        telemetry: None,
        ..DeviceOptions::new(serial, Some(token), endpoint.clone())
    };
    fleet
        .register(&Registrar::new(rest, "home"), serials.clone(), make)
        .await
        .unwrap();
    fleet.wait(WAIT, |state| state.ready).await.unwrap();

    let change = |number: usize| {
        let path = format!("/devices/{}/settings", serials[number % DEVICES]);
        let patch =
            json!({"reportInterval": 100 + number / DEVICES, "privacyMode": number.is_multiple_of(2)});
        let call = server.api().patch(&path).json(&patch);
        async move { call.await.expect(200)["version"].as_u64().unwrap() }
    };
    let versions: Vec<u64> = stream::iter(0..CHANGES)
        .map(change)
        .buffer_unordered(16)
        .collect()
        .await;
    assert_eq!(versions.len(), CHANGES);

    for device in fleet.devices() {
        let path = format!("/devices/{}/settings", device.serial());
        let settings = eventually!(
            {
                let settings = server.api().get(&path).await.expect(200);
                let states = settings["status"].as_object().unwrap().values();
                let synced = states.map(|key| &key["state"]).all(|state| state == "synced");
                synced.then_some(settings)
            },
            "{path} to be synced; the device stands at {:?}",
            device.state()
        );
        let state = device.state();
        assert_eq!(state.version, settings["version"].as_u64(), "{path}");
        assert_eq!(json!(*state.settings), settings["settings"], "{path}");
        assert_eq!(settings["reported"], settings["settings"], "{path}");
    }
    assert!(fleet.stop(WAIT).await);
}
