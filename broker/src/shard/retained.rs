//! Retained messages of one device [MQTT-3.3.1-5].

use std::sync::Arc;

use setpoint_model::{Channel, TopicFilter, topic::Writer};
use tokio::time::Instant;

use crate::{config::Config, message::Message};

/// What is retained for one device: few messages, so a list.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    messages: Vec<Arc<Message>>,
    /// Whether one of them may expire: every device is looked at each second, and hardly any has such a message.
    expires: bool,
}

/// What became of a message to be retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// In place, or cleared what was.
    Kept,
    /// The device's clients retain too much already: not kept, but delivered.
    Full,
    /// One with a higher receipt is in place: to be dropped.
    Outdated,
}

impl Retained {
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn get(&self, channel: Channel) -> Option<&Arc<Message>> {
        self.messages
            .iter()
            .find(|message| message.topic.channel == channel)
    }

    /// Puts a message in place, or clears its topic if the payload is empty [MQTT-3.3.1-6].
    pub(super) fn put(&mut self, message: &Arc<Message>, config: &Config) -> Verdict {
        // They are all of one device.
        let same = |other: &Arc<Message>| other.topic.channel == message.topic.channel;
        let index = self.messages.iter().position(same);
        if let Some(other) = index.and_then(|index| self.messages.get(index))
            && outdated(message, other)
        {
            return Verdict::Outdated;
        }
        if message.payload.is_empty() {
            if let Some(index) = index {
                self.messages.swap_remove(index);
            }
            return Verdict::Kept;
        }
        if by_client(message) && !self.has_room(message, config) {
            return Verdict::Full;
        }
        self.expires |= message.expires();
        match index.and_then(|index| self.messages.get_mut(index)) {
            Some(place) => *place = Arc::clone(message),
            None => self.messages.push(Arc::clone(message)),
        }
        Verdict::Kept
    }

    /// The messages that match, apart from those that expired.
    pub(super) fn matching(&self, filter: &TopicFilter) -> Vec<Arc<Message>> {
        let now = Instant::now();
        self.messages
            .iter()
            .filter(|message| filter.matches(&message.name) && !message.is_expired(now))
            .map(Arc::clone)
            .collect()
    }

    /// Drops what expired.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.expires {
            self.messages.retain(|message| !message.is_expired(now));
            self.expires = self.messages.iter().any(|message| message.expires());
        }
    }

    pub(crate) fn clear(&mut self) {
        self.messages
            .retain(|message| message.topic.channel == Channel::Discovery);
        self.messages.shrink_to_fit();
    }

    fn has_room(&self, message: &Message, config: &Config) -> bool {
        let others = || {
            self.messages
                .iter()
                .filter(|other| by_client(other) && other.topic != message.topic)
        };
        let bytes: usize = others().map(|other| other.payload.len()).sum();
        others().count() < config.max_retained_per_device
            && bytes + message.payload.len() <= config.max_retained_bytes_per_device
    }
}

/// A restored message is outdated by its equal too: that one is in place already.
fn outdated(message: &Message, other: &Message) -> bool {
    match (message.receipt, other.receipt) {
        (Some(new), Some(old)) => new < old || (message.restored && new == old),
        _ => message.restored,
    }
}

fn by_client(message: &Message) -> bool {
    message.topic.channel.writer() != Writer::Server
}
