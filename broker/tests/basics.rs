//! The main job: settings down, telemetry up, presence, kick.

use setpoint_broker::{QoS, SessionEvent};
use setpoint_model::presence::{DisconnectReason, Presence};

use crate::support::{Server, connect3, connect5, serial, settings_payload};

#[tokio::test]
async fn a_device_has_its_settings_on_subscribing_and_hears_each_change() {
    let server = Server::start().await;
    server.settings("A", 1).await;
    let mut v3 = server.device3("A").await;
    assert_eq!(v3.subscribe("devices/A/#", QoS::AtLeastOnce).await, 1);
    let mut hello = [v3.message().await, v3.message().await];
    hello.sort_by_key(|message| message.topic.to_string());
    let [presence, settings] = hello;
    assert_eq!(presence.topic, "devices/A/presence");
    assert_eq!(settings.topic, "devices/A/settings");
    assert!(settings.retain);
    assert_eq!(settings.payload, settings_payload(1));
    assert_eq!(
        server.backend.next_delivered().await,
        ("devices/A/settings".to_owned(), 1)
    );
    for version in 2..5 {
        server.settings("A", version).await;
        let message = v3.message().await;
        assert_eq!(
            (message.payload, message.retain),
            (settings_payload(version), false)
        );
        assert_eq!(server.backend.next_delivered().await.1, version);
    }
    v3.silent().await;
}

#[tokio::test]
async fn telemetry_comes_in_and_watchers_see_it() {
    let server = Server::start().await;
    let mut watcher = server.operator5("watch").await;
    assert_eq!(
        watcher.subscribe("devices/+/telemetry", QoS::AtLeastOnce).await,
        1
    );
    let mut device = server.device3("A").await;
    device
        .publish("devices/A/telemetry", "1", QoS::AtLeastOnce, 5)
        .await;
    let rmqtt_codec::v3::Packet::PublishAck { packet_id } = device.recv().await else {
        panic!()
    };
    assert_eq!(packet_id.get(), 5);
    let inbound = server.backend.next_inbound().await;
    assert_eq!(
        (inbound.topic.to_string().as_str(), &inbound.payload[..]),
        ("devices/A/telemetry", &b"1"[..])
    );
    let seen = watcher.message().await;
    assert_eq!(
        (&*seen.topic, &seen.payload[..], seen.qos),
        ("devices/A/telemetry", &b"1"[..], QoS::AtLeastOnce)
    );
}

#[tokio::test]
async fn presence_follows_the_sessions_of_a_device() {
    let server = Server::start().await;
    let mut watcher = server.operator5("watch").await;
    watcher.subscribe("devices/+/presence", QoS::AtLeastOnce).await;
    let device = server.device5("A").await;
    let started = server.event(|event| match event {
        SessionEvent::Started(info) if info.identity.serial().is_some() => Some(info),
        _ => None,
    });
    let started = started.await;
    let online: Presence = serde_json::from_slice(&watcher.message().await.payload).unwrap();
    assert_eq!(
        (online.online, online.session, online.reason),
        (true, started.id, None)
    );
    assert!(server.handle.device(&serial("A")).unwrap().online);

    let mut second = server.v5().await;
    let connect = rmqtt_codec::v5::Connect {
        client_id: "A:two".into(),
        ..connect5("A")
    };
    second.welcome(connect).await;
    device.disconnect().await;
    let others = server.event(|event| match event {
        SessionEvent::Ended { others, .. } => Some(others),
        _ => None,
    });
    assert!(others.await);
    watcher.silent().await;
    drop(second);
    let offline: Presence = serde_json::from_slice(&watcher.message().await.payload).unwrap();
    assert_eq!(
        (offline.online, offline.reason),
        (false, Some(DisconnectReason::ConnectionLost))
    );
    assert!(!server.handle.device(&serial("A")).unwrap().online);
}

#[tokio::test]
async fn a_kick_ends_the_session_at_once() {
    let server = Server::start().await;
    let mut v3 = server.device3("A").await;
    let mut v5 = server.device5("B").await;
    assert_eq!(
        server
            .handle
            .end_device(&serial("A"), DisconnectReason::CredentialRevoked)
            .await,
        1
    );
    assert_eq!(
        server
            .handle
            .end_device(&serial("B"), DisconnectReason::CredentialRevoked)
            .await,
        1
    );
    assert_eq!(server.handle.sessions().len(), 0);
    v3.closed().await;
    assert_eq!(v5.disconnected().await, 0x87);
    assert_eq!(
        server
            .handle
            .end_device(&serial("A"), DisconnectReason::Kicked)
            .await,
        0
    );
}

#[tokio::test]
async fn a_take_over_does_not_flicker() {
    let server = Server::start().await;
    let mut watcher = server.operator5("watch").await;
    watcher.subscribe("devices/A/presence", QoS::AtLeastOnce).await;
    let mut first = server.device5("A").await;
    let _online = watcher.message().await;
    let mut second = server.v3().await;
    second.welcome(connect3("A")).await;
    assert_eq!(first.disconnected().await, 0x8E);
    second.silent().await;
    watcher.silent().await;
    assert_eq!(server.handle.sessions().len(), 2);
}
