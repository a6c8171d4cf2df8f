//! Who may publish and subscribe where.

use rmqtt_codec::{types::QoS, v3, v5};
use setpoint_broker::SessionEvent;

use crate::support::{Server, publish};

#[tokio::test]
async fn a_forbidden_subscription_has_its_failure_code() {
    let server = Server::start().await;
    let mut v3 = server.device3("A").await;
    let mut v5 = server.device5("B").await;
    for (filter, code) in [
        ("devices/B/settings", 0x87),
        ("devices/+/settings", 0x87),
        ("devices/#", 0x87),
        ("#", 0x87),
        ("$SYS/#", 0x87),
        ("elsewhere", 0x87),
        ("$share/g/devices/A/#", 0x87),
        ("devices/A/#/x", 0x8F),
        ("devices/A/x+", 0x8F),
        ("$share/g", 0x8F),
    ] {
        assert_eq!(v3.subscribe(filter, QoS::AtLeastOnce).await, 0x80, "{filter}");
        let of_b = filter.replace("/B/", "/C/").replace("/A/", "/B/");
        assert_eq!(v5.subscribe(&of_b, QoS::AtLeastOnce).await, code, "{of_b}");
    }
    let denied = server.event(|event| match event {
        SessionEvent::Denied { what, .. } => Some(what),
        _ => None,
    });
    assert_eq!(denied.await, "subscribe devices/B/settings");
    // One bad filter does not spoil the others.
    let options = v5::SubscriptionOptions::default();
    let all = vec![
        ("devices/B/settings", options),
        ("devices/A/settings", options),
        ("devices/B/+", options),
    ];
    assert_eq!(v5.subscribe_all(all, None).await, [0, 0x87, 0]);
}

#[tokio::test]
async fn a_forbidden_publish_is_told_in_5_0_and_ends_nothing() {
    let server = Server::start().await;
    let mut client = server.device5("A").await;
    for topic in [
        "devices/B/telemetry",
        "devices/A/settings",
        "devices/A/presence",
        "devices/A/commands",
        "devices/A/firmware",
        "devices/A/settings/set",
        "devices/A/anything",
        "elsewhere",
        "$SYS/x",
    ] {
        let ack = client
            .publish_acked(publish(topic, "1", QoS::AtLeastOnce, 7))
            .await;
        assert_eq!(u8::from(ack.reason_code), 0x87, "{topic}");
        client.publish(topic, "1", QoS::ExactlyOnce, 8).await;
        let v5::Packet::PublishReceived(ack) = client.recv().await else {
            panic!()
        };
        assert_eq!(u8::from(ack.reason_code), 0x87, "{topic}");
        client.publish(topic, "1", QoS::AtMostOnce, 0).await;
        client.silent().await;
    }
    assert_eq!(server.backend.inbound_left(), 0);
    assert_eq!(server.metric("setpoint_mqtt_denied_total{what=\"publish\"}"), 27);
}

#[tokio::test]
async fn three_forbidden_publishes_in_a_minute_end_a_3_1_1_session() {
    let server = Server::start().await;
    let mut client = server.device3("A").await;
    client
        .publish("devices/B/telemetry", "1", QoS::AtLeastOnce, 1)
        .await;
    assert_eq!(
        client.recv().await,
        v3::Packet::PublishAck {
            packet_id: crate::support::id(1)
        }
    );
    client
        .publish("devices/B/telemetry", "1", QoS::AtMostOnce, 0)
        .await;
    client.silent().await;
    client
        .publish("devices/B/telemetry", "1", QoS::AtMostOnce, 0)
        .await;
    client.closed().await;
    let ended = server.event(|event| match event {
        SessionEvent::Ended { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(ended.await.as_str(), "not_authorized");
    assert_eq!(server.backend.inbound_left(), 0);
}

#[tokio::test]
async fn an_operator_may_set_and_speak_for_a_device() {
    let server = Server::start().await;
    let mut operator = server.operator5("ops").await;
    for topic in [
        "devices/A/settings/set",
        "devices/A/telemetry",
        "devices/A/settings/ack",
    ] {
        let ack = operator
            .publish_acked(publish(topic, "{}", QoS::AtLeastOnce, 1))
            .await;
        assert_eq!(u8::from(ack.reason_code), 0, "{topic}");
        assert_eq!(server.backend.next_inbound().await.topic.to_string(), topic);
    }
    let ack = operator
        .publish_acked(publish("devices/A/settings", "{}", QoS::AtLeastOnce, 1))
        .await;
    assert_eq!(u8::from(ack.reason_code), 0x87);
    for filter in ["#", "+/A/settings", "elsewhere/#"] {
        assert_eq!(
            operator.subscribe(filter, QoS::AtMostOnce).await,
            0x87,
            "{filter}"
        );
    }
}

#[tokio::test]
async fn an_invalid_payload_is_told_in_5_0_and_acknowledged_in_3_1_1() {
    let server = Server::start().await;
    let mut watcher = server.operator5("watch").await;
    watcher.subscribe("devices/#", QoS::AtMostOnce).await;
    let mut v5 = server.device5("A").await;
    let _presence = watcher.message().await;
    let ack = v5
        .publish_acked(publish("devices/A/telemetry", "bad", QoS::AtLeastOnce, 1))
        .await;
    // The suite of Eclipse Paho can't read an acknowledgement with properties.
    assert_eq!((u8::from(ack.reason_code), ack.reason_string), (0x99, None));
    // Whoever debugs wants to see it.
    assert_eq!(watcher.message().await.payload, "bad".as_bytes());
    v5.publish("devices/A/telemetry", "bad", QoS::ExactlyOnce, 2)
        .await;
    let v5::Packet::PublishReceived(ack) = v5.recv().await else {
        panic!()
    };
    // At QoS 2 the exchange goes to its end: an error would let the client send it again.
    assert_eq!(u8::from(ack.reason_code), 0);

    let mut v3 = server.device3("C").await;
    v3.publish("devices/C/telemetry", "bad", QoS::AtLeastOnce, 1)
        .await;
    assert_eq!(
        v3.recv().await,
        v3::Packet::PublishAck {
            packet_id: crate::support::id(1)
        }
    );
}
