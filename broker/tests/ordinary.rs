//! An ordinary client, rumqttc, doing what a device does.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use setpoint_broker::Outcome;
use tokio::time::timeout;

use crate::support::{Answering, PATIENCE, Server, settings_payload};

fn options(server: &Server, name: &str) -> MqttOptions {
    let mut options = MqttOptions::new(name, server.address.ip().to_string(), server.address.port());
    options
        .set_credentials(name, "secret")
        .set_keep_alive(Duration::from_secs(5));
    options
}

#[tokio::test]
async fn rumqttc_does_its_job_over_3_1_1() {
    let server = Server::start().await;
    server.settings("A", 1).await;
    let (client, mut events) = AsyncClient::new(options(&server, "A"), 10);
    client
        .subscribe("devices/A/settings", QoS::AtLeastOnce)
        .await
        .unwrap();
    client
        .publish("devices/A/telemetry", QoS::AtLeastOnce, false, "1")
        .await
        .unwrap();
    client
        .publish("devices/A/telemetry", QoS::ExactlyOnce, false, "2")
        .await
        .unwrap();
    let (mut settings, mut acked, mut completed) = (None, false, false);
    timeout(PATIENCE, async {
        while settings.is_none() || !acked || !completed {
            match events.poll().await.unwrap() {
                Event::Incoming(Packet::Publish(publish)) => settings = Some(publish.payload),
                Event::Incoming(Packet::PubAck(_)) => acked = true,
                Event::Incoming(Packet::PubComp(_)) => completed = true,
                _ => {}
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(settings.unwrap(), settings_payload(1));
    assert_eq!(server.backend.inbound_left(), 2);
}

#[tokio::test]
async fn rumqttc_does_its_job_over_5_0() {
    use rumqttc::v5::{
        AsyncClient, Event, MqttOptions,
        mqttbytes::{QoS, v5::Packet},
    };
    let server = Server::start().await;
    server.settings("A", 1).await;
    let mut options = MqttOptions::new("A", server.address.ip().to_string(), server.address.port());
    options.set_credentials("A", "secret");
    let (client, mut events) = AsyncClient::new(options, 10);
    client
        .subscribe("devices/A/settings", QoS::AtLeastOnce)
        .await
        .unwrap();
    let settings = timeout(PATIENCE, async {
        loop {
            if let Event::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap() {
                return publish.payload;
            }
        }
    });
    assert_eq!(settings.await.unwrap(), settings_payload(1));
}

#[tokio::test]
async fn many_devices_at_once_have_their_settings_and_their_acknowledgements() {
    let server = Server::start().await;
    server.backend.answer(Answering::Held);
    const MANY: usize = 50;
    let mut clients = Vec::new();
    for n in 0..MANY {
        server.settings(&format!("D{n}"), 1).await;
        let (client, events) = AsyncClient::new(options(&server, &format!("D{n}")), 10);
        client
            .subscribe(format!("devices/D{n}/settings"), QoS::AtLeastOnce)
            .await
            .unwrap();
        client
            .publish(format!("devices/D{n}/telemetry"), QoS::AtLeastOnce, false, "1")
            .await
            .unwrap();
        clients.push((client, events));
    }
    let answering = async {
        for _ in 0..MANY {
            server.backend.next_inbound().await;
            crate::support::eventually("it is held", || server.backend.held() > 0).await;
            server.backend.release(Outcome::Accepted);
        }
    };
    let running = futures_util::future::join_all(clients.iter_mut().map(|(_, events)| async {
        let (mut settings, mut acked) = (false, false);
        while !(settings && acked) {
            match events.poll().await.unwrap() {
                Event::Incoming(Packet::Publish(_)) => settings = true,
                Event::Incoming(Packet::PubAck(_)) => acked = true,
                _ => {}
            }
        }
    }));
    timeout(PATIENCE, async { tokio::join!(answering, running) })
        .await
        .unwrap();
}
