//! Hostile bytes: nothing from the network ends more than its own session.

use std::net::SocketAddr;

use bytes::BytesMut;
use rmqtt_codec::{types::QoS, v3, v5};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_util::codec::Encoder;

use crate::support::{Server, connect3, connect5, eventually, id, publish, subscription};

/// Opens a connection, sends bytes, and closes it with a reset.
async fn hit_and_reset(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Zero linger makes the close a reset.
    #[expect(deprecated, reason = "a reset is what this is about, and zero never blocks")]
    stream.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    let _ = stream.write_all(bytes).await;
}

#[tokio::test]
async fn what_killed_the_stock_listener_does_nothing_a_thousand_times() {
    let server = Server::start().await;
    let mut healthy = server.device5("A").await;
    healthy.subscribe("devices/A/settings", QoS::AtLeastOnce).await;
    let hurt = b"\x10\x10\0\x04MQTT\x04\x02\0\x1E\0\x04hurt";
    let five = b"\x10\x11\0\x04MQTT\x05\x02\0\x1E\0\0\x04hurt\xB0\x02\0\x01";
    for n in 0..1_000 {
        hit_and_reset(server.address, hurt).await;
        hit_and_reset(server.address, five).await;
        if n % 100 == 0 {
            server.settings("A", n + 1).await;
            assert!(!healthy.message().await.retain);
        }
    }
    server.device3("B").await.silent().await;
    healthy.silent().await;
    eventually("all of them are gone", || server.handle.counts().sessions <= 2).await;
    assert_eq!(server.handle.counts().router_restarts, 0);
}

#[tokio::test]
async fn what_killed_the_stock_router_does_nothing() {
    let server = Server::start().await;
    let mut healthy = server.device5("H").await;
    for _ in 0..100 {
        // A topic that can't be cut at its second byte.
        let mut client = server.device5("A").await;
        client.publish("é/x", "1", QoS::AtMostOnce, 0).await;
        client.silent().await;
        // Acknowledgements out of order, and of nothing.
        client.subscribe("devices/A/telemetry", QoS::AtLeastOnce).await;
        for n in 1..=3 {
            client
                .publish("devices/A/telemetry", "1", QoS::AtMostOnce, n)
                .await;
        }
        for n in [9, 3, 1, 2, 2] {
            client.puback(id(n)).await;
        }
        // A shared subscription with an unacknowledged message, closed.
        let mut shared = server.v5().await;
        let connect = v5::Connect {
            clean_start: false,
            session_expiry_interval_secs: 60,
            ..crate::support::operator5("shared")
        };
        shared.welcome(connect).await;
        let options = subscription(QoS::AtLeastOnce);
        shared
            .send(v5::Packet::Subscribe(v5::Subscribe {
                packet_id: id(1),
                id: None,
                user_properties: Vec::new(),
                topic_filters: vec![("$share/g/devices/A/telemetry".into(), options)],
            }))
            .await;
        client
            .publish("devices/A/telemetry", "1", QoS::AtLeastOnce, 4)
            .await;
        drop(shared);
        // DISCONNECT while being flooded, and a take-over of one that does not read.
        let mut flooded = server.v5().await;
        flooded.welcome(connect5("A")).await;
        flooded
            .send(v5::Packet::Disconnect(v5::Disconnect::default()))
            .await;
    }
    healthy.silent().await;
    assert_eq!(server.handle.counts().router_restarts, 0);
    assert!(server.handle.shards().iter().all(|shard| shard.healthy));
}

/// A small generator, so that a failure can be repeated: xorshift with a fixed seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

/// Well-formed sessions, to be spoilt.
fn corpus() -> Vec<Vec<u8>> {
    let mut sessions = Vec::new();
    let mut old = BytesMut::new();
    let mut codec = v3::Codec::new(0);
    let will = v3::LastWill {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "devices/A/telemetry".into(),
        message: "gone".into(),
    };
    let packets = [
        v3::Packet::Connect(Box::new(v3::Connect {
            last_will: Some(will),
            keep_alive: 30,
            ..connect3("A")
        })),
        v3::Packet::Subscribe {
            packet_id: id(1),
            topic_filters: vec![
                ("devices/A/#".into(), QoS::ExactlyOnce),
                ("devices/+/x".into(), QoS::AtMostOnce),
            ],
        },
        v3::Packet::Publish(Box::new(publish(
            "devices/A/telemetry",
            "{\"t\":1}",
            QoS::ExactlyOnce,
            2,
        ))),
        v3::Packet::PublishRelease { packet_id: id(2) },
        v3::Packet::PublishReceived { packet_id: id(1) },
        v3::Packet::PublishComplete { packet_id: id(1) },
        v3::Packet::Publish(Box::new(publish("devices/B/telemetry", "1", QoS::AtLeastOnce, 3))),
        v3::Packet::PublishAck { packet_id: id(1) },
        v3::Packet::Unsubscribe {
            packet_id: id(4),
            topic_filters: vec!["devices/A/#".into()],
        },
        v3::Packet::PingRequest,
        v3::Packet::Disconnect,
    ];
    for packet in packets {
        codec.encode(packet, &mut old).unwrap();
    }
    sessions.push(old.to_vec());

    let mut new = BytesMut::new();
    let mut codec = v5::Codec::new(0, 0);
    let properties = v5::PublishProperties {
        topic_alias: Some(id(1)),
        correlation_data: Some("42".into()),
        message_expiry_interval: Some(30.try_into().unwrap()),
        content_type: Some("text/plain".into()),
        user_properties: vec![("a".into(), "b".into())],
        is_utf8_payload: true,
        response_topic: Some("devices/A/x".into()),
        subscription_ids: Vec::new(),
    };
    let mut aliased = publish("devices/A/telemetry", "1", QoS::AtLeastOnce, 5);
    aliased.properties = Some(properties);
    let packets = [
        v5::Packet::Connect(Box::new(v5::Connect {
            session_expiry_interval_secs: 1,
            receive_max: Some(id(3)),
            topic_alias_max: 5,
            max_packet_size: Some(1_000.try_into().unwrap()),
            user_properties: vec![("a".into(), "b".into())],
            ..connect5("A")
        })),
        v5::Packet::Subscribe(v5::Subscribe {
            packet_id: id(1),
            id: Some(7.try_into().unwrap()),
            user_properties: Vec::new(),
            topic_filters: vec![("devices/A/#".into(), subscription(QoS::ExactlyOnce))],
        }),
        v5::Packet::Publish(Box::new(aliased)),
        v5::Packet::PublishReceived(v5::PublishAck {
            packet_id: id(1),
            ..Default::default()
        }),
        v5::Packet::PublishComplete(v5::PublishAck2 {
            packet_id: id(1),
            ..Default::default()
        }),
        v5::Packet::Unsubscribe(v5::Unsubscribe {
            packet_id: id(4),
            user_properties: Vec::new(),
            topic_filters: vec!["devices/A/#".into()],
        }),
        v5::Packet::PingRequest,
        v5::Packet::Disconnect(v5::Disconnect::default()),
    ];
    for packet in packets {
        codec.encode(packet, &mut new).unwrap();
    }
    sessions.push(new.to_vec());
    sessions
}

fn spoil(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            2 => {
                bytes.remove(at);
            }
            3 => bytes.insert(at, u8::try_from(random.below(256)).unwrap()),
            4 => bytes.truncate(at.max(1)),
            _ => {
                let to = at + random.below(bytes.len() - at);
                let copy = bytes[at..to].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

#[tokio::test]
async fn spoilt_sessions_end_alone() {
    let server = Server::start().await;
    let mut healthy = server.device5("H").await;
    healthy.subscribe("devices/H/telemetry", QoS::AtMostOnce).await;
    let mut random = Random(0x5EED_CAFE_F00D_BEEF);
    let corpus = corpus();
    for round in 0..1_500 {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        // The first packet is spared in half of them, so that what follows is looked at.
        let from = if random.below(2) == 0 {
            0
        } else {
            usize::from(bytes[1]) + 2
        };
        let mut tail = bytes.split_off(from);
        spoil(&mut tail, &mut random);
        bytes.extend(tail);
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        if random.below(2) == 0 {
            let mut answer = Vec::new();
            let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
            let _ = tokio::time::timeout(crate::support::PATIENCE, read)
                .await
                .expect("it ends");
        }
        if round % 50 == 0 {
            healthy
                .publish("devices/H/telemetry", "1", QoS::AtMostOnce, 0)
                .await;
            assert_eq!(healthy.message().await.payload, "1");
        }
    }
    healthy.silent().await;
    eventually("all of them are gone", || server.handle.counts().sessions == 1).await;
    assert_eq!(server.handle.counts().router_restarts, 0);
}
