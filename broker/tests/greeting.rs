//! What a CONNECT may not look like, and what is said to it.

use bytes::Bytes;
use rmqtt_codec::v5;
use tokio::io::AsyncReadExt;

use crate::support::{Server, connect5};

/// A CONNECT of the device A over MQTT 5 with these properties.
fn connect(properties: &[u8]) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x05\xC2\0\x3C".to_vec();
    body.push(u8::try_from(properties.len()).unwrap());
    body.extend(properties);
    body.extend(b"\0\x01A\0\x01A\0\x06secret");
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    packet
}

/// Everything that the server says to these bytes before it closes.
async fn answer(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut client = server.v3().await;
    client.raw(bytes).await;
    let mut answer = Vec::new();
    let read = client.stream.read_to_end(&mut answer);
    tokio::time::timeout(crate::support::PATIENCE, read)
        .await
        .expect("the server does not close")
        .unwrap();
    answer
}

#[tokio::test]
async fn properties_that_break_a_rule_are_told_apart() {
    let server = Server::start().await;
    let cases: &[(&str, &[u8], u8)] = &[
        ("receive maximum 0", &[0x21, 0, 0], 0x82),
        ("maximum packet size 0", &[0x27, 0, 0, 0, 0], 0x82),
        ("request problem information 2", &[0x17, 2], 0x82),
        ("request response information 2", &[0x19, 2], 0x82),
        ("a property twice", &[0x22, 0, 1, 0x22, 0, 1], 0x82),
        ("authentication data without a method", &[0x16, 0, 1, b'x'], 0x82),
        ("a property of PUBLISH", &[0x23, 0, 1], 0x81),
        ("a property that does not exist", &[0x7F, 0], 0x81),
        ("half a property", &[0x11, 0, 0], 0x81),
        ("a user property with U+0000", &[0x26, 0, 1, 0, 0, 1, b'x'], 0x81),
        (
            "a maximum packet size too small for CONNACK",
            &[0x27, 0, 0, 0, 15],
            0x95,
        ),
    ];
    for (what, properties, code) in cases {
        let told = answer(&server, &connect(properties)).await;
        assert_eq!(told, [0x20, 3, 0, *code, 0], "{what}");
    }
    let mut overlong = connect(&[]);
    let length = overlong[1];
    overlong.splice(1..2, [length | 0x80, 0]);
    assert_eq!(answer(&server, &overlong).await, [0x20, 3, 0, 0x81, 0]);
}

#[tokio::test]
async fn a_connect_that_is_too_large_is_told_so_and_counted() {
    let server = Server::with(|config| config.max_packet_size = 1024).await;
    let mut large = connect(&[]);
    large.splice(1..2, [0x80, 0x10]);
    assert_eq!(answer(&server, &large).await, [0x20, 3, 0, 0x95, 0]);
    assert_eq!(
        server.metric("setpoint_mqtt_limits_hit_total{limit=\"packet_size\"}"),
        1
    );
    // Only MQTT 5 has a word for it.
    assert!(
        answer(&server, b"\x10\x80\x10\0\x04MQTT\x04\x02\0\x3C\0\0")
            .await
            .is_empty()
    );
    for stranger in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\0", b"\xC0\0"] {
        assert!(answer(&server, stranger).await.is_empty(), "{stranger:?}");
    }
    assert_eq!(
        server.metric("setpoint_mqtt_refusals_total{reason=\"malformed\"}"),
        5
    );
}

#[tokio::test]
async fn a_client_with_little_room_gets_a_connack_that_fits() {
    let server = Server::start().await;
    for room in [16, 20, 127, 128] {
        let told = {
            let mut client = server.v3().await;
            client
                .raw(&connect(&[0x27, 0, 0, 0, room, 0x11, 0xFF, 0xFF, 0xFF, 0xFF]))
                .await;
            let mut head = [0; 2];
            client.stream.read_exact(&mut head).await.unwrap();
            let mut rest = vec![0; usize::from(head[1])];
            client.stream.read_exact(&mut rest).await.unwrap();
            assert_eq!(rest[1], 0, "in");
            rest.len() + 2
        };
        assert!(told <= usize::from(room), "{told} bytes for {room}");
    }
    let anonymous = v5::Connect {
        client_id: "".into(),
        max_packet_size: 100.try_into().ok(),
        ..connect5("A")
    };
    assert_eq!(server.v5().await.refused(anonymous).await, 0x95);
}

#[tokio::test]
async fn a_bridge_is_told_in_its_own_version_that_it_is_an_ordinary_client() {
    let server = Server::start().await;
    // Mosquitto sets the highest bit of the level when it bridges, and tries again without it.
    for (level, told) in [
        (0x83_u8, &[0x20, 2, 0, 1][..]),
        (0x84, &[0x20, 2, 0, 1]),
        (0x85, &[0x20, 3, 0, 0x84, 0]),
    ] {
        let mut bytes = Bytes::from_static(b"\x10\x0E\0\x04MQTT\x04\x02\0\x3C\0\x02me").to_vec();
        bytes[8] = level;
        assert_eq!(answer(&server, &bytes).await, told, "{level:#x}");
    }
}
