//! One MQTT connection of a device through rumqttc, 3.1.1 and 5.0 alike.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream, stream::BoxStream};
use rumqttc::{Outgoing, v5};

use crate::device::{DeviceOptions, MqttVersion, Session};

/// Unacknowledged publishes a device may have. rumqttc allocates for each of them, and its default for 5.0
/// (65,535) would take megabytes a device.
const IN_FLIGHT: u16 = 8;
/// Requests waiting for the connection; what doesn't fit stays with the device.
const REQUESTS: usize = 8;
/// The largest packet accepted, in bytes: the server's own limit (DESIGN section 7).
const MAX_PACKET: usize = 256 * 1024;
/// To dial, and to wait for CONNACK, in seconds. Long enough for a storm of ten thousand.
const CONNECT_TIMEOUT: u64 = 20;
/// Between two PINGREQ, with or without other traffic.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long the server keeps a persistent session of 5.0, in seconds: a day.
const SESSION_EXPIRY: u32 = 86_400;

/// What a connection tells.
#[derive(Debug)]
pub(crate) enum Heard {
    /// CONNACK.
    Connected { session_present: bool },
    /// SUBACK; whether every filter was granted.
    Subscribed { granted: bool },
    /// A message.
    Message { topic: String, payload: Bytes },
    /// A publish was written, with this packet id (0 for QoS 0).
    Sent { id: u16 },
    /// PUBACK, with the reason of a refusal (5.0 alone).
    Acknowledged { id: u16, refused: Option<String> },
    /// DISCONNECT was written.
    SaidGoodbye,
    /// Something that needs no answer.
    Nothing,
    /// The connection ended; polling on dials again.
    Lost(Loss),
}

/// Why a connection ended or couldn't be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The server refused the credential.
    NotAuthorized,
    /// Anything else, in words.
    Other(String),
}

enum Client {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// A connection. It dials when first polled, and again when polled after [`Heard::Lost`].
pub(crate) struct Link {
    client: Client,
    heard: BoxStream<'static, Heard>,
}

impl Link {
    pub(crate) fn new(options: &DeviceOptions) -> Self {
        match options.version {
            MqttVersion::V3 => Self::v3(options),
            MqttVersion::V5 => Self::v5(options),
        }
    }

    fn v3(options: &DeviceOptions) -> Self {
        let (host, port) = options.endpoint.broker_address();
        let mut mqtt = rumqttc::MqttOptions::new(options.client_id(), host, port);
        if let Some(token) = &options.token {
            mqtt.set_credentials(options.serial.as_str(), token.reveal());
        }
        mqtt.set_transport(options.endpoint.transport())
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_session(options.session == Session::Clean)
            .set_max_packet_size(MAX_PACKET, MAX_PACKET)
            .set_inflight(IN_FLIGHT);
        let (client, mut events) = rumqttc::AsyncClient::new(mqtt, REQUESTS);
        events.network_options.set_connection_timeout(CONNECT_TIMEOUT);
        events.network_options.set_tcp_nodelay(true);
        // rumqttc sets room for a hundred events aside: a quarter of all that a device holds.
        events.state.events = VecDeque::new();
        // The future of a poll outlives a `select!` inside the stream, so nothing half done is dropped.
        let heard = stream::unfold(Box::new(events), |mut events| async move {
            let heard = match events.poll().await {
                Ok(event) => heard_v3(event),
                Err(error) => Heard::Lost(loss_v3(&error)),
            };
            Some((heard, events))
        });
        Self {
            client: Client::V3(client),
            heard: heard.boxed(),
        }
    }

    fn v5(options: &DeviceOptions) -> Self {
        let (host, port) = options.endpoint.broker_address();
        let mut mqtt = v5::MqttOptions::new(options.client_id(), host, port);
        let persistent = options.session == Session::Persistent;
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        mqtt.set_network_options(network);
        if let Some(token) = &options.token {
            mqtt.set_credentials(options.serial.as_str(), token.reveal());
        }
        mqtt.set_transport(options.endpoint.transport())
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(!persistent)
            .set_session_expiry_interval(persistent.then_some(SESSION_EXPIRY))
            .set_max_packet_size(u32::try_from(MAX_PACKET).ok())
            .set_connection_timeout(CONNECT_TIMEOUT)
            .set_outgoing_inflight_upper_limit(IN_FLIGHT);
        let (client, mut events) = v5::AsyncClient::new(mqtt, REQUESTS);
        events.state.events = VecDeque::new();
        let heard = stream::unfold(Box::new(events), |mut events| async move {
            let heard = match events.poll().await {
                Ok(event) => heard_v5(event),
                Err(error) => Heard::Lost(loss_v5(&error)),
            };
            Some((heard, events))
        });
        Self {
            client: Client::V5(client),
            heard: heard.boxed(),
        }
    }

    /// The next thing the connection tells. Cancel safe.
    pub(crate) async fn next(&mut self) -> Heard {
        self.heard
            .next()
            .await
            .unwrap_or(Heard::Lost(Loss::Other("the connection ended".to_owned())))
    }

    /// Subscribes at QoS 1; false if the queue is full.
    pub(crate) fn subscribe(&self, filters: impl IntoIterator<Item = String>) -> bool {
        match &self.client {
            Client::V3(client) => client
                .try_subscribe_many(
                    filters
                        .into_iter()
                        .map(|path| rumqttc::SubscribeFilter::new(path, rumqttc::QoS::AtLeastOnce)),
                )
                .is_ok(),
            Client::V5(client) => client
                .try_subscribe_many(
                    filters
                        .into_iter()
                        .map(|path| v5::mqttbytes::v5::Filter::new(path, v5::mqttbytes::QoS::AtLeastOnce)),
                )
                .is_ok(),
        }
    }

    /// Queues a publish; false if the queue is full.
    pub(crate) fn publish(&self, topic: String, at_least_once: bool, payload: Vec<u8>) -> bool {
        match &self.client {
            Client::V3(client) => {
                let qos = if at_least_once {
                    rumqttc::QoS::AtLeastOnce
                } else {
                    rumqttc::QoS::AtMostOnce
                };
                client.try_publish(topic, qos, false, payload).is_ok()
            }
            Client::V5(client) => {
                let qos = if at_least_once {
                    v5::mqttbytes::QoS::AtLeastOnce
                } else {
                    v5::mqttbytes::QoS::AtMostOnce
                };
                client.try_publish(topic, qos, false, payload).is_ok()
            }
        }
    }

    /// Queues a DISCONNECT; false if the queue is full.
    pub(crate) fn say_goodbye(&self) -> bool {
        match &self.client {
            Client::V3(client) => client.try_disconnect().is_ok(),
            Client::V5(client) => client.try_disconnect().is_ok(),
        }
    }
}

fn heard_v3(event: rumqttc::Event) -> Heard {
    use rumqttc::{Event, Packet, SubscribeReasonCode};
    match event {
        Event::Incoming(Packet::ConnAck(connack)) => Heard::Connected {
            session_present: connack.session_present,
        },
        Event::Incoming(Packet::SubAck(suback)) => Heard::Subscribed {
            granted: suback
                .return_codes
                .iter()
                .all(|code| matches!(code, SubscribeReasonCode::Success(_))),
        },
        Event::Incoming(Packet::Publish(publish)) => Heard::Message {
            topic: publish.topic,
            payload: publish.payload,
        },
        Event::Incoming(Packet::PubAck(puback)) => Heard::Acknowledged {
            id: puback.pkid,
            refused: None,
        },
        Event::Outgoing(outgoing) => heard_outgoing(&outgoing),
        Event::Incoming(_) => Heard::Nothing,
    }
}

fn heard_v5(event: v5::Event) -> Heard {
    use v5::{
        Event,
        mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode},
    };
    match event {
        Event::Incoming(Packet::ConnAck(connack)) => Heard::Connected {
            session_present: connack.session_present,
        },
        Event::Incoming(Packet::SubAck(suback)) => Heard::Subscribed {
            granted: suback
                .return_codes
                .iter()
                .all(|code| matches!(code, SubscribeReasonCode::Success(_))),
        },
        Event::Incoming(Packet::Publish(publish)) => Heard::Message {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload,
        },
        Event::Incoming(Packet::PubAck(puback)) => {
            let well = matches!(
                puback.reason,
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers
            );
            Heard::Acknowledged {
                id: puback.pkid,
                refused: (!well).then(|| format!("{:?}", puback.reason)),
            }
        }
        Event::Outgoing(outgoing) => heard_outgoing(&outgoing),
        Event::Incoming(_) => Heard::Nothing,
    }
}

fn heard_outgoing(outgoing: &Outgoing) -> Heard {
    match outgoing {
        Outgoing::Publish(id) => Heard::Sent { id: *id },
        Outgoing::Disconnect => Heard::SaidGoodbye,
        _ => Heard::Nothing,
    }
}

fn loss_v3(error: &rumqttc::ConnectionError) -> Loss {
    use rumqttc::{ConnectReturnCode as Code, ConnectionError};
    match error {
        ConnectionError::ConnectionRefused(Code::NotAuthorized | Code::BadUserNamePassword) => {
            Loss::NotAuthorized
        }
        error => Loss::Other(plain(error)),
    }
}

fn loss_v5(error: &v5::ConnectionError) -> Loss {
    use v5::{ConnectionError, StateError, mqttbytes::v5::ConnectReturnCode as Code};
    let refused = |code: &Code| matches!(code, Code::NotAuthorized | Code::BadUserNamePassword);
    match error {
        ConnectionError::ConnectionRefused(code) if refused(code) => Loss::NotAuthorized,
        ConnectionError::MqttState(StateError::ConnFail { reason }) if refused(reason) => Loss::NotAuthorized,
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            Loss::Other(format!("the server said DISCONNECT: {reason_code:?}"))
        }
        error => Loss::Other(plain(error)),
    }
}

/// An error of rumqttc without the names of the layers it passed through.
fn plain(error: &impl std::error::Error) -> String {
    const LAYERS: [&str; 5] = [
        "Mqtt state: ",
        "Mqtt serialization/deserialization error: ",
        "I/O: ",
        "IO: ",
        "Io error: ",
    ];
    let text = error.to_string();
    let mut rest = text.as_str();
    while let Some(inner) = LAYERS.iter().find_map(|layer| rest.strip_prefix(layer)) {
        rest = inner;
    }
    rest.to_owned()
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_plainly() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(
            loss_v3(&rumqttc::ConnectionError::Io(refused)),
            Loss::Other("connection refused".to_owned())
        );
        let aborted = rumqttc::ConnectionError::MqttState(rumqttc::StateError::ConnectionAborted);
        assert_eq!(
            loss_v3(&aborted),
            Loss::Other("Connection closed by peer abruptly".to_owned())
        );
        let replaced = v5::StateError::ServerDisconnect {
            reason_code: v5::mqttbytes::v5::DisconnectReasonCode::SessionTakenOver,
            reason_string: None,
        };
        let told = Loss::Other("the server said DISCONNECT: SessionTakenOver".to_owned());
        assert_eq!(loss_v5(&v5::ConnectionError::MqttState(replaced)), told);
    }
}
