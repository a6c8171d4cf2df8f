//! Delivery in both directions, acknowledgements and windows.

use bytes::Bytes;
use rmqtt_codec::{types::QoS, v3, v5};
use setpoint_broker::{Outcome, SessionEvent};
use setpoint_model::Channel;

use crate::support::{Answering, Server, connect3, connect5, id, publish, text, topic};

async fn command(server: &Server, serial: &str, payload: &str, qos: QoS) {
    let message = setpoint_broker::Outgoing {
        topic: topic(serial, Channel::Commands),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        retain: false,
        receipt: Some(1),
    };
    server.handle.publish(message).await.unwrap();
}

#[tokio::test]
async fn a_message_has_the_lower_of_the_two_qos() {
    let server = Server::start().await;
    for subscribed in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut client = server.device5("A").await;
        assert_eq!(
            client.subscribe("devices/A/commands", subscribed).await,
            subscribed.value()
        );
        for published in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            command(&server, "A", "x", published).await;
            assert_eq!(client.message().await.qos, published.less_value(subscribed));
        }
        client.silent().await;
        client.disconnect().await;
    }
}

#[tokio::test]
async fn qos_2_is_delivered_once_in_both_directions() {
    let server = Server::start().await;
    let mut client = server.device3("A").await;
    client.subscribe("devices/A/#", QoS::ExactlyOnce).await;
    let _presence = client.message().await;
    client
        .publish("devices/A/telemetry", "1", QoS::ExactlyOnce, 3)
        .await;
    let mut got = Vec::new();
    for _ in 0..2 {
        match client.recv().await {
            v3::Packet::PublishReceived { packet_id } => assert_eq!(packet_id, id(3)),
            v3::Packet::Publish(publish) => got.push(publish),
            other => panic!("{other:?}"),
        }
    }
    // The same again, since PUBREC might have been lost: it is not taken twice.
    let again = rmqtt_codec::types::Publish {
        dup: true,
        ..publish("devices/A/telemetry", "1", QoS::ExactlyOnce, 3)
    };
    client.send(v3::Packet::Publish(Box::new(again))).await;
    assert_eq!(
        client.recv().await,
        v3::Packet::PublishReceived { packet_id: id(3) }
    );
    client.send(v3::Packet::PublishRelease { packet_id: id(3) }).await;
    assert_eq!(
        client.recv().await,
        v3::Packet::PublishComplete { packet_id: id(3) }
    );
    assert_eq!(server.backend.inbound_left(), 1);
    let echoed = got.pop().unwrap();
    assert_eq!((echoed.qos, text(&echoed.payload)), (QoS::ExactlyOnce, "1"));
    let packet_id = echoed.packet_id.unwrap();
    client.send(v3::Packet::PublishReceived { packet_id }).await;
    assert_eq!(client.recv().await, v3::Packet::PublishRelease { packet_id });
    client.send(v3::Packet::PublishComplete { packet_id }).await;
    client.silent().await;
    assert_eq!(server.handle.sessions()[0].in_flight, 0);
}

#[tokio::test]
async fn acknowledgements_come_in_order_of_arrival() {
    let server = Server::start().await;
    server.backend.answer(Answering::Held);
    let mut client = server.device5("A").await;
    for n in 1..=3 {
        client
            .publish("devices/A/telemetry", "1", QoS::AtLeastOnce, n)
            .await;
        server.backend.next_inbound().await;
    }
    let (_, last) = server.backend.held.lock().unwrap().pop().unwrap();
    last.complete(Outcome::Accepted);
    client.silent().await;
    server.backend.release(Outcome::Invalid("no".into()));
    let v5::Packet::PublishAck(first) = client.recv().await else {
        panic!()
    };
    assert_eq!((first.packet_id, u8::from(first.reason_code)), (id(1), 0x99));
    server.backend.release(Outcome::Accepted);
    for n in 2..=3 {
        let v5::Packet::PublishAck(ack) = client.recv().await else {
            panic!()
        };
        assert_eq!((ack.packet_id, u8::from(ack.reason_code)), (id(n), 0));
    }
}

#[tokio::test]
async fn a_message_the_server_drops_is_not_acknowledged() {
    let server = Server::start().await;
    server.backend.answer(Answering::Held);
    let mut client = server.device3("A").await;
    client
        .publish("devices/A/telemetry", "1", QoS::AtLeastOnce, 1)
        .await;
    client
        .publish("devices/A/telemetry", "2", QoS::AtLeastOnce, 2)
        .await;
    server.backend.next_inbound().await;
    server.backend.next_inbound().await;
    drop(server.backend.held.lock().unwrap().remove(0));
    client.closed().await;
    let ended = server.event(|event| match event {
        SessionEvent::Ended { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(ended.await.as_str(), "connection_lost");
    server.backend.answer(Answering::Dropped);
    let mut client = server.device5("A").await;
    client
        .publish("devices/A/telemetry", "1", QoS::AtLeastOnce, 1)
        .await;
    assert_eq!(client.disconnected().await, 0x89);
}

#[tokio::test]
async fn unfinished_work_stops_the_reading_and_nothing_else() {
    let server = Server::with(|config| config.receive_maximum = 4).await;
    server.backend.answer(Answering::Held);
    let mut client = server.device3("A").await;
    client.subscribe("devices/A/commands", QoS::AtMostOnce).await;
    for n in 1..=6 {
        client
            .publish(
                "devices/A/telemetry",
                "1",
                if n == 2 { QoS::AtMostOnce } else { QoS::AtLeastOnce },
                n,
            )
            .await;
    }
    for _ in 0..4 {
        server.backend.next_inbound().await;
    }
    // It still hears.
    command(&server, "A", "x", QoS::AtMostOnce).await;
    assert_eq!(client.message().await.payload, "x");
    assert_eq!(server.backend.held(), 4);
    server.backend.release(Outcome::Accepted);
    assert_eq!(client.recv().await, v3::Packet::PublishAck { packet_id: id(1) });
    server.backend.next_inbound().await;
    assert_eq!(server.backend.held(), 4);
    // And can be ended.
    let reason = setpoint_model::presence::DisconnectReason::Kicked;
    assert_eq!(
        server
            .handle
            .end_device(&crate::support::serial("A"), reason)
            .await,
        1
    );
    client.closed().await;
}

#[tokio::test]
async fn a_5_0_client_with_too_many_qos_2_messages_on_their_way_is_ended() {
    let server = Server::with(|config| config.receive_maximum = 4).await;
    let mut client = server.device5("A").await;
    for n in 1..=5 {
        client
            .publish("devices/A/telemetry", "1", QoS::ExactlyOnce, n)
            .await;
    }
    for n in 1..=4 {
        let v5::Packet::PublishReceived(ack) = client.recv().await else {
            panic!()
        };
        assert_eq!(ack.packet_id, id(n));
    }
    assert_eq!(client.disconnected().await, 0x93);
    assert_eq!(server.backend.inbound_left(), 4);
    assert_eq!(
        server.metric("setpoint_mqtt_limits_hit_total{limit=\"receive_maximum\"}"),
        1
    );
}

#[tokio::test]
async fn no_more_is_sent_than_the_client_takes_at_once() {
    let server = Server::start().await;
    let mut client = server.v5().await;
    client.welcome(connect5("A").receive_max(2)).await;
    client.subscribe("devices/A/commands", QoS::ExactlyOnce).await;
    for n in 0..5 {
        command(
            &server,
            "A",
            &n.to_string(),
            if n == 3 {
                QoS::ExactlyOnce
            } else {
                QoS::AtLeastOnce
            },
        )
        .await;
    }
    let first = client.unacknowledged().await;
    let second = client.unacknowledged().await;
    assert_eq!((text(&first.payload), text(&second.payload)), ("0", "1"));
    client.silent().await;
    // Out of order is no crime.
    client.puback(second.packet_id.unwrap()).await;
    let third = client.unacknowledged().await;
    assert_eq!(text(&third.payload), "2");
    client.silent().await;
    client.puback(first.packet_id.unwrap()).await;
    let fourth = client.unacknowledged().await;
    assert_eq!((text(&fourth.payload), fourth.qos), ("3", QoS::ExactlyOnce));
    client.puback(third.packet_id.unwrap()).await;
    let fifth = client.message().await;
    assert_eq!(text(&fifth.payload), "4");
    // An id that is not on its way is ignored as PUBACK, and answered so as PUBREC.
    client.puback(id(999)).await;
    let ack = v5::PublishAck {
        packet_id: id(999),
        ..Default::default()
    };
    client.send(v5::Packet::PublishReceived(ack)).await;
    let v5::Packet::PublishRelease(release) = client.recv().await else {
        panic!()
    };
    assert_eq!(
        (release.packet_id, u8::from(release.reason_code)),
        (id(999), 0x92)
    );
    // PUBREC with an error ends the exchange.
    let reason_code = v5::PublishAckReason::QuotaExceeded;
    let ack = v5::PublishAck {
        packet_id: fourth.packet_id.unwrap(),
        reason_code,
        ..Default::default()
    };
    client.send(v5::Packet::PublishReceived(ack)).await;
    client.silent().await;
    assert_eq!(server.handle.sessions()[0].in_flight, 0);
}

#[tokio::test]
async fn an_acknowledgement_of_the_wrong_kind_is_a_breach() {
    let server = Server::start().await;
    let mut client = server.device5("A").await;
    client.subscribe("devices/A/commands", QoS::ExactlyOnce).await;
    command(&server, "A", "x", QoS::ExactlyOnce).await;
    let message = client.unacknowledged().await;
    client.puback(message.packet_id.unwrap()).await;
    assert_eq!(client.disconnected().await, 0x82);
}

#[tokio::test]
async fn a_release_of_nothing_is_answered_so() {
    let server = Server::start().await;
    let mut v5 = server.device5("A").await;
    v5.send(v5::Packet::PublishRelease(v5::PublishAck2 {
        packet_id: id(5),
        ..Default::default()
    }))
    .await;
    let v5::Packet::PublishComplete(complete) = v5.recv().await else {
        panic!()
    };
    assert_eq!(u8::from(complete.reason_code), 0x92);
    let mut v3 = server.device3("B").await;
    v3.send(v3::Packet::PublishRelease { packet_id: id(5) }).await;
    assert_eq!(v3.recv().await, v3::Packet::PublishComplete { packet_id: id(5) });
}

#[tokio::test]
async fn only_the_device_itself_gives_a_receipt() {
    let server = Server::start().await;
    let mut operator = server.operator5("ops").await;
    operator.subscribe("devices/A/commands", QoS::AtLeastOnce).await;
    let mut v3 = server.v3().await;
    v3.welcome(v3::Connect {
        clean_session: true,
        ..connect3("A")
    })
    .await;
    v3.subscribe("devices/A/commands", QoS::ExactlyOnce).await;
    command(&server, "A", "x", QoS::ExactlyOnce).await;
    operator.message().await;
    operator.silent().await;
    v3.message().await;
    assert_eq!(
        server.backend.next_delivered().await,
        ("devices/A/commands".to_owned(), 1)
    );
    v3.silent().await;
    command(&server, "A", "y", QoS::AtMostOnce).await;
    v3.message().await;
    assert_eq!(operator.message().await.payload, "y");
}

#[tokio::test]
async fn a_busy_backend_does_not_look_like_a_dead_server() {
    let server = Server::with(|config| config.receive_maximum = 1).await;
    server.backend.answer(Answering::Held);
    let mut client = server.v5().await;
    client
        .welcome(v5::Connect {
            keep_alive: 1,
            ..connect5("A")
        })
        .await;
    client.subscribe("devices/A/commands", QoS::AtLeastOnce).await;
    for n in 1..=3 {
        client
            .publish("devices/A/telemetry", &n.to_string(), QoS::AtLeastOnce, n)
            .await;
    }
    server.backend.next_inbound().await;
    // For longer than the keep-alive, and beyond messages that are not taken yet.
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(2);
    while tokio::time::Instant::now() < until {
        client.silent().await;
        command(&server, "A", "x", QoS::AtLeastOnce).await;
        client.message().await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    client.silent().await;
    assert_eq!(server.handle.sessions()[0].in_flight, 0);
    assert_eq!(server.backend.inbound_left(), 0);
    for n in 1..=3 {
        server.backend.release(Outcome::Accepted);
        let v5::Packet::PublishAck(ack) = client.recv().await else {
            panic!()
        };
        assert_eq!(ack.packet_id, id(n));
        if n < 3 {
            assert_eq!(
                text(&server.backend.next_inbound().await.payload),
                (n + 1).to_string()
            );
        }
    }
    // What may not be kept for ever is not read: far more than may wait, in one go.
    let large = "x".repeat(3_000);
    client
        .publish("devices/A/telemetry", "first", QoS::AtLeastOnce, 9)
        .await;
    server.backend.next_inbound().await;
    for n in 10..30 {
        client
            .publish("devices/A/telemetry", &large, QoS::AtLeastOnce, n)
            .await;
    }
    server.backend.answer(Answering::AtOnce);
    server.backend.release(Outcome::Accepted);
    for n in 9..30 {
        let v5::Packet::PublishAck(ack) = client.recv().await else {
            panic!()
        };
        assert_eq!(ack.packet_id, id(n));
    }
}
