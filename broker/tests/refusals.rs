//! Who does not get in, and what it is told.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use rmqtt_codec::{types::QoS, v3, v5};
use setpoint_broker::{Refusal, SessionEvent};

use crate::support::{Server, connect3, connect5, operator5, serial};

#[tokio::test]
async fn a_wrong_or_missing_password_is_not_authorized() {
    let server = Server::start().await;
    let wrong = Some(Bytes::from_static(b"guess"));
    let refused = server
        .v3()
        .await
        .refused(v3::Connect {
            password: wrong.clone(),
            ..connect3("A")
        })
        .await;
    assert_eq!(refused, 5);
    let event = server.event(|event| match event {
        SessionEvent::Refused { serial, refusal, .. } => Some((serial, refusal)),
        _ => None,
    });
    assert_eq!(event.await, (Some(serial("A")), Refusal::NotAuthorized));
    assert_eq!(
        server
            .v5()
            .await
            .refused(v5::Connect {
                password: wrong,
                ..connect5("A")
            })
            .await,
        0x87
    );
    let anonymous = v3::Connect {
        username: None,
        password: None,
        ..connect3("A")
    };
    assert_eq!(server.v3().await.refused(anonymous).await, 5);
    assert_eq!(
        server.metric("setpoint_mqtt_refusals_total{reason=\"not_authorized\"}"),
        3
    );
}

#[tokio::test]
async fn a_client_id_of_another_device_is_refused() {
    let server = Server::start().await;
    assert_eq!(
        server
            .v3()
            .await
            .refused(v3::Connect {
                client_id: "B".into(),
                ..connect3("A")
            })
            .await,
        2
    );
    assert_eq!(
        server
            .v5()
            .await
            .refused(v5::Connect {
                client_id: "AB".into(),
                ..connect5("A")
            })
            .await,
        0x85
    );
    let long = format!("A:{}", "x".repeat(600));
    assert_eq!(
        server
            .v5()
            .await
            .refused(v5::Connect {
                client_id: long.into(),
                ..connect5("A")
            })
            .await,
        0x85
    );
    let own = v5::Connect {
        client_id: "A:debug".into(),
        ..connect5("A")
    };
    server.v5().await.welcome(own).await;
}

#[tokio::test]
async fn a_database_that_is_away_is_told_apart_from_a_wrong_password() {
    let server = Server::start().await;
    server.backend.down.store(true, Ordering::SeqCst);
    assert_eq!(server.v3().await.refused(connect3("A")).await, 3);
    assert_eq!(server.v5().await.refused(connect5("A")).await, 0x88);
}

#[tokio::test]
async fn a_revocation_during_the_login_is_not_missed() {
    let server = Server::start().await;
    server.backend.stale.store(true, Ordering::SeqCst);
    assert_eq!(server.v3().await.refused(connect3("A")).await, 5);
    assert_eq!(server.v5().await.refused(connect5("A")).await, 0x87);
    assert_eq!(server.handle.counts().sessions, 0);
}

#[tokio::test]
async fn enhanced_authentication_is_refused() {
    let server = Server::start().await;
    let connect = v5::Connect {
        auth_method: Some("SCRAM".into()),
        ..connect5("A")
    };
    assert_eq!(server.v5().await.refused(connect).await, 0x8C);
}

#[tokio::test]
async fn an_unknown_protocol_level_is_refused() {
    let server = Server::start().await;
    for (level, answer) in [
        (3_u8, &[0x20, 2, 0, 1][..]),
        (2, &[0x20, 2, 0, 1]),
        (6, &[0x20, 3, 0, 0x84, 0]),
    ] {
        let mut client = server.v3().await;
        client
            .raw(&[
                0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 60, 0, 2, b'm', b'e',
            ])
            .await;
        let mut told = vec![0; answer.len()];
        tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut told)
            .await
            .unwrap();
        assert_eq!(told, answer, "level {level}");
        client.closed().await;
    }
}

#[tokio::test]
async fn mqtt_3_1_is_as_good_as_3_1_1() {
    let server = Server::start().await;
    let mut client = server.v3().await;
    let mut connect = vec![0x10, 0, 0, 6];
    connect.extend(b"MQIsdp\x03\xC2\x00\x3C\x00\x01A\x00\x01A\x00\x06secret");
    connect[1] = u8::try_from(connect.len() - 2).unwrap();
    client.raw(&connect).await;
    let v3::Packet::ConnectAck(ack) = client.recv().await else {
        panic!()
    };
    assert_eq!(ack.return_code, v3::ConnectAckReason::ConnectionAccepted);
    client.silent().await;
}

#[tokio::test]
async fn an_empty_client_id_is_replaced_if_nothing_is_to_be_kept() {
    let server = Server::start().await;
    let anonymous = v3::Connect {
        client_id: "".into(),
        ..connect3("A")
    };
    assert_eq!(
        server
            .v3()
            .await
            .refused(v3::Connect {
                clean_session: false,
                ..anonymous.clone()
            })
            .await,
        2
    );
    assert!(!server.v3().await.welcome(anonymous).await);
    for clean_start in [true, false] {
        let anonymous = v5::Connect {
            client_id: "".into(),
            clean_start,
            ..connect5("A")
        };
        let assigned = server
            .v5()
            .await
            .welcome(anonymous)
            .await
            .assigned_client_id
            .unwrap();
        assert!(assigned.starts_with("A:"), "{assigned}");
    }
    let anonymous = v5::Connect {
        client_id: "".into(),
        ..operator5("")
    };
    assert!(
        server
            .v5()
            .await
            .welcome(anonymous)
            .await
            .assigned_client_id
            .is_some()
    );
}

#[tokio::test]
async fn a_will_where_the_client_may_not_publish_is_refused() {
    let server = Server::start().await;
    for topic in [
        "devices/B/telemetry",
        "devices/A/settings",
        "elsewhere",
        "devices/A/#",
    ] {
        let last_will = v3::LastWill {
            qos: QoS::AtMostOnce,
            retain: false,
            topic: topic.into(),
            message: Bytes::from_static(b"gone"),
        };
        let connect = v3::Connect {
            last_will: Some(last_will),
            ..connect3("A")
        };
        assert_eq!(server.v3().await.refused(connect).await, 5, "{topic}");
    }
}

#[tokio::test]
async fn an_operator_never_meets_a_device_of_the_same_client_id() {
    let server = Server::start().await;
    let mut device = server.device5("A").await;
    let mut operator = server.operator5("A").await;
    device.silent().await;
    operator.silent().await;
    assert_eq!(server.handle.sessions().len(), 2);
}
