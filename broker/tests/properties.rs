//! What MQTT 5 adds.

use std::num::{NonZeroU16, NonZeroU32};

use rmqtt_codec::{
    types::{Publish, QoS},
    v5,
};
use setpoint_broker::SessionEvent;

use crate::support::{Server, connect5, eventually, operator5, publish, text};

fn with(topic: &str, payload: &str, properties: v5::PublishProperties) -> Publish {
    Publish {
        properties: Some(properties),
        ..publish(topic, payload, QoS::AtLeastOnce, 1)
    }
}

#[tokio::test]
async fn a_topic_alias_stands_for_its_topic() {
    let server = Server::start().await;
    let mut client = server.device5("A").await;
    let aliased = |topic: &str, payload: &str, alias| {
        let topic_alias = NonZeroU16::new(alias);
        with(
            topic,
            payload,
            v5::PublishProperties {
                topic_alias,
                ..Default::default()
            },
        )
    };
    for (topic, alias, expected) in [
        ("devices/A/telemetry", 1, "devices/A/telemetry"),
        ("", 1, "devices/A/telemetry"),
        ("devices/A/settings/ack", 16, "devices/A/settings/ack"),
        ("devices/A/settings/ack", 1, "devices/A/settings/ack"),
        ("", 1, "devices/A/settings/ack"),
        ("", 16, "devices/A/settings/ack"),
    ] {
        let ack = client.publish_acked(aliased(topic, "1", alias)).await;
        assert_eq!(u8::from(ack.reason_code), 0);
        assert_eq!(server.backend.next_inbound().await.topic.to_string(), expected);
    }
    // An alias for where it may not publish helps nothing.
    let ack = client.publish_acked(aliased("devices/B/telemetry", "1", 2)).await;
    assert_eq!(u8::from(ack.reason_code), 0x87);
    assert_eq!(
        u8::from(client.publish_acked(aliased("", "1", 2)).await.reason_code),
        0x87
    );
    client
        .send(v5::Packet::Publish(Box::new(aliased("", "1", 3))))
        .await;
    assert_eq!(client.disconnected().await, 0x82);
}

#[tokio::test]
async fn a_message_too_large_for_its_receiver_is_dropped() {
    let server = Server::start().await;
    let mut watcher = server.v5().await;
    let max_packet_size = NonZeroU32::new(200);
    watcher
        .welcome(v5::Connect {
            max_packet_size,
            ..operator5("watch")
        })
        .await;
    watcher.subscribe("devices/A/telemetry", QoS::AtLeastOnce).await;
    let mut client = server.device5("A").await;
    for size in [1_000, 10, 300, 20] {
        client
            .publish_acked(publish(
                "devices/A/telemetry",
                &"x".repeat(size),
                QoS::AtLeastOnce,
                1,
            ))
            .await;
    }
    assert_eq!(watcher.message().await.payload.len(), 10);
    assert_eq!(watcher.message().await.payload.len(), 20);
    watcher.silent().await;
    assert_eq!(
        server.metric("setpoint_mqtt_messages_dropped_total{reason=\"too_large\"}"),
        2
    );
    // However small the packets a client takes, it gets its acknowledgements.
    let mut small = server.v5().await;
    let max_packet_size = NonZeroU32::new(16);
    small
        .welcome(v5::Connect {
            max_packet_size,
            ..connect5("B")
        })
        .await;
    let ack = small
        .publish_acked(publish("devices/B/telemetry", "bad", QoS::AtLeastOnce, 1))
        .await;
    assert_eq!((u8::from(ack.reason_code), ack.reason_string), (0x99, None));
}

#[tokio::test]
async fn a_message_expires_while_it_waits() {
    let server = Server::start().await;
    let mut watcher = server.v5().await;
    let connect = v5::Connect {
        session_expiry_interval_secs: 60,
        clean_start: false,
        ..operator5("watch")
    };
    watcher.welcome(connect.clone()).await;
    watcher.subscribe("devices/A/telemetry", QoS::AtLeastOnce).await;
    watcher.disconnect().await;
    server
        .event(|event| matches!(event, SessionEvent::Ended { .. }).then_some(()))
        .await;
    let mut client = server.device5("A").await;
    let expiring = |payload, seconds| {
        let message_expiry_interval = NonZeroU32::new(seconds);
        let properties = v5::PublishProperties {
            message_expiry_interval,
            ..Default::default()
        };
        Publish {
            retain: true,
            ..with("devices/A/telemetry", payload, properties)
        }
    };
    client.publish_acked(expiring("long", 60)).await;
    client.publish_acked(expiring("short", 1)).await;
    eventually("the retained one expires", || {
        server.handle.counts().retained == 1
    })
    .await;
    assert!(watcher_back(&server, connect).await < 60);
}

/// The remaining expiry of the one message that waits.
async fn watcher_back(server: &Server, connect: v5::Connect) -> u32 {
    let mut watcher = server.v5().await;
    assert!(watcher.welcome(connect).await.session_present);
    let message = watcher.message().await;
    assert_eq!(text(&message.payload), "long");
    watcher.silent().await;
    assert_eq!(
        server.metric("setpoint_mqtt_messages_dropped_total{reason=\"expired\"}"),
        1
    );
    message.properties.unwrap().message_expiry_interval.unwrap().get()
}

#[tokio::test]
async fn a_request_finds_its_answer() {
    let server = Server::start().await;
    let mut asks = server.operator5("asks").await;
    asks.subscribe("devices/A/settings/ack", QoS::AtLeastOnce).await;
    let mut device = server.operator5("device").await;
    device.subscribe("devices/A/settings/set", QoS::AtLeastOnce).await;
    let properties = v5::PublishProperties {
        response_topic: Some("devices/A/settings/ack".into()),
        correlation_data: Some("334".into()),
        ..Default::default()
    };
    asks.publish_acked(with("devices/A/settings/set", "{}", properties))
        .await;
    let request = device.message().await.properties.unwrap();
    let answer = v5::PublishProperties {
        correlation_data: request.correlation_data,
        ..Default::default()
    };
    device
        .publish_acked(with(&request.response_topic.unwrap(), "{}", answer))
        .await;
    assert_eq!(
        asks.message().await.properties.unwrap().correlation_data.unwrap(),
        "334"
    );
}

#[tokio::test]
async fn a_client_that_allows_aliases_is_sent_them() {
    let server = Server::start().await;
    let mut watcher = server.v5().await;
    watcher
        .welcome(v5::Connect {
            topic_alias_max: 2,
            ..operator5("watch")
        })
        .await;
    watcher.subscribe("devices/#", QoS::AtMostOnce).await;
    let mut speaks = server.operator5("speaks").await;
    for (name, topic, alias) in [
        ("A", "devices/A/telemetry", Some(1)),
        ("A", "", Some(1)),
        ("B", "devices/B/telemetry", Some(2)),
        ("C", "devices/C/telemetry", None),
        ("B", "", Some(2)),
        ("C", "devices/C/telemetry", None),
    ] {
        speaks
            .publish(&format!("devices/{name}/telemetry"), "1", QoS::AtMostOnce, 0)
            .await;
        let message = watcher.message().await;
        assert_eq!(&*message.topic, topic);
        assert_eq!(
            message.properties.unwrap().topic_alias.map(NonZeroU16::get),
            alias
        );
    }
}

#[tokio::test]
async fn a_message_that_expires_at_once_is_for_who_is_there() {
    let server = Server::start().await;
    let mut watcher = server.operator5("watcher").await;
    watcher.subscribe("devices/A/telemetry", QoS::AtLeastOnce).await;
    let mut device = server.device5("A").await;
    // PUBLISH with QoS 1 and a message expiry interval of 0.
    device
        .raw(b"\x32\x1E\0\x13devices/A/telemetry\0\x01\x05\x02\0\0\0\0x")
        .await;
    let v5::Packet::PublishAck(ack) = device.recv().await else {
        panic!()
    };
    assert_eq!(u8::from(ack.reason_code), 0);
    assert_eq!(text(&watcher.message().await.payload), "x");
}

#[tokio::test]
async fn an_answer_larger_than_the_client_takes_ends_the_session() {
    let server = Server::start().await;
    let mut operator = server.v5().await;
    operator
        .welcome(v5::Connect {
            max_packet_size: 20.try_into().ok(),
            ..operator5("small")
        })
        .await;
    let filters: Vec<String> = (0..14).map(|n| format!("devices/{n}/presence")).collect();
    operator
        .send(v5::Packet::Subscribe(v5::Subscribe {
            packet_id: crate::support::id(1),
            id: None,
            user_properties: Vec::new(),
            topic_filters: filters
                .iter()
                .map(|filter| {
                    (
                        filter.as_str().into(),
                        crate::support::subscription(QoS::AtMostOnce),
                    )
                })
                .chain([(
                    "devices/x/presence".into(),
                    crate::support::subscription(QoS::AtMostOnce),
                )])
                .collect(),
        }))
        .await;
    // 2 of fixed header, 2 of packet id, no properties, 15 codes: as large as it takes.
    assert!(matches!(operator.recv().await, v5::Packet::SubscribeAck(ack) if ack.status.len() == 15));
    operator
        .send(v5::Packet::Unsubscribe(v5::Unsubscribe {
            packet_id: crate::support::id(2),
            user_properties: Vec::new(),
            topic_filters: (0..16).map(|n| format!("devices/{n}/presence").into()).collect(),
        }))
        .await;
    assert_eq!(operator.disconnected().await, 0x95);
}

#[tokio::test]
async fn a_refused_message_has_no_receipt_and_comes_again() {
    let server = Server::start().await;
    let connect = || v5::Connect {
        clean_start: false,
        session_expiry_interval_secs: 60,
        ..connect5("A")
    };
    let mut device = server.v5().await;
    device.welcome(connect()).await;
    device.subscribe("devices/A/settings", QoS::AtLeastOnce).await;
    for version in 1..=2 {
        server.settings("A", version).await;
        let refused = device.unacknowledged().await;
        device
            .send(v5::Packet::PublishAck(v5::PublishAck {
                packet_id: refused.packet_id.unwrap(),
                reason_code: v5::PublishAckReason::QuotaExceeded,
                ..Default::default()
            }))
            .await;
        device.silent().await;
    }
    assert_eq!(server.handle.sessions()[0].in_flight, 0);
    device.disconnect().await;
    let mut device = server.v5().await;
    assert!(device.welcome(connect()).await.session_present);
    device.message().await;
    assert_eq!(server.backend.next_delivered().await.1, 2);
}
