//! An MQTT client in either version, from whose events a test picks the one it waits for.

mod connect;
mod v3;
mod v5;

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::Value;
use tokio::{sync::mpsc, task::AbortHandle};

use super::wait::within;

pub use connect::Connect;

/// The protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V3,
    /// MQTT 5.0.
    V5,
}

/// Both.
pub const VERSIONS: [Version; 2] = [Version::V3, Version::V5];

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// Its RETAIN flag.
    pub retain: bool,
    /// Its QoS.
    pub qos: u8,
    /// Its correlation data (MQTT 5).
    pub correlation: Option<Bytes>,
}

impl Message {
    /// The payload as JSON.
    ///
    /// # Panics
    /// When it isn't.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload)
            .unwrap_or_else(|error| panic!("{error}: {:?} on {}", self.payload, self.topic))
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// CONNACK with this code.
    Refused(u8),
    /// DISCONNECT from the server with this reason code (MQTT 5).
    Disconnected(u8),
    /// The connection closed without a word; the text is for people.
    Closed(String),
}

#[derive(Debug)]
enum Event {
    Connected {
        session_present: bool,
    },
    Subscribed(Vec<u8>),
    Unsubscribed,
    /// A QoS 1 message went out with this packet id.
    Sent(u16),
    Acknowledged {
        packet: u16,
        code: u8,
    },
    Message(Message),
    Ended(End),
}

#[derive(Debug, Clone)]
enum Client {
    V3(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

/// A connected client. Dropping it closes the socket without a DISCONNECT.
#[derive(Debug)]
pub struct Mqtt {
    /// Its protocol.
    pub version: Version,
    client: Client,
    inbox: mpsc::Receiver<Event>,
    waiting: VecDeque<Event>,
    /// Whether the server had kept its session.
    pub session_present: bool,
    task: AbortHandle,
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mqtt {
    /// Takes the first event that `wanted` accepts; the others stay, in their order.
    async fn pick<T>(
        &mut self,
        what: impl std::fmt::Display,
        mut wanted: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, End> {
        for index in 0..self.waiting.len() {
            if let Some(found) = wanted(&self.waiting[index]) {
                self.waiting.remove(index);
                return Ok(found);
            }
        }
        let over = self.waiting.iter().find_map(|event| match event {
            Event::Ended(end) => Some(end.clone()),
            _ => None,
        });
        if let Some(end) = over {
            return Err(end);
        }
        loop {
            let event = within(&what, self.inbox.recv()).await;
            let event = event.unwrap_or_else(|| panic!("the client is gone, waiting for {what}"));
            if let Some(found) = wanted(&event) {
                return Ok(found);
            }
            if let Event::Ended(end) = &event {
                let end = end.clone();
                self.waiting.push_back(event);
                return Err(end);
            }
            self.waiting.push_back(event);
        }
    }

    #[track_caller]
    fn must<T>(what: &str, outcome: Result<T, End>) -> T {
        outcome.unwrap_or_else(|end| panic!("the connection ended, waiting for {what}: {end:?}"))
    }

    /// Subscribes at QoS 1, and gives the SUBACK's codes.
    pub async fn subscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        match &self.client {
            Client::V3(client) => v3::subscribe(client, filters).await,
            Client::V5(client) => v5::subscribe(client, filters).await,
        }
        let answer = self.pick("SUBACK", |event| match event {
            Event::Subscribed(codes) => Some(codes.clone()),
            _ => None,
        });
        Self::must("SUBACK", answer.await)
    }

    /// Unsubscribes, and waits for the UNSUBACK.
    pub async fn unsubscribe(&mut self, filter: &str) {
        match &self.client {
            Client::V3(client) => client.unsubscribe(filter).await.expect("the client"),
            Client::V5(client) => client.unsubscribe(filter).await.expect("the client"),
        }
        let answer = self.pick("UNSUBACK", |event| {
            matches!(event, Event::Unsubscribed).then_some(())
        });
        Self::must("UNSUBACK", answer.await);
    }

    /// Publishes without waiting for anything.
    pub async fn send(&self, topic: &str, qos: u8, payload: impl Into<Vec<u8>>) {
        assert!(self.send_or_ended(topic, qos, payload).await, "the client");
    }

    /// The same; `false` when the connection has ended.
    pub async fn send_or_ended(&self, topic: &str, qos: u8, payload: impl Into<Vec<u8>>) -> bool {
        match &self.client {
            Client::V3(client) => v3::publish(client, topic, qos, payload.into()).await,
            Client::V5(client) => v5::publish(client, topic, qos, payload.into()).await,
        }
    }

    /// Publishes a request with a response topic and correlation data (MQTT 5).
    ///
    /// # Panics
    /// In MQTT 3.1.1, which has neither.
    pub async fn request(
        &self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
        respond_to: &str,
        correlation: &str,
    ) {
        match &self.client {
            Client::V3(_) => panic!("MQTT 3.1.1 has no response topic"),
            Client::V5(client) => v5::request(client, topic, payload.into(), respond_to, correlation).await,
        }
    }

    /// Publishes at QoS 1 and waits for its PUBACK: the reason code, 0 in 3.1.1.
    pub async fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>) -> u8 {
        self.send(topic, 1, payload).await;
        let sent = self.sent().await;
        let answer = self.pick(format!("the PUBACK of {topic}"), |event| match event {
            Event::Acknowledged { packet, code } if *packet == sent => Some(*code),
            _ => None,
        });
        Self::must("PUBACK", answer.await)
    }

    /// The packet id of the next QoS 1 message that went out, in their order.
    pub async fn sent(&mut self) -> u16 {
        let sent = self.pick("the message to go out", |event| match event {
            Event::Sent(packet) => Some(*packet),
            _ => None,
        });
        Self::must("PUBLISH", sent.await)
    }

    /// The same; `None` when the connection has ended.
    pub async fn sent_or_ended(&mut self) -> Option<u16> {
        let sent = self.pick("the message to go out", |event| match event {
            Event::Sent(packet) => Some(*packet),
            _ => None,
        });
        sent.await.ok()
    }

    /// The packet id of the next PUBACK; `None` when the connection has ended.
    pub async fn acknowledged(&mut self) -> Option<u16> {
        let answer = self.pick("a PUBACK", |event| match event {
            Event::Acknowledged { packet, .. } => Some(*packet),
            _ => None,
        });
        answer.await.ok()
    }

    /// The PUBACKs that have come, without waiting for any.
    pub fn acknowledged_so_far(&mut self) -> usize {
        while let Ok(event) = self.inbox.try_recv() {
            self.waiting.push_back(event);
        }
        self.waiting
            .iter()
            .filter(|event| matches!(event, Event::Acknowledged { .. }))
            .count()
    }

    /// The next message on `topic`.
    pub async fn next(&mut self, topic: &str) -> Message {
        let message = self.pick(format!("a message on {topic}"), |event| match event {
            Event::Message(message) if message.topic == topic => Some(message.clone()),
            _ => None,
        });
        Self::must(topic, message.await)
    }

    /// The next message on any topic.
    pub async fn next_of_any(&mut self) -> Message {
        let message = self.pick("a message", |event| match event {
            Event::Message(message) => Some(message.clone()),
            _ => None,
        });
        Self::must("a message", message.await)
    }

    /// How the connection ends.
    pub async fn ended(&mut self) -> End {
        let end = self.pick("the end of the connection", |event| match event {
            Event::Ended(end) => Some(end.clone()),
            _ => None,
        });
        end.await.unwrap_or_else(|end| end)
    }

    /// Whether the connection is still there, as far as is known without waiting.
    pub fn is_connected(&mut self) -> bool {
        while let Ok(event) = self.inbox.try_recv() {
            self.waiting.push_back(event);
        }
        !self.waiting.iter().any(|event| matches!(event, Event::Ended(_)))
    }

    /// Says DISCONNECT, and waits until the connection is closed.
    pub async fn disconnect(mut self) {
        match &self.client {
            Client::V3(client) => client.disconnect().await.expect("the client"),
            Client::V5(client) => client.disconnect().await.expect("the client"),
        }
        self.ended().await;
    }
}
