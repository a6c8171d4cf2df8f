//! Limits that end a session which stays beyond them.

use super::*;

#[tokio::test]
async fn too_many_bytes_per_second_for_too_long_end_the_session() {
    let server = Server::with(|config| {
        config.max_bytes_per_second = 10_000;
        config.rate_patience = Duration::from_millis(300);
    })
    .await;
    let mut healthy = server.device3("B").await;
    let client = server.device5("A").await;
    let (mut reader, mut writer) = client.stream.into_split();
    let mut bytes = bytes::BytesMut::new();
    let message = publish("devices/A/telemetry", &"x".repeat(1_000), QoS::AtMostOnce, 0);
    let packet = v5::Packet::Publish(Box::new(message));
    tokio_util::codec::Encoder::encode(&mut v5::Codec::new(0, 0), packet, &mut bytes).unwrap();
    let flood = async { while writer.write_all(&bytes).await.is_ok() {} };
    let closed = async {
        let mut told = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut told).await;
    };
    tokio::select! {
        () = flood => {}
        () = closed => {}
    }
    assert_eq!(ended(&server).await, DisconnectReason::LimitExceeded);
    assert_eq!(limit(&server, "rate_ended"), 1);
    healthy.silent().await;
}

#[tokio::test]
async fn forbidden_publishes_within_a_minute() {
    let server = Server::with(|config| config.max_denied_per_minute = 2).await;
    let mut client = server.device3("A").await;
    for _ in 0..2 {
        client
            .publish("devices/B/telemetry", "1", QoS::AtMostOnce, 0)
            .await;
    }
    assert_eq!(ended(&server).await, DisconnectReason::NotAuthorized);
    assert_eq!(limit(&server, "denied"), 1);
}
