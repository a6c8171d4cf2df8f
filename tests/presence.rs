//! Whether a device is there, and if not, why.

use serde_json::Value;
use setpoint_tests::{
    Device, End, Harness, Message, Mqtt, Options, Version, eventually, harness::mqtt::VERSIONS,
};

use crate::PROGRAM;

const TOPIC: &str = "devices/HOME-1/presence";

async fn watch(server: &Harness) -> Mqtt {
    let mut watcher = server.watcher().await;
    assert_eq!(watcher.subscribe(&["devices/+/presence"]).await, [1]);
    watcher
}

/// The next presence message that says `online`.
async fn told(watcher: &mut Mqtt, online: bool) -> Message {
    loop {
        let message = watcher.next(TOPIC).await;
        if message.json()["online"] == online {
            return message;
        }
    }
}

async fn rest_says(device: &Device, online: bool, reason: Value) -> Value {
    eventually!({
        let said = device.get().await;
        (said["online"] == online && said["disconnect_reason"] == reason).then_some(said)
    })
}

#[tokio::test]
async fn coming_and_going_is_told_on_mqtt_and_rest() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut watcher = watch(&server).await;
    for version in VERSIONS {
        let session = device.mqtt(version).connect().await;
        let message = told(&mut watcher, true).await;
        let here = message.json();
        assert_eq!(here["reason"], Value::Null, "{here}");
        assert!(here["since"].as_str().unwrap().ends_with('Z'), "{here}");
        assert!(here["session"].as_str().unwrap().len() > 30, "{here}");
        rest_says(&device, true, Value::Null).await;

        session.disconnect().await;
        let gone = told(&mut watcher, false).await.json();
        assert_eq!(gone["reason"], "client_disconnected");
        assert_eq!(gone["session"], here["session"]);
        let said = rest_says(&device, false, "client_disconnected".into()).await;
        assert!(said["last_seen"].is_string(), "{said}");
    }
}

#[tokio::test]
async fn presence_is_retained() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.mqtt_v3().await;
    session.subscribe(&[TOPIC]).await;
    // Watchers that come late hear how it stands.
    let message = told(&mut watch(&server).await, true).await;
    assert_eq!(message.qos, 1);
    assert!(message.retain);
    assert_eq!(
        session.next(TOPIC).await.json()["online"],
        true,
        "the device may read its own"
    );
    drop(session);
    eventually!({
        let mut watcher = watch(&server).await;
        watcher.next(TOPIC).await.json()["online"] == false
    });
}

#[tokio::test]
async fn a_broken_connection_is_told_as_such() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut watcher = watch(&server).await;
    let session = device.mqtt_v5().await;
    told(&mut watcher, true).await;
    drop(session);
    assert_eq!(
        told(&mut watcher, false).await.json()["reason"],
        "connection_lost"
    );
    rest_says(&device, false, "connection_lost".into()).await;
}

#[tokio::test]
async fn each_end_has_its_reason() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut watcher = watch(&server).await;

    let mut socket = server.socket().await;
    socket.sign_in(&device, 60).await;
    told(&mut watcher, true).await;
    // A reserved packet type.
    socket.send("f000").await;
    socket.until_closed().await;
    assert_eq!(told(&mut watcher, false).await.json()["reason"], "protocol_error");

    let mut silent = server.socket().await;
    silent.sign_in(&device, 1).await;
    told(&mut watcher, true).await;
    silent.until_closed().await;
    assert_eq!(
        told(&mut watcher, false).await.json()["reason"],
        "keep_alive_timeout"
    );

    let mut session = device.mqtt_v5().await;
    told(&mut watcher, true).await;
    server.api().post("/devices/HOME-1/credential").await;
    session.ended().await;
    assert_eq!(
        told(&mut watcher, false).await.json()["reason"],
        "credential_revoked"
    );
    rest_says(&device, false, "credential_revoked".into()).await;
}

#[tokio::test]
async fn a_take_over_does_not_flicker() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut watcher = watch(&server).await;
    let mut first = device.mqtt_v5().await;
    told(&mut watcher, true).await;
    for _ in 0..5 {
        let second = device.mqtt_v5().await;
        assert_eq!(first.ended().await, End::Disconnected(0x8e), "session taken over");
        first = second;
    }
    first.disconnect().await;
    loop {
        let said = watcher.next(TOPIC).await.json();
        if said["online"] == false {
            assert_eq!(
                said["reason"], "client_disconnected",
                "only the last end is one: {said}"
            );
            break;
        }
    }
    rest_says(&device, false, "client_disconnected".into()).await;
    let ends = eventually!({
        let ends = device.timeline("disconnected").await;
        (ends.len() == 6).then_some(ends)
    });
    let taken = ends
        .iter()
        .filter(|entry| entry.to_string().contains("taken_over"))
        .count();
    assert_eq!(taken, 5, "the timeline has them all: {ends:?}");
}

#[tokio::test]
async fn a_device_is_there_while_one_of_its_sessions_is() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut watcher = watch(&server).await;
    let one = device.mqtt_v5().await;
    let two = device.mqtt(Version::V3).client_id("HOME-1:2").connect().await;
    told(&mut watcher, true).await;
    rest_says(&device, true, Value::Null).await;
    one.disconnect().await;
    eventually!(device.timeline("disconnected").await.len() == 1);
    assert_eq!(device.get().await["online"], true);
    two.disconnect().await;
    assert_eq!(
        told(&mut watcher, false).await.json()["reason"],
        "client_disconnected"
    );
}

#[tokio::test]
async fn an_orderly_stop_tells_the_devices_and_remembers_it() {
    let mut server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.mqtt_v5().await;
    rest_says(&device, true, Value::Null).await;
    server.restart().await;
    assert_eq!(
        session.ended().await,
        End::Disconnected(0x8b),
        "server shutting down"
    );
    let device = Device {
        api: server.api().clone(),
        mqtt_port: server.mqtt_port(),
        ..device
    };
    let said = device.get().await;
    assert_eq!(
        (&said["online"], &said["disconnect_reason"]),
        (&false.into(), &"server_shutdown".into())
    );
    let mut watcher = watch(&server).await;
    assert_eq!(watcher.next(TOPIC).await.json()["reason"], "server_shutdown");
}

#[tokio::test]
async fn after_an_unclean_stop_nobody_is_thought_to_be_there() {
    let mut child = Options::new(PROGRAM).start().await;
    let device = child.device("HOME-1").await;
    let _session = device.mqtt_v3().await;
    rest_says(&device, true, Value::Null).await;
    child.kill().await;
    child.start_again().await;
    let device = child.again(&device);
    let said = device.get().await;
    assert_eq!(
        (&said["online"], &said["disconnect_reason"]),
        (&false.into(), &"server_stopped".into())
    );
    let token = child.api.token().to_owned();
    let login = setpoint_tests::harness::operator_login(&token, "watcher");
    let connect = setpoint_tests::harness::mqtt::Connect::new(child.mqtt_port, Version::V5, login);
    let mut watcher = connect.connect().await;
    watcher.subscribe(&["devices/+/presence"]).await;
    let gone = watcher.next(TOPIC).await.json();
    assert_eq!(
        (&gone["online"], &gone["reason"]),
        (&false.into(), &"server_stopped".into())
    );
    device.mqtt_v3().await;
    assert_eq!(
        told(&mut watcher, true).await.json()["reason"],
        Value::Null,
        "and it may come again"
    );
}
