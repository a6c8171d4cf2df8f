//! Sessions that outlive their connection.

mod ends;
mod offline;

use std::time::Duration;

use bytes::Bytes;
use rmqtt_codec::{types::QoS, v3, v5};
use setpoint_broker::{Outcome, Outgoing, SessionEvent};
use setpoint_model::{Channel, presence::DisconnectReason};

use crate::support::{
    Answering, Server, V3, connect3, connect5, eventually, id, publish, serial, settings_payload, text, topic,
};

fn kept3(name: &str) -> v3::Connect {
    v3::Connect {
        clean_session: false,
        ..connect3(name)
    }
}

fn kept5(name: &str, expiry: u32) -> v5::Connect {
    v5::Connect {
        clean_start: false,
        session_expiry_interval_secs: expiry,
        ..connect5(name)
    }
}

async fn command(server: &Server, payload: &str, qos: QoS) {
    let message = Outgoing {
        topic: topic("A", Channel::Commands),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        retain: false,
        receipt: None,
    };
    server.handle.publish(message).await.unwrap();
}

/// Connects a device with a kept session and its subscriptions, and lets it go.
async fn away(server: &Server) {
    let mut client = server.v3().await;
    assert!(!client.welcome(kept3("A")).await);
    client.subscribe("devices/A/settings", QoS::AtLeastOnce).await;
    client.subscribe("devices/A/commands", QoS::ExactlyOnce).await;
    client.disconnect().await;
    gone(server).await;
}

async fn gone(server: &Server) {
    server
        .event(|event| matches!(event, SessionEvent::Ended { .. }).then_some(()))
        .await;
}

async fn back(server: &Server) -> V3 {
    let mut client = server.v3().await;
    assert!(client.welcome(kept3("A")).await);
    client
}

#[tokio::test]
async fn messages_wait_for_a_client_that_is_away() {
    let server = Server::start().await;
    away(&server).await;
    assert_eq!(server.handle.counts().stored_sessions, 1);
    command(&server, "0", QoS::AtMostOnce).await;
    for n in 1..=150 {
        command(&server, &n.to_string(), QoS::AtLeastOnce).await;
    }
    server.settled().await;
    let mut client = back(&server).await;
    for n in 1..=150 {
        assert_eq!(text(&client.message().await.payload), n.to_string());
    }
    client.silent().await;
    assert_eq!(server.handle.counts().stored_sessions, 0);
}

#[tokio::test]
async fn a_clean_start_forgets_the_session() {
    let server = Server::start().await;
    away(&server).await;
    command(&server, "1", QoS::AtLeastOnce).await;
    let mut client = server.device3("A").await;
    client.silent().await;
    client.disconnect().await;
    let mut client = server.v3().await;
    assert!(!client.welcome(kept3("A")).await);
    command(&server, "2", QoS::AtLeastOnce).await;
    client.silent().await;
}

#[tokio::test]
async fn what_was_on_its_way_is_sent_again_with_dup_and_first() {
    let server = Server::start().await;
    away(&server).await;
    for n in 1..=4 {
        command(
            &server,
            &n.to_string(),
            if n == 2 {
                QoS::ExactlyOnce
            } else {
                QoS::AtLeastOnce
            },
        )
        .await;
    }
    let mut client = back(&server).await;
    let mut ids = Vec::new();
    for n in 1..=4 {
        let v3::Packet::Publish(publish) = client.recv().await else {
            panic!()
        };
        assert!(!publish.dup);
        assert_eq!(text(&publish.payload), n.to_string());
        ids.push(publish.packet_id.unwrap());
    }
    client.send(v3::Packet::PublishAck { packet_id: ids[2] }).await;
    client
        .send(v3::Packet::PublishReceived { packet_id: ids[1] })
        .await;
    assert_eq!(
        client.recv().await,
        v3::Packet::PublishRelease { packet_id: ids[1] }
    );
    drop(client);
    gone(&server).await;
    command(&server, "5", QoS::AtLeastOnce).await;
    let mut client = back(&server).await;
    for (index, payload) in [(0, Some("1")), (1, None), (3, Some("4"))] {
        match (client.recv().await, payload) {
            (v3::Packet::Publish(publish), Some(payload)) => {
                assert_eq!((publish.dup, text(&publish.payload)), (true, payload));
                assert_eq!(publish.packet_id, Some(ids[index]));
            }
            (v3::Packet::PublishRelease { packet_id }, None) => assert_eq!(packet_id, ids[index]),
            (other, _) => panic!("{other:?}"),
        }
    }
    let v3::Packet::Publish(fifth) = client.recv().await else {
        panic!()
    };
    assert_eq!((fifth.dup, text(&fifth.payload)), (false, "5"));
    client
        .send(v3::Packet::PublishComplete { packet_id: ids[1] })
        .await;
    for packet_id in [ids[0], ids[3], fifth.packet_id.unwrap()] {
        client.send(v3::Packet::PublishAck { packet_id }).await;
    }
    client.silent().await;
    assert_eq!(server.handle.sessions()[0].in_flight, 0);
}

#[tokio::test]
async fn a_change_made_while_the_device_is_away_is_its_first_message() {
    let server = Server::start().await;
    server.settings("A", 1).await;
    let mut client = server.v3().await;
    client.welcome(kept3("A")).await;
    client.subscribe("devices/A/#", QoS::AtLeastOnce).await;
    for _ in 0..2 {
        client.message().await;
    }
    assert_eq!(server.backend.next_delivered().await.1, 1);
    drop(client);
    gone(&server).await;
    for version in 2..=4 {
        server.settings("A", version).await;
    }
    server.settled().await;
    let mut client = back(&server).await;
    // Its own presence waited longer, but settings come first, and only the newest.
    assert_eq!(client.message().await.payload, settings_payload(4));
    assert_eq!(server.backend.next_delivered().await.1, 4);
    for _ in 0..2 {
        assert_eq!(client.message().await.topic, "devices/A/presence");
    }
    client.silent().await;
    // Nothing changed: nothing is said.
    drop(client);
    gone(&server).await;
    let mut client = back(&server).await;
    for _ in 0..2 {
        assert_eq!(client.message().await.topic, "devices/A/presence");
    }
    client.silent().await;
}

#[tokio::test]
async fn newer_settings_that_never_queued_come_on_resuming() {
    let server = Server::with(|config| config.offline_queue_messages = 1).await;
    away(&server).await;
    server.settings("A", 7).await;
    // Pushes the settings out of the queue.
    command(&server, "x", QoS::AtLeastOnce).await;
    server.settled().await;
    let mut client = back(&server).await;
    assert_eq!(client.message().await.payload, settings_payload(7));
    assert_eq!(client.message().await.payload, "x");
    client.silent().await;
    assert_eq!(
        server.metric("setpoint_mqtt_messages_dropped_total{reason=\"offline_queue_full\"}"),
        1
    );
}

#[tokio::test]
async fn the_newest_settings_come_even_while_older_ones_wait() {
    let server = Server::start().await;
    away(&server).await;
    for round in 0..30 {
        let newest = 2 * round + 2;
        server.settings("A", newest - 1).await;
        server.settled().await;
        // This one may still be on its way through the router when the device comes back.
        server.settings("A", newest).await;
        let mut client = back(&server).await;
        assert_eq!(client.message().await.payload, settings_payload(newest));
        assert_eq!(server.backend.next_delivered().await.1, newest);
        client.silent().await;
        client.disconnect().await;
        gone(&server).await;
    }
}

#[tokio::test]
async fn subscribing_again_brings_retained_messages_in_a_resumed_session_too() {
    let server = Server::start().await;
    away(&server).await;
    server.settings("A", 1).await;
    let mut client = back(&server).await;
    assert_eq!(client.message().await.payload, settings_payload(1));
    client.subscribe("devices/A/settings", QoS::AtLeastOnce).await;
    let again = client.message().await;
    assert!(again.retain);
    assert_eq!(again.payload, settings_payload(1));
    client.silent().await;
}

#[tokio::test]
async fn a_qos_2_message_is_taken_once_over_two_connections() {
    let server = Server::start().await;
    let mut client = server.v3().await;
    client.welcome(kept3("A")).await;
    server.backend.answer(Answering::Held);
    client
        .publish("devices/A/telemetry", "1", QoS::ExactlyOnce, 1)
        .await;
    client
        .publish("devices/A/telemetry", "2", QoS::ExactlyOnce, 2)
        .await;
    server.backend.next_inbound().await;
    server.backend.next_inbound().await;
    server.backend.release(Outcome::Accepted);
    assert_eq!(
        client.recv().await,
        v3::Packet::PublishReceived { packet_id: id(1) }
    );
    drop(client);
    gone(&server).await;
    let mut client = back(&server).await;
    for n in [1, 2] {
        let again = publish("devices/A/telemetry", &n.to_string(), QoS::ExactlyOnce, n);
        client
            .send(v3::Packet::Publish(Box::new(rmqtt_codec::types::Publish {
                dup: true,
                ..again
            })))
            .await;
    }
    assert_eq!(
        client.recv().await,
        v3::Packet::PublishReceived { packet_id: id(1) }
    );
    // The second is still being worked on, for the earlier connection.
    client.silent().await;
    server.backend.release(Outcome::Accepted);
    assert_eq!(
        client.recv().await,
        v3::Packet::PublishReceived { packet_id: id(2) }
    );
    for n in [1, 2] {
        client.send(v3::Packet::PublishRelease { packet_id: id(n) }).await;
        assert_eq!(
            client.recv().await,
            v3::Packet::PublishComplete { packet_id: id(n) }
        );
    }
    assert_eq!((server.backend.inbound_left(), server.backend.held()), (0, 0));
}

#[tokio::test]
async fn a_take_over_keeps_the_session_and_what_waits() {
    let server = Server::start().await;
    let mut first = server.v5().await;
    first.welcome(kept5("A", 100)).await;
    first.subscribe("devices/A/commands", QoS::AtLeastOnce).await;
    command(&server, "1", QoS::AtLeastOnce).await;
    let unacknowledged = first.unacknowledged().await;
    let mut second = server.v5().await;
    assert!(second.welcome(kept5("A", 100)).await.session_present);
    assert_eq!(first.disconnected().await, 0x8E);
    let again = second.unacknowledged().await;
    assert!(again.dup);
    assert_eq!(again.packet_id, unacknowledged.packet_id);
    let taken = server.event(|event| match event {
        SessionEvent::Ended { reason, others, .. } => Some((reason, others)),
        _ => None,
    });
    assert_eq!(taken.await, (DisconnectReason::TakenOver, true));
}
