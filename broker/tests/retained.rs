//! Retained messages.

use bytes::Bytes;
use rmqtt_codec::{
    types::{Publish, QoS},
    v5::{self, RetainHandling, SubscriptionOptions},
};
use setpoint_broker::Outgoing;
use setpoint_model::Channel;

use crate::support::{Server, V5, publish, serial, settings, settings_payload, subscription, text, topic};

fn retained(topic: &str, payload: &str) -> Publish {
    Publish {
        retain: true,
        ..publish(topic, payload, QoS::AtLeastOnce, 1)
    }
}

async fn telemetry(client: &mut V5) -> Option<String> {
    client.subscribe("devices/A/telemetry", QoS::AtLeastOnce).await;
    client.send(v5::Packet::PingRequest).await;
    match client.recv().await {
        v5::Packet::PingResponse => None,
        v5::Packet::Publish(publish) => {
            assert!(publish.retain);
            client.puback(publish.packet_id.unwrap()).await;
            assert_eq!(client.recv().await, v5::Packet::PingResponse);
            Some(text(&publish.payload).to_owned())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_empty_payload_clears_only_with_retain() {
    let server = Server::start().await;
    let mut client = server.device5("A").await;
    assert_eq!(telemetry(&mut client).await, None);
    client.publish_acked(retained("devices/A/telemetry", "1")).await;
    let live = client.unacknowledged().await;
    assert!(!live.retain);
    client.puback(live.packet_id.unwrap()).await;
    assert_eq!(telemetry(&mut client).await, Some("1".into()));
    let ack = client
        .publish_acked(publish("devices/A/telemetry", "", QoS::AtLeastOnce, 2))
        .await;
    assert_eq!(u8::from(ack.reason_code), 0);
    assert_eq!(client.message().await.payload, "");
    assert_eq!(telemetry(&mut client).await, Some("1".into()));
    client.publish_acked(retained("devices/A/telemetry", "")).await;
    assert_eq!(client.message().await.payload, "");
    assert_eq!(telemetry(&mut client).await, None);
    assert_eq!(server.handle.counts().retained, 1, "presence");
}

#[tokio::test]
async fn retain_handling_and_retain_as_published_hold() {
    let server = Server::start().await;
    server.settings("A", 1).await;
    let mut client = server.device5("A").await;
    let with = |retain_handling, retain_as_published| SubscriptionOptions {
        retain_handling,
        retain_as_published,
        ..subscription(QoS::AtMostOnce)
    };
    let filter = "devices/A/settings";
    client
        .subscribe_all(vec![(filter, with(RetainHandling::NoAtSubscribe, false))], None)
        .await;
    client.silent().await;
    client
        .subscribe_all(vec![(filter, with(RetainHandling::AtSubscribeNew, false))], None)
        .await;
    client.silent().await;
    server.settings("A", 2).await;
    assert!(!client.message().await.retain);
    client
        .subscribe_all(vec![(filter, with(RetainHandling::AtSubscribe, true))], None)
        .await;
    assert!(client.message().await.retain);
    server.settings("A", 3).await;
    assert!(client.message().await.retain);
    client
        .send(v5::Packet::Unsubscribe(v5::Unsubscribe {
            packet_id: crate::support::id(4),
            user_properties: Vec::new(),
            topic_filters: vec![filter.into()],
        }))
        .await;
    let _unsuback: v5::Packet = client.recv().await;
    client
        .subscribe_all(vec![(filter, with(RetainHandling::AtSubscribeNew, false))], None)
        .await;
    assert_eq!(client.message().await.payload, settings_payload(3));
}

#[tokio::test]
async fn an_older_version_never_replaces_a_newer_one() {
    let server = Server::start().await;
    let mut client = server.device5("A").await;
    client.subscribe("devices/A/settings", QoS::AtLeastOnce).await;
    server.settings("A", 5).await;
    assert_eq!(client.message().await.payload, settings_payload(5));
    server.settings("A", 4).await;
    client.silent().await;
    // The same again is delivered again: the reconciler may be unsure.
    server.settings("A", 5).await;
    assert_eq!(client.message().await.payload, settings_payload(5));
    // Restored: in place already.
    server.handle.restore(settings("A", 5)).await.unwrap();
    server.handle.restore(settings("A", 4)).await.unwrap();
    client.silent().await;
    server.handle.restore(settings("A", 6)).await.unwrap();
    assert_eq!(client.message().await.payload, settings_payload(6));
    server.handle.clear_retained(&serial("A"));
    let mut late = server.v5().await;
    late.welcome(v5::Connect {
        client_id: "A:late".into(),
        ..crate::support::connect5("A")
    })
    .await;
    late.subscribe("devices/A/settings", QoS::AtLeastOnce).await;
    late.silent().await;
    // A device made anew begins at version 1.
    server.settings("A", 1).await;
    assert_eq!(late.message().await.payload, settings_payload(1));
}

#[tokio::test]
async fn a_presence_is_restored_only_for_who_is_not_there() {
    let server = Server::start().await;
    let restored = |name: &str, payload: &'static [u8]| Outgoing {
        topic: topic(name, Channel::Presence),
        payload: Bytes::from_static(payload),
        qos: QoS::AtLeastOnce,
        retain: true,
        receipt: None,
    };
    let mut device = server.device5("A").await;
    server.handle.restore(restored("A", b"old")).await.unwrap();
    server.handle.restore(restored("B", b"old")).await.unwrap();
    device.subscribe("devices/A/presence", QoS::AtMostOnce).await;
    assert!(text(&device.message().await.payload).contains("true"));
    let mut watcher = server.operator5("watch").await;
    watcher.subscribe("devices/B/presence", QoS::AtMostOnce).await;
    assert_eq!(watcher.message().await.payload, "old");
    let _b = server.device5("B").await;
    assert!(text(&watcher.message().await.payload).contains("true"));
}

#[tokio::test]
async fn a_wildcard_gets_every_one_of_many() {
    let server = Server::start().await;
    const MANY: usize = 5_000;
    for n in 0..MANY {
        server
            .handle
            .restore(settings(&format!("D{n}"), 1))
            .await
            .unwrap();
    }
    let mut watcher = server.v5().await;
    watcher
        .welcome(crate::support::operator5("watch").receive_max(7))
        .await;
    watcher.subscribe("devices/+/settings", QoS::AtLeastOnce).await;
    // Meanwhile, what changes comes after what was.
    server.settings("D17", 2).await;
    let mut seen = std::collections::HashMap::new();
    for _ in 0..=MANY {
        let message = watcher.message().await;
        *seen.entry(message.topic.to_string()).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), MANY);
    assert_eq!(seen["devices/D17/settings"], 2);
    watcher.silent().await;
}

#[tokio::test]
async fn what_clients_retain_is_bounded_per_device() {
    let server = Server::with(|config| {
        config.max_retained_per_device = 2;
        config.max_retained_bytes_per_device = 100;
    })
    .await;
    let mut client = server.device5("A").await;
    for (topic, payload) in [
        ("devices/A/telemetry", "1"),
        ("devices/A/settings/ack", "2"),
        ("devices/A/firmware/status", "3"),
        ("devices/A/telemetry", "4"),
    ] {
        client.publish_acked(retained(topic, payload)).await;
    }
    client
        .publish_acked(retained("devices/A/settings/ack", &"x".repeat(100)))
        .await;
    assert_eq!(server.handle.counts().retained, 3, "two and presence");
    assert_eq!(
        server.metric("setpoint_mqtt_limits_hit_total{limit=\"retained\"}"),
        2
    );
    let mut watcher = server.operator5("watch").await;
    watcher.subscribe("devices/A/telemetry", QoS::AtLeastOnce).await;
    assert_eq!(watcher.message().await.payload, "4");
}
