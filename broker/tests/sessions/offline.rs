//! The bounds of what waits for a device that is away.

use super::*;

const FULL: &str = "setpoint_mqtt_messages_dropped_total{reason=\"offline_queue_full\"}";

#[tokio::test]
async fn what_waits_is_bounded_by_count_and_bytes() {
    let server = Server::with(|config| {
        config.offline_queue_messages = 5;
        config.offline_queue_bytes = 2_000;
    })
    .await;
    away(&server).await;
    for n in 1..=8 {
        command(&server, &n.to_string(), QoS::AtLeastOnce).await;
    }
    server.settled().await;
    let mut client = back(&server).await;
    for n in 4..=8 {
        assert_eq!(text(&client.message().await.payload), n.to_string());
    }
    client.silent().await;
    client.disconnect().await;
    gone(&server).await;
    let large = "x".repeat(1_200);
    for n in 1..=3 {
        command(&server, &format!("{n}{large}"), QoS::AtLeastOnce).await;
    }
    server.settled().await;
    let mut client = back(&server).await;
    assert!(text(&client.message().await.payload).starts_with('3'));
    client.silent().await;
    assert_eq!(
        server.metric("setpoint_mqtt_messages_dropped_total{reason=\"offline_queue_full\"}"),
        5
    );
}

#[tokio::test]
async fn what_waits_is_bounded_by_age() {
    let server = Server::with(|config| config.offline_queue_age = Duration::ZERO).await;
    away(&server).await;
    command(&server, "1", QoS::AtLeastOnce).await;
    command(&server, "2", QoS::AtLeastOnce).await;
    server.settled().await;
    let mut client = back(&server).await;
    client.silent().await;
    assert_eq!(
        server.metric("setpoint_mqtt_messages_dropped_total{reason=\"too_old\"}"),
        2
    );
}

/// Connects two clients of the device with kept sessions, and lets them go.
async fn both_away(server: &Server) {
    for client_id in ["A", "A:second"] {
        let mut client = server.v3().await;
        client.welcome(kept_as(client_id)).await;
        client.subscribe("devices/A/commands", QoS::AtLeastOnce).await;
        client.disconnect().await;
        gone(server).await;
    }
}

fn kept_as(client_id: &str) -> v3::Connect {
    v3::Connect {
        client_id: client_id.into(),
        ..kept3("A")
    }
}

/// What waited for each of the two clients, by the first letter of the payload.
async fn waited(server: &Server) -> Vec<String> {
    let mut waited = Vec::new();
    for client_id in ["A", "A:second"] {
        let mut client = server.v3().await;
        assert!(client.welcome(kept_as(client_id)).await);
        // Behind everything that waited.
        let end = format!("end of {client_id}");
        command(server, &end, QoS::AtLeastOnce).await;
        let mut letters = String::new();
        loop {
            let payload = client.message().await.payload;
            match text(&payload) {
                payload if payload == end => break,
                payload if payload.starts_with("end") => {}
                payload => letters.push(payload.chars().next().unwrap()),
            }
        }
        client.disconnect().await;
        gone(server).await;
        waited.push(letters);
    }
    waited
}

#[tokio::test]
async fn the_bounds_are_of_the_device_over_all_of_its_sessions() {
    let server = Server::with(|config| config.offline_queue_messages = 5).await;
    both_away(&server).await;
    for n in 1..=8 {
        command(&server, &n.to_string(), QoS::AtLeastOnce).await;
    }
    server.settled().await;
    assert_eq!(server.metric(FULL), 11, "five of sixteen are kept");
    let server = Server::with(|config| config.offline_queue_bytes = 2_500).await;
    both_away(&server).await;
    let large = "x".repeat(1_000);
    for n in 1..=3 {
        command(&server, &format!("{n}{large}"), QoS::AtLeastOnce).await;
    }
    server.settled().await;
    assert_eq!(waited(&server).await, ["3", "3"], "the oldest went first");
    assert!(server.metric(FULL) >= 4);
}

#[tokio::test]
async fn the_oldest_of_all_sessions_goes_first() {
    let server = Server::with(|config| config.offline_queue_messages = 4).await;
    both_away(&server).await;
    let mut first = server.v3().await;
    first.welcome(kept_as("A")).await;
    // Old ones for the second alone, for the first takes them at once.
    for n in 1..=3 {
        command(&server, &n.to_string(), QoS::AtLeastOnce).await;
        assert_eq!(first.message().await.payload, n.to_string());
    }
    first.disconnect().await;
    gone(&server).await;
    command(&server, "4", QoS::AtLeastOnce).await;
    command(&server, "5", QoS::AtLeastOnce).await;
    server.settled().await;
    assert_eq!(
        server.metric(FULL),
        3,
        "1, 2 and 3 gave way to 4 and 5, twice each"
    );
    let mut first = server.v3().await;
    assert!(first.welcome(kept_as("A")).await);
    assert_eq!(first.message().await.payload, "4");
    assert_eq!(first.message().await.payload, "5");
    first.silent().await;
}
