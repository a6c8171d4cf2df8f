//! Subscriptions of one session.

use std::num::NonZeroU32;

use rmqtt_codec::{
    types::{Publish, QoS},
    v3, v5,
};
use setpoint_broker::SessionEvent;

use crate::support::{Server, id, publish, subscription};

fn ids(message: &Publish) -> Vec<u32> {
    let mut ids: Vec<u32> = message
        .properties
        .as_ref()
        .unwrap()
        .subscription_ids
        .iter()
        .copied()
        .map(NonZeroU32::get)
        .collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn overlapping_subscriptions_bring_one_message_at_the_highest_qos() {
    let server = Server::start().await;
    let mut watcher = server.operator5("watch").await;
    watcher
        .subscribe_all(vec![("devices/#", subscription(QoS::AtMostOnce))], Some(1))
        .await;
    watcher
        .subscribe_all(
            vec![("devices/+/telemetry", subscription(QoS::AtLeastOnce))],
            Some(2),
        )
        .await;
    watcher
        .subscribe_all(vec![("devices/A/+", subscription(QoS::ExactlyOnce))], Some(3))
        .await;
    let mut device = server.operator5("ops").await;
    device
        .publish("devices/A/telemetry", "1", QoS::ExactlyOnce, 1)
        .await;
    let message = watcher.message().await;
    assert_eq!((message.qos, ids(&message)), (QoS::ExactlyOnce, vec![1, 2, 3]));
    device
        .publish("devices/B/telemetry", "1", QoS::ExactlyOnce, 2)
        .await;
    let message = watcher.message().await;
    assert_eq!((message.qos, ids(&message)), (QoS::AtLeastOnce, vec![1, 2]));
    watcher.silent().await;

    let mut v3 = server.operator3("old").await;
    v3.subscribe("devices/#", QoS::ExactlyOnce).await;
    v3.subscribe("devices/A/telemetry", QoS::AtLeastOnce).await;
    device
        .publish("devices/A/telemetry", "2", QoS::ExactlyOnce, 3)
        .await;
    assert_eq!(v3.message().await.qos, QoS::ExactlyOnce);
    v3.silent().await;
}

#[tokio::test]
async fn subscribing_again_replaces_the_subscription() {
    let server = Server::start().await;
    let mut watcher = server.operator5("watch").await;
    for sub_id in [1, 2] {
        watcher
            .subscribe_all(
                vec![("devices/A/telemetry", subscription(QoS::AtMostOnce))],
                Some(sub_id),
            )
            .await;
    }
    let mut device = server.device5("A").await;
    device
        .publish("devices/A/telemetry", "1", QoS::AtMostOnce, 0)
        .await;
    assert_eq!(ids(&watcher.message().await), [2]);
    watcher.silent().await;
    assert_eq!(
        server
            .handle
            .sessions()
            .iter()
            .map(|s| s.subscriptions.len())
            .sum::<usize>(),
        1
    );
}

#[tokio::test]
async fn no_local_keeps_a_client_from_hearing_itself() {
    let server = Server::start().await;
    let mut device = server.device5("A").await;
    let options = v5::SubscriptionOptions {
        no_local: true,
        ..subscription(QoS::AtMostOnce)
    };
    device
        .subscribe_all(vec![("devices/A/telemetry", options)], None)
        .await;
    device
        .publish("devices/A/telemetry", "mine", QoS::AtMostOnce, 0)
        .await;
    device.silent().await;
    let mut operator = server.operator5("ops").await;
    operator
        .publish("devices/A/telemetry", "theirs", QoS::AtMostOnce, 0)
        .await;
    assert_eq!(device.message().await.payload, "theirs");
}

#[tokio::test]
async fn unsubscribing_is_answered_for_each_filter() {
    let server = Server::start().await;
    let mut v5 = server.device5("A").await;
    v5.subscribe("devices/A/settings", QoS::AtLeastOnce).await;
    v5.subscribe("devices/A/commands", QoS::AtLeastOnce).await;
    v5.send(v5::Packet::Unsubscribe(v5::Unsubscribe {
        packet_id: id(77),
        user_properties: Vec::new(),
        topic_filters: vec![
            "devices/A/settings".into(),
            "devices/A/firmware".into(),
            "a/#/b".into(),
        ],
    }))
    .await;
    let v5::Packet::UnsubscribeAck(ack) = v5.recv().await else {
        panic!()
    };
    let codes: Vec<u8> = ack.status.into_iter().map(u8::from).collect();
    assert_eq!((ack.packet_id, codes), (id(77), vec![0, 0x11, 0x8F]));
    server.settings("A", 1).await;
    v5.silent().await;

    let mut v3 = server.device3("B").await;
    v3.subscribe("devices/B/settings", QoS::AtLeastOnce).await;
    for topic_filters in [
        vec!["devices/B/settings".into(), "none".into()],
        vec!["none".into()],
    ] {
        v3.send(v3::Packet::Unsubscribe {
            packet_id: id(78),
            topic_filters,
        })
        .await;
        assert_eq!(v3.recv().await, v3::Packet::UnsubscribeAck { packet_id: id(78) });
    }
    server.settings("B", 1).await;
    v3.silent().await;
}

#[tokio::test]
async fn the_server_knows_who_hears_its_settings() {
    let server = Server::start().await;
    let mut device = server.device3("A").await;
    let told = || {
        server.event(|event| match event {
            SessionEvent::SettingsSubscription { subscribed, .. } => Some(subscribed),
            _ => None,
        })
    };
    device.subscribe("devices/A/telemetry", QoS::AtLeastOnce).await;
    assert!(
        !server
            .handle
            .device(&crate::support::serial("A"))
            .unwrap()
            .hears_settings
    );
    device.subscribe("devices/A/+", QoS::AtLeastOnce).await;
    assert!(told().await);
    assert!(
        server
            .handle
            .device(&crate::support::serial("A"))
            .unwrap()
            .hears_settings
    );
    let _presence = device.message().await;
    device
        .send(v3::Packet::Unsubscribe {
            packet_id: id(1),
            topic_filters: vec!["devices/A/+".into()],
        })
        .await;
    assert!(!told().await);
    let _unsuback: v3::Packet = device.recv().await;
    device.silent().await;
}

#[tokio::test]
async fn a_message_of_many_properties_reaches_5_0_whole_and_3_1_1_bare() {
    let server = Server::start().await;
    let mut v5 = server.operator5("new").await;
    let mut v3 = server.operator3("old").await;
    v5.subscribe("devices/A/telemetry", QoS::AtMostOnce).await;
    v3.subscribe("devices/A/telemetry", QoS::AtMostOnce).await;
    let properties = v5::PublishProperties {
        content_type: Some("application/json".into()),
        response_topic: Some("devices/A/settings/ack".into()),
        correlation_data: Some("42".into()),
        is_utf8_payload: true,
        user_properties: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        message_expiry_interval: NonZeroU32::new(60),
        ..Default::default()
    };
    let message = Publish {
        properties: Some(properties.clone()),
        ..publish("devices/A/telemetry", "1", QoS::AtLeastOnce, 1)
    };
    let mut device = server.device5("A").await;
    device.publish_acked(message).await;
    let seen = v5.message().await.properties.unwrap();
    let expiry = seen.message_expiry_interval.unwrap().get();
    assert!((40..=60).contains(&expiry), "{expiry}");
    assert_eq!(
        v5::PublishProperties {
            message_expiry_interval: NonZeroU32::new(60),
            ..seen
        },
        properties
    );
    assert_eq!(v3.message().await.payload, "1");
    let respond_to = server.backend.next_inbound().await.respond_to.unwrap();
    assert_eq!(
        respond_to,
        ("devices/A/settings/ack".to_owned(), Some("42".into()))
    );
}
