//! The end of the server.

use std::time::Duration;

use rmqtt_codec::{types::QoS, v5};
use setpoint_broker::{Outcome, SessionEvent, ShuttingDown};
use setpoint_model::presence::DisconnectReason;

use crate::support::{Answering, PATIENCE, Server, id, settings};

#[tokio::test]
async fn work_in_hand_is_acknowledged_and_everyone_is_told() {
    let server = Server::start().await;
    let mut idle = server.device3("B").await;
    let mut busy = server.device5("A").await;
    server.backend.answer(Answering::Held);
    busy.publish("devices/A/telemetry", "1", QoS::AtLeastOnce, 1)
        .await;
    server.backend.next_inbound().await;
    let edge = server.edge.clone();
    let shutdown = async {
        edge.shutdown(PATIENCE).await;
    };
    let rest = async {
        idle.closed().await;
        // Read no more, but what was read is finished.
        busy.publish("devices/A/telemetry", "2", QoS::AtLeastOnce, 2)
            .await;
        server.backend.release(Outcome::Accepted);
        let v5::Packet::PublishAck(ack) = busy.recv().await else {
            panic!()
        };
        assert_eq!(ack.packet_id, id(1));
        assert_eq!(busy.disconnected().await, 0x8B);
        drop((idle, busy));
    };
    tokio::join!(shutdown, rest);
    assert_eq!(server.backend.held(), 0);
    for _ in 0..2 {
        let ended = server.event(|event| match event {
            SessionEvent::Ended { reason, .. } => Some(reason),
            _ => None,
        });
        assert_eq!(ended.await, DisconnectReason::ServerShutdown);
    }
    assert_eq!(server.handle.publish(settings("A", 1)).await, Err(ShuttingDown));
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn work_that_does_not_end_is_not_waited_for() {
    let server = Server::start().await;
    let mut busy = server.device5("A").await;
    server.backend.answer(Answering::Held);
    busy.publish("devices/A/telemetry", "1", QoS::AtLeastOnce, 1)
        .await;
    server.backend.next_inbound().await;
    let edge = server.edge.clone();
    tokio::join!(edge.shutdown(Duration::from_millis(10)), async {
        assert_eq!(busy.disconnected().await, 0x8B);
        drop(busy);
    });
}
