//! What is said for a client that goes without a word.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rmqtt_codec::{types::QoS, v3, v5};

use crate::support::{Server, V5, connect3, connect5, text};

fn will5(delay: Option<u32>) -> v5::LastWill {
    v5::LastWill {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "devices/A/telemetry".into(),
        message: Bytes::from_static(b"gone"),
        will_delay_interval_sec: delay,
        correlation_data: None,
        message_expiry_interval: None,
        content_type: Some("text/plain".into()),
        user_properties: vec![("why".into(), "will".into())],
        is_utf8_payload: Some(true),
        response_topic: None,
    }
}

async fn with_will(server: &Server, delay: Option<u32>, expiry: u32) -> V5 {
    let mut client = server.v5().await;
    let last_will = Some(will5(delay));
    let connect = v5::Connect {
        last_will,
        session_expiry_interval_secs: expiry,
        clean_start: false,
        ..connect5("A")
    };
    client.welcome(connect).await;
    client
}

async fn watcher(server: &Server) -> V5 {
    let mut watcher = server.operator5("watch").await;
    watcher.subscribe("devices/A/telemetry", QoS::ExactlyOnce).await;
    watcher
}

#[tokio::test]
async fn a_will_is_said_when_the_connection_breaks() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    drop(with_will(&server, None, 0).await);
    let said = watcher.message().await;
    assert_eq!(
        (text(&said.payload), said.qos, said.retain),
        ("gone", QoS::AtLeastOnce, false)
    );
    let properties = said.properties.unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
    assert_eq!(properties.user_properties.len(), 1);
    // The backend hears it as any other message.
    assert_eq!(server.backend.next_inbound().await.payload, "gone");
    // It was retained.
    watcher.subscribe("devices/A/telemetry", QoS::AtMostOnce).await;
    assert!(watcher.message().await.retain);
}

#[tokio::test]
async fn a_will_is_said_in_3_1_1_after_a_breach_and_a_silence() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    let last_will = v3::LastWill {
        qos: QoS::ExactlyOnce,
        retain: false,
        topic: "devices/A/telemetry".into(),
        message: Bytes::from_static(b"gone"),
    };
    let connect = v3::Connect {
        last_will: Some(last_will),
        keep_alive: 1,
        ..connect3("A")
    };
    let mut breaks = server.v3().await;
    breaks.welcome(connect.clone()).await;
    breaks.raw(&[0xF0, 0]).await;
    assert_eq!(text(&watcher.message().await.payload), "gone");
    let mut silent = server.v3().await;
    silent.welcome(connect).await;
    assert_eq!(watcher.message().await.qos, QoS::ExactlyOnce);
    silent.closed().await;
}

#[tokio::test]
async fn a_clean_disconnect_takes_the_will_along() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    with_will(&server, None, 0).await.disconnect().await;
    let mut keeps = with_will(&server, None, 0).await;
    watcher.silent().await;
    let reason_code = v5::DisconnectReasonCode::DisconnectWithWillMessage;
    keeps
        .send(v5::Packet::Disconnect(v5::Disconnect {
            reason_code,
            ..Default::default()
        }))
        .await;
    assert_eq!(text(&watcher.message().await.payload), "gone");
}

#[tokio::test]
async fn a_delayed_will_waits_and_is_not_said_if_the_client_is_back() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    drop(with_will(&server, Some(3), 60).await);
    let start = Instant::now();
    watcher.silent().await;
    let back = with_will(&server, Some(3), 60).await;
    watcher.silent().await;
    drop(back);
    assert_eq!(text(&watcher.message().await.payload), "gone");
    assert!(start.elapsed() >= Duration::from_secs(3));
    // Once only, though two timers ran.
    watcher.silent().await;
}

#[tokio::test]
async fn a_delayed_will_is_said_at_once_when_the_session_ends() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    // With its expiry, or without any.
    drop(with_will(&server, Some(3_600), 0).await);
    assert_eq!(text(&watcher.message().await.payload), "gone");
    drop(with_will(&server, Some(3_600), 1).await);
    assert_eq!(text(&watcher.message().await.payload), "gone");
    // With a clean start.
    drop(with_will(&server, Some(3_600), 3_600).await);
    let ended =
        server.event(|event| matches!(event, setpoint_broker::SessionEvent::Ended { .. }).then_some(()));
    ended.await;
    let _clean = server.device5("A").await;
    assert_eq!(text(&watcher.message().await.payload), "gone");
}
