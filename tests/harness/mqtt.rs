//! An MQTT client in either version, from whose events a test picks the one it waits for.

mod v3;
mod v5;

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::Value;
use tokio::{sync::mpsc, task::AbortHandle};

use super::{mosquitto::Login, wait::within};

/// Events that may wait for the test; no test has near as many.
const EVENTS: usize = 100_000;

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
        reason: Option<String>,
    },
    Message(Message),
    Ended(End),
}

/// A client to be connected.
#[derive(Debug, Clone)]
pub struct Connect {
    port: u16,
    version: Version,
    login: Login,
    clean: bool,
    manual_acks: bool,
    keep_alive: u16,
    receive_maximum: Option<u16>,
}

impl Connect {
    /// A client with these credentials and a clean session.
    pub fn new(port: u16, version: Version, login: Login) -> Self {
        Self {
            port,
            version,
            login,
            clean: true,
            manual_acks: false,
            keep_alive: 60,
            receive_maximum: None,
        }
    }

    /// Keeps the session when the connection ends (an hour in MQTT 5).
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.clean = false;
        self
    }

    /// Acknowledges no message by itself.
    #[must_use]
    pub fn without_acks(mut self) -> Self {
        self.manual_acks = true;
        self
    }

    /// With another client id.
    #[must_use]
    pub fn client_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.login.client_id);
        self
    }

    /// With another password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.login.password);
        self
    }

    /// Connects, or tells how the server refused.
    ///
    /// # Errors
    /// [`End`], when the server did not accept.
    pub async fn attempt(self) -> Result<Mqtt, End> {
        let version = self.version;
        let (events, inbox) = mpsc::channel(EVENTS);
        let (client, task) = match version {
            Version::V3 => v3::start(&self, events),
            Version::V5 => v5::start(&self, events),
        };
        let mut mqtt = Mqtt {
            version,
            client,
            inbox,
            waiting: VecDeque::new(),
            session_present: false,
            task,
        };
        let accepted = mqtt.pick("CONNACK", |event| match event {
            Event::Connected { session_present } => Some(*session_present),
            _ => None,
        });
        mqtt.session_present = accepted.await?;
        Ok(mqtt)
    }

    /// Connects.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn connect(self) -> Mqtt {
        let who = format!("{} in {:?}", self.login.client_id, self.version);
        self.attempt()
            .await
            .unwrap_or_else(|end| panic!("{who} could not connect: {end:?}"))
    }

    /// The CONNACK code of the refusal that this attempt must end in.
    ///
    /// # Panics
    /// When the server accepts, or ends the connection otherwise.
    pub async fn refused(self) -> u8 {
        match self.attempt().await {
            Err(End::Refused(code)) => code,
            other => panic!("expected a refusal, not {other:?}"),
        }
    }
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
        self.publish_for_reason(topic, payload).await.0
    }

    /// Publishes at QoS 1 and waits for its PUBACK: the reason code and its reason string.
    pub async fn publish_for_reason(
        &mut self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
    ) -> (u8, Option<String>) {
        self.send(topic, 1, payload).await;
        let sent = self.sent().await;
        let answer = self.pick(format!("the PUBACK of {topic}"), |event| match event {
            Event::Acknowledged { packet, code, reason } if *packet == sent => Some((*code, reason.clone())),
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
