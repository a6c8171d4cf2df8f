//! How a client comes in.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::{End, Event, Mqtt, Version, v3, v5};
use crate::harness::mosquitto::Login;

/// Events that may wait for the test; no test has near as many.
const EVENTS: usize = 100_000;

/// A client to be connected.
#[derive(Debug, Clone)]
pub struct Connect {
    pub(super) port: u16,
    pub(super) version: Version,
    pub(super) login: Login,
    pub(super) clean: bool,
    pub(super) manual_acks: bool,
    pub(super) keep_alive: u16,
    pub(super) receive_maximum: Option<u16>,
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

    /// With another keep-alive, in seconds.
    #[must_use]
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// With a Receive Maximum (MQTT 5): so many messages at once without its acknowledgement.
    #[must_use]
    pub fn receive_maximum(mut self, messages: u16) -> Self {
        self.receive_maximum = Some(messages);
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
