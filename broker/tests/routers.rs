//! The death of a router.

use rmqtt_codec::types::QoS;

use crate::support::{Server, eventually, publish, serial, settings_payload, text};

#[tokio::test]
async fn everything_keeps_flowing_when_a_router_dies() {
    let server = Server::start().await;
    let mut watcher = server.operator5("watch").await;
    watcher.subscribe("devices/+/telemetry", QoS::AtLeastOnce).await;
    let mut device = server.device5("A").await;
    device.subscribe("devices/A/settings", QoS::AtLeastOnce).await;
    for round in 1..=5_u64 {
        server.handle.kill_router(&serial("A"));
        for n in 0..50 {
            let payload = format!("{round}.{n}");
            device
                .publish("devices/A/telemetry", &payload, QoS::AtMostOnce, 0)
                .await;
        }
        server.settings("A", round).await;
        for n in 0..50 {
            assert_eq!(text(&watcher.message().await.payload), format!("{round}.{n}"));
        }
        assert_eq!(device.message().await.payload, settings_payload(round));
        eventually("the router is back", || {
            let counts = server.handle.counts();
            counts.router_restarts >= round && counts.shards_healthy == 2
        })
        .await;
    }
    let ack = device
        .publish_acked(publish("devices/A/telemetry", "1", QoS::AtLeastOnce, 1))
        .await;
    assert_eq!(u8::from(ack.reason_code), 0);
    assert_eq!(watcher.message().await.payload, "1");
    assert_eq!(
        server.metric("setpoint_mqtt_router_restarts_total"),
        server.handle.counts().router_restarts
    );
    let restarted: Vec<u64> = server
        .handle
        .shards()
        .iter()
        .map(|shard| shard.restarts)
        .collect();
    assert_eq!(
        restarted.iter().filter(|restarts| **restarts == 0).count(),
        1,
        "the other shard noticed nothing"
    );
}

#[tokio::test]
async fn a_flood_loses_nothing_and_keeps_its_order() {
    let server = Server::start().await;
    let mut watcher = server.operator5("watch").await;
    watcher.subscribe("devices/A/telemetry", QoS::AtMostOnce).await;
    let mut device = server.device5("A").await;
    let flood = async {
        for n in 0..5_000 {
            // Some of them larger than a segment of the router's log.
            let payload = format!("{n} {}", "x".repeat(if n % 500 == 0 { 100_000 } else { n % 300 }));
            device
                .publish("devices/A/telemetry", &payload, QoS::AtMostOnce, 0)
                .await;
        }
    };
    let watch = async {
        for n in 0..5_000 {
            let message = watcher.message().await;
            assert_eq!(
                text(&message.payload).split(' ').next(),
                Some(n.to_string().as_str())
            );
        }
    };
    tokio::join!(flood, watch);
    assert_eq!(server.handle.counts().router_restarts, 0);
}
