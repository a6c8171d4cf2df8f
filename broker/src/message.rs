//! Messages on their way through the edge.

use std::{num::NonZeroU32, sync::atomic::AtomicBool};

use bytes::Bytes;
use bytestring::ByteString;
use rmqtt_codec::v5::PublishProperties;
use setpoint_model::{Topic, topic::DiscoveryPrefix};
use tokio::time::Instant;

pub use rmqtt_codec::types::QoS;

/// A message from the server to whoever listens.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Its topic.
    pub topic: Topic,
    /// Its payload; with `retain`, an empty one clears what is retained.
    pub payload: Bytes,
    /// The highest QoS it is delivered with; a subscription may ask for less.
    pub qos: QoS,
    /// Whether it also waits for those who subscribe later.
    pub retain: bool,
    /// Told to [`crate::Backend::delivered`] when the device itself acknowledges the message for the first time. For a
    /// retained one it is also its version: a lower one never replaces a higher.
    pub receipt: Option<u64>,
}

/// A message as the shards and sessions share it.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its topic.
    pub(crate) topic: Topic,
    /// The same as text, encoded once.
    pub(crate) name: ByteString,
    /// Its payload.
    pub(crate) payload: Bytes,
    /// The QoS it was published with.
    pub(crate) qos: QoS,
    /// Whether it was published with RETAIN.
    pub(crate) retain: bool,
    /// See [`Outgoing::receipt`].
    pub(crate) receipt: Option<u64>,
    /// What an MQTT 5 publisher attached, for MQTT 5 subscribers.
    pub(crate) properties: Option<Box<PublishProperties>>,
    /// The session it came from, for No Local [MQTT-3.8.3-3]; `None` from the server.
    pub(crate) publisher: Option<u64>,
    /// When the edge took it.
    pub(crate) at: Instant,
    /// Its place in the order of its shard, given by [`crate::shard`].
    pub(crate) sequence: u64,
    /// Put in place by [`crate::Handle::restore`]: for those who don't have its receipt yet.
    pub(crate) restored: bool,
    /// The backend was told that the device has it. A fleet that comes back acknowledges documents that it had
    /// before, and of which there is nothing more to say.
    pub(crate) told: AtomicBool,
}

impl Message {
    /// A message of the server.
    pub(crate) fn from_server(message: Outgoing, restored: bool, discovery: &DiscoveryPrefix) -> Self {
        Self {
            name: ByteString::from(discovery.name(&message.topic)),
            topic: message.topic,
            payload: message.payload,
            qos: message.qos,
            retain: message.retain,
            receipt: message.receipt,
            properties: None,
            publisher: None,
            at: Instant::now(),
            sequence: 0,
            restored,
            told: AtomicBool::new(false),
        }
    }

    /// What it weighs in a queue, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.payload.len() + self.name.len() + 64
    }

    /// Whether it has a message expiry interval.
    pub(crate) fn expires(&self) -> bool {
        self.expiry().is_some()
    }

    /// Whether its message expiry interval has run out [MQTT-3.3.2-5].
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expiry()
            .is_some_and(|expiry| now.saturating_duration_since(self.at).as_secs() >= u64::from(expiry.get()))
    }

    /// The message expiry interval that is left to tell a subscriber [MQTT-3.3.2-6].
    pub(crate) fn remaining_expiry(&self, now: Instant) -> Option<NonZeroU32> {
        let waited = u32::try_from(now.saturating_duration_since(self.at).as_secs()).unwrap_or(u32::MAX);
        self.expiry()
            .map(|expiry| NonZeroU32::new(expiry.get().saturating_sub(waited)).unwrap_or(NonZeroU32::MIN))
    }

    fn expiry(&self) -> Option<NonZeroU32> {
        self.properties.as_ref().and_then(|p| p.message_expiry_interval)
    }
}
