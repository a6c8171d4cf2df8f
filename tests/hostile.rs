//! Bytes that no client would send, and clients that never end: each costs its own connection and nothing else.

use setpoint_tests::{Device, End, Harness, Mqtt, Version, harness::mqtt::VERSIONS};

/// A server with a device whose session must not notice anything.
async fn bystander() -> (Harness, Device, Mqtt) {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let session = device.listening(Version::V5).await;
    (server, device, session)
}

/// The bystander still hears and is heard, and others can come.
async fn unharmed(device: &Device, session: &mut Mqtt) {
    let number = device
        .change(serde_json::json!({"label": uuid::Uuid::new_v4().to_string()}))
        .await;
    assert_eq!(
        session.next(&device.topic("settings")).await.json()["version"],
        number
    );
    assert_eq!(session.publish(&device.topic("telemetry"), r#"{"t":1}"#).await, 0);
    for version in VERSIONS {
        let other = device
            .mqtt(version)
            .client_id(&format!("{}:other", device.serial));
        other.connect().await.disconnect().await;
    }
}

#[tokio::test]
async fn connections_that_are_reset_during_the_handshake_a_thousand_times() {
    let (server, device, mut session) = bystander().await;
    for round in 0..1_000 {
        for packet in [
            "10 10 00044d515454 04 02 001e 0004 68757274",
            "10 11 00044d515454 05 02 001e 00 0004 68757274 b0 02 0001",
        ] {
            let mut socket = server.socket().await;
            socket.send(packet).await;
            // Closed both ways: reset, and in order.
            if round % 2 == 0 {
                socket.reset();
            }
        }
        if round % 250 == 0 {
            unharmed(&device, &mut session).await;
        }
    }
    unharmed(&device, &mut session).await;
}

#[tokio::test]
async fn what_is_not_mqtt() {
    let (server, device, mut session) = bystander().await;
    for bytes in [
        // HTTP.
        "474554202f20485454502f312e310d0a0d0a",
        // A PINGREQ, a PUBLISH and a DISCONNECT before any CONNECT.
        "c000",
        "30 07 0003 612f62 3132",
        "e000",
        // CONNECT: of a protocol that isn't, of version 9, with a reserved flag, cut short, of endless length.
        "10 10 00045151515104 02 001e 0004 68757274",
        "10 10 00044d515454 09 02 001e 0004 68757274",
        "10 10 00044d515454 04 03 001e 0004 68757274",
        "10 06 00044d515454",
        "10 ffffffffff",
        // Version 5 with property lengths beyond the packet.
        "10 11 00044d515454 05 02 001e ff 0004 68757274",
    ] {
        let mut socket = server.socket().await;
        socket.send(bytes).await;
        socket.until_closed().await;
    }
    unharmed(&device, &mut session).await;
}

#[tokio::test]
async fn packets_that_break_the_protocol_end_their_session_alone() {
    let (server, device, mut session) = bystander().await;
    for (index, bytes) in [
        // A second CONNECT.
        "10 10 00044d515454 04 02 001e 0004 68757274",
        // Reserved packet types, and flags that must be zero.
        "f000",
        "0000",
        "c100",
        // SUBSCRIBE without a filter, with packet id 0, with QoS 3.
        "82 02 0001",
        "82 06 0000 0001 61 01",
        "82 06 0001 0001 61 03",
        // PUBLISH: to a wildcard, to no topic, at QoS 3, at QoS 1 with packet id 0, with a topic that is no UTF-8.
        "30 05 0003 612f23",
        "30 02 0000",
        "36 07 0001 61 0001 3132",
        "32 05 0001 61 0000",
        "30 05 0003 c328ff",
        // Longer than anything may be.
        "30 ffffffff7f",
        "30 80808001",
    ]
    .into_iter()
    .enumerate()
    {
        let other = server.device(&format!("OTHER-{index}")).await;
        let mut socket = server.socket().await;
        socket.sign_in(&other, 60).await;
        socket.send(bytes).await;
        socket.until_closed().await;
    }
    unharmed(&device, &mut session).await;
}

#[tokio::test]
async fn acknowledgements_of_nothing() {
    let (server, device, mut session) = bystander().await;
    for (index, bytes) in ["4002 0001", "5002 0001", "6202 0001", "7002 0001", "4002 0000"]
        .into_iter()
        .enumerate()
    {
        let other = server.device(&format!("OTHER-{index}")).await;
        let mut socket = server.socket().await;
        socket.sign_in(&other, 60).await;
        socket.send(bytes).await;
        // Ignored or the end of that session, as the server likes; a DISCONNECT ends it in any case.
        socket.send("e000").await;
        socket.until_closed().await;
    }
    unharmed(&device, &mut session).await;
}

#[tokio::test]
async fn a_topic_that_is_not_ascii_and_a_shared_subscription() {
    let (server, device, mut session) = bystander().await;
    for version in VERSIONS {
        let other = server.device(&format!("OTHER-{version:?}")).await;
        let mut hostile = other.mqtt(version).persistent().connect().await;
        hostile.send("é/x", 1, "x").await;
        let codes = hostile
            .subscribe(&["$share/g/devices/+/settings", "$SYS/#", "é/#"])
            .await;
        assert!(codes.iter().all(|code| *code >= 0x80), "{codes:x?}");
        drop(hostile);
    }
    unharmed(&device, &mut session).await;
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_blocks_nobody() {
    let server = Harness::setup()
        .with("mqtt.limits.connect_timeout", "3s")
        .start()
        .await;
    let device = server.device("HOME-1").await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(server.socket().await);
    }
    let mut slow = server.socket().await;
    slow.send("10 10 0004").await;
    let mut session = device.listening(Version::V3).await;
    for mut socket in silent {
        assert!(socket.until_closed().await.is_empty());
    }
    slow.until_closed().await;
    unharmed(&device, &mut session).await;
}

#[tokio::test]
async fn a_packet_over_the_limit_ends_its_session() {
    let server = Harness::setup()
        .with("mqtt.limits.max_packet_size", "4 KiB")
        .start()
        .await;
    let device = server.device("HOME-1").await;
    let mut session = device.listening(Version::V5).await;
    let other = server.device("HOME-2").await;
    let mut large = other.mqtt_v3().await;
    large.send("devices/HOME-2/telemetry", 1, vec![b'x'; 5_000]).await;
    assert!(matches!(large.ended().await, End::Closed(_)));
    setpoint_tests::eventually!(other.get().await["disconnect_reason"] == "limit_exceeded");
    unharmed(&device, &mut session).await;
}
