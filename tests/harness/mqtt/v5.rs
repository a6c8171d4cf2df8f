//! MQTT 5.0.

use std::time::Duration;

use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, ConnectionError, MqttOptions, StateError,
        mqttbytes::{
            QoS,
            v5::{ConnectReturnCode, Filter, Packet, PubAckReason, PublishProperties, SubscribeReasonCode},
        },
    },
};
use tokio::{sync::mpsc, task::AbortHandle};

use super::{Client, Connect, End, Event, Message};
use crate::harness::wait::WAIT;

/// The largest packet that is taken, in bytes: above what the server ever sends.
const MAX_PACKET: u32 = 1024 * 1024;

/// How long a persistent session is kept, in seconds.
const SESSION_EXPIRY: u32 = 3_600;

pub(super) fn start(connect: &Connect, events: mpsc::Sender<Event>) -> (Client, AbortHandle) {
    let mut options = MqttOptions::new(&connect.login.client_id, "127.0.0.1", connect.port);
    options
        .set_credentials(&connect.login.username, &connect.login.password)
        .set_clean_start(connect.clean)
        .set_session_expiry_interval((!connect.clean).then_some(SESSION_EXPIRY))
        .set_receive_maximum(connect.receive_maximum)
        .set_manual_acks(connect.manual_acks)
        .set_max_packet_size(Some(MAX_PACKET))
        .set_connection_timeout(WAIT.as_secs())
        .set_keep_alive(Duration::from_secs(connect.keep_alive.into()));
    let (client, mut connection) = AsyncClient::new(options, 100);
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
    (Client::V5(client), super::super::spawn(run))
}

fn translate(event: rumqttc::v5::Event) -> Option<Event> {
    use rumqttc::v5::Event::{Incoming, Outgoing as Out};
    Some(match event {
        Incoming(Packet::ConnAck(answer)) => Event::Connected {
            session_present: answer.session_present,
        },
        Incoming(Packet::SubAck(answer)) => {
            Event::Subscribed(answer.return_codes.iter().map(subscribe_code).collect())
        }
        Incoming(Packet::UnsubAck(_)) => Event::Unsubscribed,
        Incoming(Packet::PubAck(answer)) => Event::Acknowledged {
            packet: answer.pkid,
            code: publish_code(answer.reason),
        },
        Incoming(Packet::Publish(message)) => Event::Message(Message {
            topic: String::from_utf8_lossy(&message.topic).into_owned(),
            payload: message.payload,
            retain: message.retain,
            qos: message.qos as u8,
            correlation: message
                .properties
                .and_then(|properties| properties.correlation_data),
        }),
        Incoming(Packet::Disconnect(goodbye)) => Event::Ended(End::Disconnected(goodbye.reason_code as u8)),
        // QoS 0 has the packet id 0.
        Out(Outgoing::Publish(packet)) if packet != 0 => Event::Sent(packet),
        Out(Outgoing::Disconnect) => Event::Ended(End::Closed("we said DISCONNECT".to_owned())),
        _ => return None,
    })
}

fn end(error: ConnectionError) -> End {
    match error {
        ConnectionError::ConnectionRefused(code) => End::Refused(connect_code(code)),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            End::Disconnected(reason_code as u8)
        }
        other => End::Closed(other.to_string()),
    }
}

/// MQTT 5.0, section 3.2.2.2.
fn connect_code(code: ConnectReturnCode) -> u8 {
    use ConnectReturnCode as Code;
    match code {
        Code::Success => 0,
        Code::UnspecifiedError => 0x80,
        Code::MalformedPacket => 0x81,
        Code::ProtocolError => 0x82,
        Code::ClientIdentifierNotValid => 0x85,
        Code::BadUserNamePassword => 0x86,
        Code::NotAuthorized => 0x87,
        Code::ServerUnavailable => 0x88,
        Code::ServerBusy => 0x89,
        Code::Banned => 0x8a,
        Code::QuotaExceeded => 0x97,
        Code::ConnectionRateExceeded => 0x9f,
        other => panic!("an unexpected CONNACK: {other:?}"),
    }
}

/// MQTT 5.0, section 3.9.3.
fn subscribe_code(code: &SubscribeReasonCode) -> u8 {
    use SubscribeReasonCode as Code;
    match code {
        Code::Success(qos) => *qos as u8,
        Code::Failure | Code::Unspecified => 0x80,
        Code::ImplementationSpecific => 0x83,
        Code::NotAuthorized => 0x87,
        Code::TopicFilterInvalid => 0x8f,
        Code::PkidInUse => 0x91,
        Code::QuotaExceeded => 0x97,
        Code::SharedSubscriptionsNotSupported => 0x9e,
        Code::SubscriptionIdNotSupported => 0xa1,
        Code::WildcardSubscriptionsNotSupported => 0xa2,
    }
}

/// MQTT 5.0, section 3.4.2.1.
fn publish_code(reason: PubAckReason) -> u8 {
    use PubAckReason as Reason;
    match reason {
        Reason::Success => 0,
        Reason::NoMatchingSubscribers => 0x10,
        Reason::UnspecifiedError => 0x80,
        Reason::ImplementationSpecificError => 0x83,
        Reason::NotAuthorized => 0x87,
        Reason::TopicNameInvalid => 0x90,
        Reason::PacketIdentifierInUse => 0x91,
        Reason::QuotaExceeded => 0x97,
        Reason::PayloadFormatInvalid => 0x99,
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
        .map(|filter| Filter::new((*filter).to_owned(), QoS::AtLeastOnce));
    client.subscribe_many(filters).await.expect("the client");
}

pub(super) async fn publish(client: &AsyncClient, topic: &str, level: u8, payload: Vec<u8>) -> bool {
    let sent = client.publish(topic.to_owned(), qos(level), false, payload);
    sent.await.is_ok()
}

pub(super) async fn request(
    client: &AsyncClient,
    topic: &str,
    payload: Vec<u8>,
    respond_to: &str,
    correlation: &str,
) {
    let properties = PublishProperties {
        response_topic: Some(respond_to.to_owned()),
        correlation_data: Some(correlation.to_owned().into()),
        ..PublishProperties::default()
    };
    let sent = client.publish_with_properties(topic.to_owned(), QoS::AtLeastOnce, false, payload, properties);
    sent.await.expect("the client");
}
