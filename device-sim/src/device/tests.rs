//! A device against a server that follows a script, packet by packet.

mod server;

use futures_util::StreamExt;
use rmqtt_codec::v3::{ConnectAckReason, Packet};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::event;
use server::Server;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn it_subscribes_on_every_connack_even_to_a_session_that_was_kept() {
    let server = Server::start().await;
    let device = Device::start(server.options(), &TaskTracker::new());
    drop(server.welcome(false).await);
    drop(server.welcome(true).await);
    let _connection = server.welcome(true).await;
    device
        .wait(LIMIT, |state| state.ready && state.connects == 3)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_document_is_applied_acknowledged_and_the_acknowledgement_is_followed() {
    let server = Server::start().await;
    let (observer, mut events) = event::channel(64);
    let mut options = server.options();
    options.refuse = vec!["privacyMode".to_owned()];
    options.observer = observer;
    let device = Device::start(options, &TaskTracker::new());
    let mut connection = server.welcome(false).await;
    connection
        .tell(
            "settings",
            json!({"version": 4, "settings": {"privacyMode": true, "label": "x"}}),
        )
        .await;
    let (topic, ack, id) = connection.told().await;
    assert_eq!(topic, "settings/ack");
    let errors = json!({"privacyMode": {"code": 400, "message": "refused by the simulator"}});
    assert_eq!(
        ack,
        json!({"version": 4, "settings": {"privacyMode": false, "label": "x"}, "errors": errors})
    );
    let state = device.applied(4, LIMIT).await.unwrap();
    assert_eq!(
        (state.settings["label"].as_str(), state.acknowledged),
        (Some("x"), None)
    );
    connection.acknowledge(id).await;
    device
        .wait(LIMIT, |state| state.acknowledged == Some(4))
        .await
        .unwrap();
    loop {
        match timeout(LIMIT, events.next()).await.unwrap().unwrap().1 {
            event::Event::Settings {
                version: 4,
                after_subscribe,
                refused,
                ..
            } => {
                assert!(after_subscribe.is_some() && refused.contains_key("privacyMode"));
                break;
            }
            other => assert!(!matches!(other, event::Event::Unreadable { .. }), "{other:?}"),
        }
    }
}

#[tokio::test]
async fn commands_are_answered_and_firmware_goes_through_its_states() {
    let server = Server::start().await;
    let _device = Device::start(server.options(), &TaskTracker::new());
    let mut connection = server.welcome(false).await;
    let id = "00000000-0000-0000-0000-000000000009";
    connection
        .tell("commands", json!({"id": id, "name": "echo", "params": {"a": 1}}))
        .await;
    let (topic, result, ack) = connection.told().await;
    assert_eq!(
        (topic, result),
        (
            format!("commands/{id}/result"),
            json!({"code": 200, "body": {"a": 1}})
        )
    );
    connection.acknowledge(ack).await;
    connection.tell("firmware", json!({"version": "1.4.0"})).await;
    let mut states = Vec::new();
    while states.last().is_none_or(|state| state != "installed") {
        let (topic, status, ack) = connection.told().await;
        assert_eq!(
            (topic.as_str(), &status["version"]),
            ("firmware/status", &json!("1.4.0"))
        );
        states.push(status["state"].as_str().unwrap().to_owned());
        connection.acknowledge(ack).await;
    }
    states.dedup();
    assert_eq!(states, ["downloading", "installing", "installed"]);
}

#[tokio::test]
async fn telemetry_follows_the_settings_and_is_counted_when_it_is_acknowledged() {
    let server = Server::start().await;
    let mut options = server.options();
    options.telemetry = Some(TelemetryPlan {
        every: Some(Duration::from_millis(1)),
        ..TelemetryPlan::default()
    });
    let device = Device::start(options, &TaskTracker::new());
    let mut connection = server.welcome(false).await;
    let mut times = Vec::new();
    for _ in 0..3 {
        let (topic, sample, id) = connection.told().await;
        assert_eq!(topic, "telemetry");
        assert!(
            sample["temperature"].is_number() && sample["humidity"].is_number(),
            "{sample}"
        );
        times.push(
            sample["at"]
                .as_str()
                .unwrap()
                .parse::<chrono::DateTime<chrono::Utc>>()
                .unwrap(),
        );
        connection.acknowledge(id).await;
    }
    assert!(times.is_sorted());
    device
        .wait(LIMIT, |state| state.telemetry_acknowledged >= 3)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_that_takes_nothing_costs_samples_and_no_memory() {
    let server = Server::start().await;
    let (observer, mut events) = event::channel(1000);
    let mut options = server.options();
    options.observer = observer;
    options.telemetry = Some(TelemetryPlan {
        every: Some(Duration::from_millis(1)),
        ..TelemetryPlan::default()
    });
    let _device = Device::start(options, &TaskTracker::new());
    let _connection = server.welcome(false).await;
    // No PUBACK ever: the window fills, then the queue, then samples are dropped.
    let dropped =
        async { while !matches!(events.next().await, Some((_, event::Event::TelemetryDropped))) {} };
    timeout(LIMIT, dropped).await.unwrap();
}

#[tokio::test]
async fn a_publish_is_done_with_its_puback_and_unknown_without() {
    let server = Server::start().await;
    let device = Device::start(server.options(), &TaskTracker::new());
    assert_eq!(
        device.publish(Channel::Telemetry, true, "{}").await,
        Err(PublishError::NotSent)
    );
    let mut connection = server.welcome(false).await;
    device.ready(LIMIT).await.unwrap();

    let publish = device.publish(Channel::Telemetry, true, r#"{"a":1}"#);
    let answer = async {
        let (_, _, id) = connection.told().await;
        connection.acknowledge(id).await;
    };
    assert_eq!(tokio::join!(publish, answer).0, Ok(()));

    let publish = device.publish(Channel::Telemetry, false, r#"{"a":2}"#);
    let answer = async { assert_eq!(connection.told().await.2, None) };
    assert_eq!(tokio::join!(publish, answer).0, Ok(()));

    let publish = device.publish(Channel::Telemetry, true, r#"{"a":3}"#);
    let answer = async {
        connection.told().await;
        drop(connection);
        server.welcome(false).await
    };
    assert_eq!(tokio::join!(publish, answer).0, Err(PublishError::Unknown));
}

#[tokio::test]
async fn a_kept_session_gets_its_unacknowledged_publish_again() {
    let server = Server::start().await;
    let mut options = server.options();
    options.session = Session::Persistent;
    let device = Device::start(options, &TaskTracker::new());
    let mut connection = server.welcome(false).await;
    device.ready(LIMIT).await.unwrap();
    let publish = device.publish(Channel::Telemetry, true, r#"{"a":1}"#);
    let repeat = async {
        connection.told().await;
        drop(connection);
        let mut connection = server.accept(ConnectAckReason::ConnectionAccepted, true).await;
        loop {
            match connection.hear().await {
                Packet::Publish(publish) => {
                    connection.acknowledge(publish.packet_id).await;
                    return connection;
                }
                other => assert!(matches!(other, Packet::Subscribe { .. }), "{other:?}"),
            }
        }
    };
    assert_eq!(tokio::join!(publish, repeat).0, Ok(()));
}

#[tokio::test]
async fn a_refused_credential_ends_the_device() {
    for reason in [
        ConnectAckReason::NotAuthorized,
        ConnectAckReason::BadUserNameOrPassword,
    ] {
        let server = Server::start().await;
        let device = Device::start(server.options(), &TaskTracker::new());
        server.accept(reason, false).await;
        let ended = device.ready(LIMIT).await;
        assert_eq!(ended, Err(WaitError::Ended(Ended::NotAuthorized)));
    }
}

#[tokio::test]
async fn a_refused_credential_ends_the_device_in_mqtt_5_too() {
    let server = Server::start().await;
    let mut options = server.options();
    options.version = MqttVersion::V5;
    let device = Device::start(options, &TaskTracker::new());
    let (mut stream, _) = timeout(LIMIT, server.listener.accept()).await.unwrap().unwrap();
    let mut connect = [0; 9];
    stream.read_exact(&mut connect).await.unwrap();
    assert_eq!(connect[8], 5, "the protocol level");
    // CONNACK, reason 0x87, no properties.
    stream.write_all(&[0x20, 0x03, 0x00, 0x87, 0x00]).await.unwrap();
    assert_eq!(
        device.ready(LIMIT).await,
        Err(WaitError::Ended(Ended::NotAuthorized))
    );
}

#[tokio::test]
async fn a_refusal_for_another_reason_is_tried_again() {
    let server = Server::start().await;
    let device = Device::start(server.options(), &TaskTracker::new());
    drop(server.accept(ConnectAckReason::ServiceUnavailable, false).await);
    let _connection = server.welcome(false).await;
    device.ready(LIMIT).await.unwrap();
}

#[tokio::test]
async fn stopping_says_disconnect_and_a_cut_says_nothing() {
    let server = Server::start().await;
    let device = Device::start(server.options(), &TaskTracker::new());
    let mut connection = server.welcome(false).await;
    device.ready(LIMIT).await.unwrap();
    device.cut(Duration::ZERO).await;
    assert!(timeout(LIMIT, connection.framed.next()).await.unwrap().is_none());

    let mut connection = server.welcome(false).await;
    device.leave(Duration::ZERO).await;
    assert_eq!(connection.hear().await, Packet::Disconnect);
    drop(connection);

    let mut connection = server.welcome(false).await;
    device
        .wait(LIMIT, |state| state.ready && state.connects == 3)
        .await
        .unwrap();
    assert_eq!(device.stop().await, Ended::Stopped);
    assert_eq!(connection.hear().await, Packet::Disconnect);
}

#[tokio::test]
async fn a_device_that_goes_away_now_and_then_says_so_and_comes_back() {
    let server = Server::start().await;
    let mut options = server.options();
    options.absence = Some(Absence {
        every: Duration::from_millis(20),
        away: Duration::from_millis(1),
    });
    let device = Device::start(options, &TaskTracker::new());
    for _ in 0..2 {
        let mut connection = server.welcome(false).await;
        assert_eq!(connection.hear().await, Packet::Disconnect);
    }
    let _connection = server.welcome(false).await;
    device.wait(LIMIT, |state| state.connects == 3).await.unwrap();
}

#[tokio::test]
async fn dropping_the_handle_stops_the_device() {
    let server = Server::start().await;
    let tracker = TaskTracker::new();
    let device = Device::start(server.options(), &tracker);
    let mut connection = server.welcome(false).await;
    device.ready(LIMIT).await.unwrap();
    drop(device);
    assert_eq!(connection.hear().await, Packet::Disconnect);
    tracker.close();
    timeout(LIMIT, tracker.wait()).await.unwrap();
}

#[test]
fn back_off_doubles_up_to_its_limit_and_never_in_step() {
    let backoff = Backoff {
        first: Duration::from_millis(100),
        longest: Duration::from_secs(1),
    };
    for (failures, whole) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (60, 1000)] {
        for _ in 0..100 {
            let wait = backoff.wait(failures).as_millis();
            assert!((whole / 2..=whole).contains(&wait), "{failures}: {wait}");
        }
    }
    let waits: std::collections::HashSet<_> = (0..50).map(|_| backoff.wait(5)).collect();
    assert!(waits.len() > 10);
}

#[test]
fn a_client_id_is_the_serial_or_belongs_to_it() {
    let serial: Serial = "HOME-1".parse().unwrap();
    let mut options = DeviceOptions::new(serial.clone(), None, Endpoint::loopback(1));
    assert_eq!(options.client_id(), "HOME-1");
    options.client_suffix = Some("spare".to_owned());
    assert!(serial.owns_client_id(&options.client_id()));
}
