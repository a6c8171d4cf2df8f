//! Limits: each is kept, counted, and nobody else notices.

mod ends;

use std::time::Duration;

use bytes::Bytes;
use rmqtt_codec::{types::QoS, v3, v5};
use setpoint_broker::{Outgoing, Refusal, SessionEvent};
use setpoint_model::{Channel, presence::DisconnectReason};
use tokio::io::AsyncWriteExt;

use crate::support::{Server, connect3, connect5, operator5, publish, serial, topic};

async fn ended(server: &Server) -> DisconnectReason {
    let ended = server.event(|event| match event {
        SessionEvent::Ended { reason, .. } => Some(reason),
        _ => None,
    });
    ended.await
}

fn limit(server: &Server, name: &str) -> u64 {
    server.metric(&format!("setpoint_mqtt_limits_hit_total{{limit=\"{name}\"}}"))
}

#[tokio::test]
async fn sessions_in_all() {
    let server = Server::with(|config| config.max_sessions = 2).await;
    let first = server.device3("A").await;
    let mut second = server.device3("B").await;
    assert_eq!(server.v3().await.refused(connect3("C")).await, 3);
    assert_eq!(server.v5().await.refused(connect5("C")).await, 0x97);
    second.silent().await;
    assert_eq!(limit(&server, "sessions"), 2);
    drop(first);
    ended(&server).await;
    crate::support::eventually("there is room again", || server.handle.counts().sessions == 1).await;
    let mut third = server.v3().await;
    third.welcome(connect3("C")).await;
}

#[tokio::test]
async fn far_too_many_connections_are_closed_unheard() {
    let server = Server::with(|config| config.max_sessions = 1).await;
    let mut waiting = Vec::new();
    for _ in 0..40 {
        waiting.push(server.v3().await);
    }
    let mut closed = 0;
    for client in &mut waiting {
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(&mut client.stream, &mut byte);
        if matches!(
            tokio::time::timeout(Duration::from_millis(20), read).await,
            Ok(Ok(0) | Err(_))
        ) {
            closed += 1;
        }
    }
    assert_eq!(closed, 40 - 17);
}

#[tokio::test]
async fn sessions_of_one_address() {
    let server = Server::with(|config| {
        config.max_sessions_per_address = 1;
        config.limit_loopback = true;
    })
    .await;
    let _first = server.device3("A").await;
    assert_eq!(server.v5().await.refused(connect5("B")).await, 0x97);
    assert_eq!(limit(&server, "sessions_per_address"), 1);
}

#[tokio::test]
async fn sessions_of_one_device() {
    let server = Server::with(|config| config.max_sessions_per_device = 2).await;
    let connect = |n: u8| v5::Connect {
        client_id: format!("A:{n}").into(),
        ..connect5("A")
    };
    let mut clients = Vec::new();
    for n in 1..=2 {
        let mut client = server.v5().await;
        client.welcome(connect(n)).await;
        clients.push(client);
    }
    assert_eq!(server.v5().await.refused(connect(3)).await, 0x97);
    assert_eq!(limit(&server, "sessions_per_device"), 1);
    // A take-over needs no room, and another device has its own.
    server.v5().await.welcome(connect(1)).await;
    server.v5().await.welcome(connect5("B")).await;
}

#[tokio::test]
async fn time_to_connect() {
    let server = Server::with(|config| config.connect_timeout = Duration::from_millis(50)).await;
    let mut silent = server.v3().await;
    let mut slow = server.v3().await;
    slow.raw(&[0x10, 60, 0, 4]).await;
    silent.closed().await;
    slow.closed().await;
    assert_eq!(limit(&server, "connect_timeout"), 2);
}

#[tokio::test]
async fn packet_size() {
    let server = Server::with(|config| config.max_packet_size = 1_024).await;
    let mut client = server.device5("A").await;
    let fits = publish("devices/A/telemetry", &"x".repeat(900), QoS::AtLeastOnce, 1);
    client.publish_acked(fits).await;
    client.raw(&[0x30, 0x81, 0x08]).await;
    assert_eq!(client.disconnected().await, 0x95);
    assert_eq!(ended(&server).await, DisconnectReason::LimitExceeded);
    assert_eq!(limit(&server, "packet_size"), 1);
}

#[tokio::test]
async fn packets_per_second_slow_down_and_then_end() {
    let server = Server::with(|config| {
        config.max_messages_per_second = 100;
        config.rate_patience = Duration::from_millis(300);
    })
    .await;
    let mut healthy = server.device3("B").await;
    let begun = tokio::time::Instant::now();
    let client = server.device5("A").await;
    let (mut reader, mut writer) = client.stream.into_split();
    let mut bytes = bytes::BytesMut::new();
    let message = publish("devices/A/telemetry", "1", QoS::AtMostOnce, 0);
    let packet = v5::Packet::Publish(Box::new(message));
    tokio_util::codec::Encoder::encode(&mut v5::Codec::new(0, 0), packet, &mut bytes).unwrap();
    // Two seconds' worth is free; after it, it goes on as slowly as is allowed, and too much is too much.
    let flood = async { while writer.write_all(&bytes).await.is_ok() {} };
    let told = async {
        let mut told = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut told).await;
        told
    };
    let told = tokio::select! {
        () = flood => Vec::new(),
        told = told => told,
    };
    assert!(told.is_empty() || told[..3] == [0xE0, 2, 0x96], "{told:?}");
    assert_eq!(ended(&server).await, DisconnectReason::LimitExceeded);
    assert_eq!(
        (limit(&server, "rate_slowed"), limit(&server, "rate_ended")),
        (1, 1)
    );
    // What the rate allows in as long as it took.
    let taken = u128::try_from(server.backend.inbound_left()).unwrap();
    let allowed = 201 + begun.elapsed().as_millis() / 10;
    assert!((200..=allowed).contains(&taken), "{taken} of {allowed}");
    healthy.silent().await;
}

#[tokio::test]
async fn bytes_per_second_slow_down() {
    let server = Server::with(|config| config.max_bytes_per_second = 10_000).await;
    let mut client = server.device5("A").await;
    // Three seconds' worth, two of them free; of what a slow machine takes longer for, more is allowed.
    for _ in 0..3 {
        let message = publish("devices/A/telemetry", &"x".repeat(10_000), QoS::AtLeastOnce, 1);
        client.publish_acked(message).await;
    }
    assert_eq!(
        (limit(&server, "rate_slowed"), limit(&server, "rate_ended")),
        (1, 0)
    );
}

#[tokio::test]
async fn subscriptions_of_one_session() {
    let server = Server::with(|config| config.max_subscriptions = 2).await;
    let mut v5 = server.device5("A").await;
    let mut v3 = server.device3("B").await;
    for (n, code, old) in [(1, 0, 0), (2, 0, 0), (3, 0x97, 0x80), (1, 0, 0)] {
        assert_eq!(
            v5.subscribe(&format!("devices/A/{n}"), QoS::AtMostOnce).await,
            code
        );
        assert_eq!(
            v3.subscribe(&format!("devices/B/{n}"), QoS::AtMostOnce).await,
            old
        );
    }
    assert_eq!(limit(&server, "subscriptions"), 2);
}

#[tokio::test]
async fn failed_logins_for_one_serial() {
    let server = Server::with(|config| {
        config.max_failed_logins_per_serial = 3;
        config.failed_login_backoff = Duration::from_secs(2);
    })
    .await;
    let wrong = |name: &str| v5::Connect {
        password: Some(Bytes::from_static(b"guess")),
        ..connect5(name)
    };
    for _ in 0..3 {
        assert_eq!(server.v5().await.refused(wrong("A")).await, 0x87);
    }
    assert_eq!(
        server.backend.logins.lock().unwrap().len(),
        3,
        "as many as the limit says are tried"
    );
    let told = server.event(|event| match event {
        SessionEvent::Refused {
            refusal: Refusal::TooManyAttempts,
            serial,
            ..
        } => Some(serial),
        _ => None,
    });
    assert_eq!(told.await, Some(serial("A")));
    let asked = server.backend.logins.lock().unwrap().len();
    assert_eq!(server.v5().await.refused(wrong("A")).await, 0x97);
    assert_eq!(
        server.v3().await.refused(connect3("A")).await,
        3,
        "not even with the right one"
    );
    assert_eq!(
        server.backend.logins.lock().unwrap().len(),
        asked,
        "the backend is spared"
    );
    // Nobody else is kept out.
    server.v5().await.welcome(connect5("B")).await;
    // And it may try again after a while.
    let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let mut client = server.v3().await;
        client.send(v3::Packet::Connect(Box::new(connect3("A")))).await;
        let v3::Packet::ConnectAck(ack) = client.recv().await else {
            panic!()
        };
        if ack.return_code == v3::ConnectAckReason::ConnectionAccepted {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
    }
    assert!(limit(&server, "failed_logins") >= 3);
}

#[tokio::test]
async fn failed_logins_from_one_address() {
    let server = Server::with(|config| {
        config.max_failed_logins_per_address = 3;
        config.limit_loopback = true;
    })
    .await;
    for n in 0..3 {
        let password = Some(Bytes::from_static(b"guess"));
        let connect = v5::Connect {
            password,
            ..connect5(&format!("D{n}"))
        };
        assert_eq!(server.v5().await.refused(connect).await, 0x87);
    }
    assert_eq!(server.v5().await.refused(connect5("A")).await, 0x97);
}

#[tokio::test]
async fn a_client_that_never_reads_is_dropped_and_nobody_else_notices() {
    let server = Server::with(|config| {
        config.outbound_queue_messages = 50;
        config.outbound_queue_bytes = 1_000_000;
    })
    .await;
    let mut deaf = server.device5("A").await;
    deaf.subscribe("devices/A/commands", QoS::AtLeastOnce).await;
    let mut healthy = server.operator5("watch").await;
    healthy.subscribe("devices/A/commands", QoS::AtLeastOnce).await;
    let payload = Bytes::from(vec![b'x'; 100_000]);
    let ended = async { ended(&server).await };
    let flood = async {
        loop {
            let message = Outgoing {
                topic: topic("A", Channel::Commands),
                payload: payload.clone(),
                qos: QoS::AtLeastOnce,
                retain: false,
                receipt: None,
            };
            server.handle.publish(message).await.unwrap();
            assert_eq!(healthy.message().await.payload.len(), 100_000);
        }
    };
    let reason = tokio::select! {
        reason = ended => reason,
        () = flood => unreachable!(),
    };
    assert_eq!(reason, DisconnectReason::LimitExceeded);
    assert_eq!(limit(&server, "outbound_queue"), 1);
    drop(deaf);
}

#[tokio::test]
async fn qos_0_gives_way_before_anyone_is_dropped() {
    let server = Server::with(|config| config.outbound_queue_messages = 10).await;
    let mut client = server.v5().await;
    client.welcome(operator5("watch").receive_max(1)).await;
    client.subscribe("devices/A/telemetry", QoS::AtLeastOnce).await;
    let mut device = server.device5("A").await;
    // The first QoS 1 message closes the window; what follows waits behind the second.
    for n in 0..2 {
        device
            .publish_acked(publish(
                "devices/A/telemetry",
                &n.to_string(),
                QoS::AtLeastOnce,
                1,
            ))
            .await;
    }
    crate::support::eventually("one is on its way and one waits", || {
        server
            .handle
            .sessions()
            .iter()
            .any(|session| (session.in_flight, session.queued) == (1, 1))
    })
    .await;
    for n in 2..30 {
        device
            .publish("devices/A/telemetry", &n.to_string(), QoS::AtMostOnce, 0)
            .await;
    }
    device.silent().await;
    server.settled().await;
    for _ in 0..11 {
        client.message().await;
    }
    client.silent().await;
    assert_eq!(
        server.metric("setpoint_mqtt_messages_dropped_total{reason=\"queue_full\"}"),
        19
    );
}

#[tokio::test]
async fn time_to_read() {
    let server = Server::with(|config| config.write_timeout = Duration::from_millis(100)).await;
    let mut deaf = server.device5("A").await;
    deaf.subscribe("devices/A/commands", QoS::AtMostOnce).await;
    let payload = Bytes::from(vec![b'x'; 200_000]);
    let flood = async {
        loop {
            let message = Outgoing {
                topic: topic("A", Channel::Commands),
                payload: payload.clone(),
                qos: QoS::AtMostOnce,
                retain: false,
                receipt: None,
            };
            server.handle.publish(message).await.unwrap();
            server.settled().await;
        }
    };
    let reason = tokio::select! {
        reason = ended(&server) => reason,
        () = flood => unreachable!(),
    };
    assert_eq!(reason, DisconnectReason::LimitExceeded);
    assert_eq!(limit(&server, "write_timeout"), 1);
    drop(deaf);
}
