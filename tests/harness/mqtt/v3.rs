//! MQTT 3.1.1.

use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, MqttOptions, Outgoing, Packet, QoS, SubscribeFilter, SubscribeReasonCode,
};
use tokio::{sync::mpsc, task::AbortHandle};

use super::{Client, Connect, End, Event, Message};
use crate::harness::wait::WAIT;

/// The largest packet, in bytes: above the server's own limit, so that it is the server who refuses.
const MAX_PACKET: usize = 1024 * 1024;

pub(super) fn start(connect: &Connect, events: mpsc::Sender<Event>) -> (Client, AbortHandle) {
    let mut options = MqttOptions::new(&connect.login.client_id, "127.0.0.1", connect.port);
    options
        .set_credentials(&connect.login.username, &connect.login.password)
        .set_clean_session(connect.clean)
        .set_manual_acks(connect.manual_acks)
        .set_max_packet_size(MAX_PACKET, MAX_PACKET)
        .set_keep_alive(Duration::from_secs(connect.keep_alive.into()));
    let (client, mut connection) = AsyncClient::new(options, 100);
    let mut network = connection.network_options();
    network.set_connection_timeout(WAIT.as_secs());
    connection.set_network_options(network);
    let run = async move {
        loop {
            let (told, over) = match connection.poll().await {
                Ok(event) => (vec![event], None),
                // What came in together with the end came before it.
                Err(error) => (connection.state.events.drain(..).collect(), Some(end(error))),
            };
            let told = told.into_iter().filter_map(translate);
            for event in told.chain(over.map(Event::Ended)) {
                let last = matches!(event, Event::Ended(_));
                if events.send(event).await.is_err() || last {
                    return;
                }
            }
        }
    };
    (Client::V3(client), super::super::spawn(run))
}

fn translate(event: rumqttc::Event) -> Option<Event> {
    use rumqttc::Event::{Incoming, Outgoing as Out};
    Some(match event {
        Incoming(Packet::ConnAck(answer)) => Event::Connected {
            session_present: answer.session_present,
        },
        Incoming(Packet::SubAck(answer)) => {
            let code = |code: &SubscribeReasonCode| match code {
                SubscribeReasonCode::Success(qos) => *qos as u8,
                SubscribeReasonCode::Failure => 0x80,
            };
            Event::Subscribed(answer.return_codes.iter().map(code).collect())
        }
        Incoming(Packet::UnsubAck(_)) => Event::Unsubscribed,
        Incoming(Packet::PubAck(answer)) => Event::Acknowledged {
            packet: answer.pkid,
            code: 0,
        },
        Incoming(Packet::Publish(message)) => Event::Message(Message {
            topic: message.topic,
            payload: message.payload,
            retain: message.retain,
            qos: message.qos as u8,
            correlation: None,
        }),
        // QoS 0 has the packet id 0.
        Out(Outgoing::Publish(packet)) if packet != 0 => Event::Sent(packet),
        Out(Outgoing::Disconnect) => Event::Ended(End::Closed("we said DISCONNECT".to_owned())),
        _ => return None,
    })
}

fn end(error: ConnectionError) -> End {
    match error {
        ConnectionError::ConnectionRefused(code) => End::Refused(code as u8),
        other => End::Closed(other.to_string()),
    }
}

fn qos(level: u8) -> QoS {
    match level {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

pub(super) async fn subscribe(client: &AsyncClient, filters: &[&str]) {
    let filters = filters
        .iter()
        .map(|filter| SubscribeFilter::new((*filter).to_owned(), QoS::AtLeastOnce));
    client.subscribe_many(filters).await.expect("the client");
}

pub(super) async fn publish(client: &AsyncClient, topic: &str, level: u8, payload: Vec<u8>) -> bool {
    let sent = client.publish(topic, qos(level), false, payload);
    sent.await.is_ok()
}
