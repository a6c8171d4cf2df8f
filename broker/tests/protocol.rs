//! What MQTT forbids ends the session with the right word, and nobody else's.

use rmqtt_codec::{types::QoS, v5};

use crate::support::{Server, connect5, id, publish};

/// Sends bytes from a connected 5.0 device; the code of the DISCONNECT they earn.
async fn earns(server: &Server, bytes: &[u8]) -> u8 {
    let mut client = server.device5("A").await;
    client.raw(bytes).await;
    client.disconnected().await
}

#[tokio::test]
async fn a_breach_in_5_0_is_told_its_reason() {
    let server = Server::start().await;
    let cases: &[(&str, &[u8], u8)] = &[
        ("a packet type that does not exist", &[0x00, 0], 0x81),
        ("reserved flags of PUBACK", &[0x41, 2, 0, 1], 0x81),
        ("reserved flags of PUBREL", &[0x60, 2, 0, 1], 0x81),
        ("reserved flags of SUBSCRIBE", &[0x80, 2, 0, 1], 0x81),
        ("reserved flags of PINGREQ", &[0xC1, 0], 0x81),
        ("QoS 3", &[0x36, 8, 0, 1, b'a', 0, 1, 0, b'x', b'y'], 0x81),
        ("DUP with QoS 0", &[0x38, 5, 0, 1, b'a', 0, b'x'], 0x81),
        (
            "a five-byte remaining length",
            &[0x30, 0x80, 0x80, 0x80, 0x80, 1],
            0x81,
        ),
        (
            "a packet larger than announced",
            &[0x30, 0xFF, 0xFF, 0xFF, 0x7F],
            0x95,
        ),
        ("PINGREQ with a body", &[0xC0, 1, 0], 0x81),
        ("CONNACK from a client", &[0x20, 3, 0, 0, 0], 0x82),
        ("SUBACK from a client", &[0x90, 4, 0, 1, 0, 0], 0x82),
        ("AUTH without a method", &[0xF0, 0], 0x82),
        ("an empty topic without an alias", &[0x30, 4, 0, 0, 0, b'x'], 0x82),
        (
            "a wildcard in a topic",
            &[0x30, 6, 0, 3, b'a', b'/', b'#', 0],
            0x90,
        ),
        ("U+0000 in a topic", &[0x30, 6, 0, 2, b'a', 0, 0, b'x'], 0x81),
        ("a topic that is not UTF-8", &[0x30, 5, 0, 1, 0xFF, 0, b'x'], 0x81),
        (
            "a topic that is a surrogate",
            &[0x30, 7, 0, 3, 0xED, 0xA0, 0x80, 0, b'x'],
            0x81,
        ),
        ("packet id 0", &[0x32, 6, 0, 1, b'a', 0, 0, 0], 0x81),
        ("a topic longer than the packet", &[0x30, 3, 0, 9, b'a'], 0x81),
        ("topic alias 0", &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 0], 0x94),
        (
            "a topic alias over the maximum",
            &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 17],
            0x94,
        ),
        (
            "an alias that stands for nothing",
            &[0x30, 6, 0, 0, 3, 0x23, 0, 1],
            0x82,
        ),
        (
            "a subscription id from a client",
            &[0x30, 6, 0, 1, b'a', 2, 0x0B, 1],
            0x82,
        ),
        (
            "a property that does not exist",
            &[0x30, 6, 0, 1, b'a', 2, 0x7E, 1],
            0x81,
        ),
        (
            "a property twice",
            &[0x30, 8, 0, 1, b'a', 4, 0x01, 1, 0x01, 1],
            0x82,
        ),
        (
            "a payload format that does not exist",
            &[0x30, 6, 0, 1, b'a', 2, 0x01, 2],
            0x82,
        ),
        (
            "a user property with U+0000",
            &[0x30, 11, 0, 1, b'a', 7, 0x26, 0, 1, 0, 0, 1, b'x'],
            0x81,
        ),
        (
            "a remaining length that is longer than it must be",
            &[0xC0, 0x80, 0],
            0x81,
        ),
        (
            "a property length that is longer than it must be",
            &[0x30, 5, 0, 1, b'a', 0x80, 0],
            0x81,
        ),
        (
            "properties longer than the packet",
            &[0x30, 5, 0, 1, b'a', 9, 0x01],
            0x81,
        ),
        (
            "a reason of PUBACK with U+0000",
            &[0x40, 8, 0, 1, 0, 4, 0x1F, 0, 1, 0],
            0x81,
        ),
        (
            "two reasons of PUBACK",
            &[0x40, 12, 0, 1, 0, 8, 0x1F, 0, 1, b'a', 0x1F, 0, 1, b'b'],
            0x82,
        ),
        (
            "two session expiries in DISCONNECT",
            &[0xE0, 12, 0, 10, 0x11, 0, 0, 0, 0, 0x11, 0, 0, 0, 0],
            0x82,
        ),
        (
            "a wildcard in a response topic",
            &[0x30, 9, 0, 1, b'a', 5, 0x08, 0, 2, b'+', b'/'],
            0x82,
        ),
        ("SUBSCRIBE without filters", &[0x82, 3, 0, 1, 0], 0x82),
        ("UNSUBSCRIBE without filters", &[0xA2, 3, 0, 1, 0], 0x82),
        (
            "reserved bits of subscription options",
            &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0xC0],
            0x81,
        ),
        ("retain handling 3", &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x30], 0x82),
        ("QoS 3 asked for", &[0x82, 7, 0, 1, 0, 0, 1, b'a', 3], 0x82),
        ("an empty topic filter", &[0x82, 6, 0, 1, 0, 0, 0, 0], 0x82),
        (
            "an empty topic filter to unsubscribe",
            &[0xA2, 5, 0, 1, 0, 0, 0],
            0x82,
        ),
        (
            "subscription id 0",
            &[0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, b'a', 0],
            0x82,
        ),
        (
            "No Local on a shared subscription",
            b"\x82\x12\0\x01\0\0\x0C$share/g/a/b\x04",
            0x82,
        ),
        (
            "a second CONNECT",
            b"\x10\x0E\0\x04MQTT\x05\x02\0\x3C\0\0\x01A",
            0x82,
        ),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(earns(&server, bytes).await, *code, "{what}");
    }
}

#[tokio::test]
async fn a_breach_in_3_1_1_closes_the_connection() {
    let server = Server::start().await;
    let cases: &[(&str, &[u8])] = &[
        ("QoS 3", &[0x36, 7, 0, 1, b'a', 0, 1, b'x', b'y']),
        ("DUP with QoS 0", &[0x38, 4, 0, 1, b'a', b'x']),
        ("an empty topic", &[0x30, 3, 0, 0, b'x']),
        ("a wildcard in a topic", &[0x30, 5, 0, 3, b'a', b'/', b'+']),
        ("U+0000 in a topic", &[0x30, 4, 0, 2, b'a', 0]),
        ("PINGREQ with a body", &[0xC0, 1, 0]),
        ("DISCONNECT with a body", &[0xE0, 1, 0]),
        ("AUTH", &[0xF0, 0]),
        ("SUBSCRIBE without filters", &[0x82, 2, 0, 1]),
        ("SUBSCRIBE for QoS 3", &[0x82, 6, 0, 1, 0, 1, b'a', 3]),
        (
            "reserved bits of a requested QoS",
            &[0x82, 6, 0, 1, 0, 1, b'a', 0x81],
        ),
        ("an empty filter", &[0x82, 5, 0, 1, 0, 0, 0]),
        ("UNSUBSCRIBE without filters", &[0xA2, 2, 0, 1]),
        ("PUBACK with more than an id", &[0x40, 3, 0, 1, 0]),
        ("a second CONNECT", b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01A"),
    ];
    for (what, bytes) in cases {
        let mut client = server.device3("A").await;
        client.raw(bytes).await;
        client.closed().await;
        let reason = server
            .event(|event| match event {
                setpoint_broker::SessionEvent::Ended { reason, .. } => Some(reason),
                _ => None,
            })
            .await;
        assert_eq!(reason.as_str(), "protocol_error", "{what}");
    }
}

#[tokio::test]
async fn the_first_packet_is_connect_and_well_formed() {
    let server = Server::start().await;
    let cases: &[(&str, &[u8])] = &[
        ("PINGREQ", &[0xC0, 0]),
        ("PUBLISH", &[0x30, 4, 0, 1, b'a', b'x']),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("TLS", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]),
        ("CONNECT with flags", b"\x11\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01A"),
        ("another protocol", b"\x10\x0D\0\x04MQTX\x04\x02\0\x3C\0\x01A"),
        (
            "a protocol name of no length",
            b"\x10\x0D\0\0MQTT\x04\x02\0\x3C\0\x01A",
        ),
        ("the reserved flag", b"\x10\x0D\0\x04MQTT\x04\x03\0\x3C\0\x01A"),
        (
            "a will's QoS without a will",
            b"\x10\x0D\0\x04MQTT\x04\x0A\0\x3C\0\x01A",
        ),
        (
            "a password without a user name",
            b"\x10\x10\0\x04MQTT\x04\x42\0\x3C\0\x01A\0\x01p",
        ),
        (
            "bytes after the last field",
            b"\x10\x0E\0\x04MQTT\x04\x02\0\x3C\0\x01Ax",
        ),
        (
            "a client id longer than the packet",
            b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x09A",
        ),
        (
            "U+0000 in the client id",
            b"\x10\x0E\0\x04MQTT\x04\x02\0\x3C\0\x02A\0",
        ),
        ("nothing but a fixed header", &[0x10, 0]),
    ];
    for (what, bytes) in cases {
        let mut client = server.v3().await;
        client.raw(bytes).await;
        client.closed().await;
        assert_eq!(server.handle.counts().sessions, 0, "{what}");
    }
    // MQTT 5 has a word for it.
    let mut client = server.v5().await;
    client.raw(b"\x10\x0F\0\x04MQTT\x05\x02\0\x3C\0\0\x01Ax").await;
    let v5::Packet::ConnectAck(ack) = client.recv().await else {
        panic!()
    };
    assert_eq!(u8::from(ack.reason_code), 0x81);
    client.closed().await;
}

#[tokio::test]
async fn a_packet_may_come_byte_by_byte_and_many_at_once() {
    let server = Server::start().await;
    let mut client = server.device5("A").await;
    let mut bytes = bytes::BytesMut::new();
    let mut codec = v5::Codec::new(0, 0);
    for n in 1..=40 {
        let message = publish("devices/A/telemetry", "1", QoS::AtLeastOnce, n);
        tokio_util::codec::Encoder::encode(&mut codec, v5::Packet::Publish(Box::new(message)), &mut bytes)
            .unwrap();
    }
    let (one_by_one, at_once) = bytes.split_at(100);
    for byte in one_by_one {
        client.raw(&[*byte]).await;
    }
    client.raw(at_once).await;
    for n in 1..=40 {
        let v5::Packet::PublishAck(ack) = client.recv().await else {
            panic!()
        };
        assert_eq!(ack.packet_id, id(n));
    }
}

#[tokio::test]
async fn the_largest_packet_goes_through_whole() {
    let server = Server::start().await;
    let mut watcher = server.operator5("watch").await;
    watcher.subscribe("devices/A/telemetry", QoS::AtMostOnce).await;
    let mut client = server.device5("A").await;
    let payload = "x".repeat(256 * 1024 - 64);
    let ack = client
        .publish_acked(publish("devices/A/telemetry", &payload, QoS::AtLeastOnce, 1))
        .await;
    assert_eq!(u8::from(ack.reason_code), 0);
    assert_eq!(watcher.message().await.payload, payload.as_bytes());
}

#[tokio::test]
async fn keep_alive_ends_who_says_nothing() {
    let server = Server::start().await;
    let mut silent = server.v5().await;
    let ack = silent
        .welcome(v5::Connect {
            keep_alive: 1,
            ..connect5("A")
        })
        .await;
    assert_eq!(ack.server_keepalive_sec, Some(1));
    assert_eq!(silent.disconnected().await, 0x8D);
    let capped = server
        .v5()
        .await
        .welcome(v5::Connect {
            keep_alive: 60_000,
            ..connect5("B")
        })
        .await;
    assert_eq!(capped.server_keepalive_sec, Some(60));
    let none = server
        .v5()
        .await
        .welcome(v5::Connect {
            keep_alive: 0,
            ..connect5("C")
        })
        .await;
    assert_eq!(none.server_keepalive_sec, Some(1_800));
}

#[tokio::test]
async fn connack_tells_what_the_server_can_do() {
    let server = Server::start().await;
    let ack = server
        .v5()
        .await
        .welcome(v5::Connect {
            session_expiry_interval_secs: u32::MAX,
            ..connect5("A")
        })
        .await;
    assert_eq!(ack.receive_max.get(), 64);
    assert_eq!(ack.max_packet_size, Some(256 * 1024 + 5));
    assert_eq!(ack.topic_alias_max, 16);
    assert_eq!(ack.session_expiry_interval_secs, Some(7 * 86_400));
    assert!(!ack.session_present && ack.retain_available && ack.wildcard_subscription_available);
    assert!(ack.subscription_identifiers_available && !ack.shared_subscription_available);
    assert_eq!(ack.max_qos, QoS::ExactlyOnce);
    assert_eq!(ack.assigned_client_id, None);
}
