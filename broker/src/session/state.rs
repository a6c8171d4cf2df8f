//! What of a session outlives its connection [MQTT-4.1.0-1].

use std::{
    collections::VecDeque,
    num::{NonZeroU16, NonZeroU32},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rmqtt_codec::types::QoS;
use setpoint_model::{Channel, Identity};
use tokio::time::Instant;

use super::{live::Live, received::Received, subscription::Subscription, will::DelayedWill};
use crate::{message::Message, metrics::Waiting};

/// A session: a client id of an identity, connected or not.
#[derive(Debug)]
pub(crate) struct Session {
    /// Unique in this process.
    pub(crate) id: u64,
    /// Whose it is.
    pub(crate) identity: Identity,
    /// Its client id.
    pub(crate) client_id: String,
    state: Mutex<State>,
}

impl Session {
    pub(crate) fn new(id: u64, identity: Identity, client_id: String) -> Self {
        Self {
            id,
            identity,
            client_id,
            state: Mutex::default(),
        }
    }

    /// Locks its state. Lock order everywhere: shard, then session, then live.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a session. Everything in it is bounded, and most of it empty in an idle session.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The connection it has now.
    pub(crate) live: Option<Arc<Live>>,
    /// What it wants to hear.
    pub(crate) subscriptions: Vec<Arc<Subscription>>,
    /// What waits to be sent, in order.
    pub(super) queue: VecDeque<Item>,
    /// The weight of the messages in `queue`.
    pub(super) queued_bytes: usize,
    /// QoS 1 and 2 messages on their way, in the order they were first sent.
    pub(super) in_flight: VecDeque<InFlight>,
    /// How many of `in_flight`, from the front, were sent over this connection.
    pub(super) sent: usize,
    pub(super) last_id: u16,
    /// QoS 2 messages received and not yet released.
    pub(super) received: Received,
    /// How long it outlives its connection.
    pub(crate) expiry: Duration,
    /// When it ends, if its client doesn't come back.
    pub(crate) expires_at: Option<Instant>,
    /// When its client went.
    pub(crate) left_at: Option<Instant>,
    /// A will that waits for its delay.
    pub(crate) will: Option<Box<DelayedWill>>,
    /// Nothing is kept of it once its connection ends.
    pub(crate) discard: bool,
    /// The settings version its client acknowledged last.
    pub(crate) settings_acked: Option<u64>,
    /// Its own settings up to this place in the shard's order are dealt with.
    pub(crate) settings_after: u64,
}

/// Something that waits to be sent.
#[derive(Debug)]
pub(super) enum Item {
    Message(Delivery),
    Replay(Box<Replay>),
}

/// A message for one session.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    /// The lower of the message's and the subscription's QoS [MQTT-3.8.4-8].
    pub(crate) qos: QoS,
    /// The RETAIN flag it is sent with.
    pub(crate) retain: bool,
    /// The identifiers of the subscriptions it came by.
    pub(crate) ids: Vec<NonZeroU32>,
    /// The shared subscription it came by: should the session end first, another member gets it.
    pub(crate) shared: Option<Arc<Subscription>>,
}

/// Retained messages for a subscription just made: a snapshot that is drained as the client's window allows, so that
/// sixty thousand of them cost a pointer each.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) subscription: Arc<Subscription>,
    pub(super) messages: std::vec::IntoIter<Arc<Message>>,
}

/// A QoS 1 or 2 message sent and not done with.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: NonZeroU16,
    pub(super) phase: Phase,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Waits for PUBACK or PUBREC.
    Sent(Delivery),
    /// PUBREL was sent: waits for PUBCOMP.
    Released,
}

impl State {
    /// Messages that wait to be sent.
    pub(crate) fn queued(&self) -> usize {
        self.queue
            .iter()
            .map(|item| match item {
                Item::Message(_) => 1,
                Item::Replay(replay) => replay.messages.len(),
            })
            .sum()
    }

    /// Adds what waits for this session.
    pub(crate) fn count_waiting(&self, waiting: &mut Waiting) {
        match self.live {
            Some(_) => waiting.connected += self.queued(),
            None => waiting.away += self.queued(),
        }
    }

    /// QoS 1 and 2 messages not done with.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes out what came by shared subscriptions and the client of a session that is over did not get. Not what was
    /// sent to it with QoS 2: that goes to nobody else [MQTT5-4.8.2-5].
    pub(crate) fn take_shared(&mut self) -> Vec<Delivery> {
        let sent = self.in_flight.drain(..).filter_map(|sent| match sent.phase {
            Phase::Sent(delivery) if delivery.qos == QoS::AtLeastOnce => Some(delivery),
            _ => None,
        });
        let queued = self.queue.drain(..).filter_map(|item| match item {
            Item::Message(delivery) => Some(delivery),
            Item::Replay(_) => None,
        });
        let rest = sent.chain(queued).filter(|delivery| delivery.shared.is_some());
        let rest = rest.collect();
        self.sent = 0;
        self.queued_bytes = 0;
        rest
    }

    /// The newest settings version of the session's own device that it acknowledged or will still be sent.
    pub(crate) fn newest_settings(&self) -> Option<u64> {
        let queued = self.queue.iter().filter_map(|item| match item {
            Item::Message(delivery) => settings_receipt(&delivery.message),
            Item::Replay(replay) => replay
                .messages
                .as_slice()
                .iter()
                .filter_map(|m| settings_receipt(m))
                .max(),
        });
        let sent = self.in_flight.iter().filter_map(|sent| match &sent.phase {
            Phase::Sent(delivery) => settings_receipt(&delivery.message),
            Phase::Released => None,
        });
        queued.chain(sent).chain(self.settings_acked).max()
    }
}

/// The version in a settings message.
pub(crate) fn settings_receipt(message: &Message) -> Option<u64> {
    if message.topic.channel == Channel::Settings {
        message.receipt
    } else {
        None
    }
}
