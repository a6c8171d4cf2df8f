//! What is sent to a client next, and what its acknowledgements do [MQTT-4.3], [MQTT-4.9].

use std::{num::NonZeroU16, sync::Arc};

use rmqtt_codec::types::QoS;
use setpoint_model::Identity;
use tokio::time::Instant;

use super::state::{Delivery, InFlight, Item, Phase, State};
use crate::{
    message::Message,
    metrics::{Dropped, Metrics},
};

/// The next thing to send.
#[derive(Debug)]
pub(crate) enum Next {
    /// A PUBLISH; `id` for QoS 1 and 2.
    Publish {
        delivery: Delivery,
        id: Option<NonZeroU16>,
        dup: bool,
    },
    /// A PUBREL again, after a reconnect.
    Release(NonZeroU16),
}

/// What an acknowledgement was for.
#[derive(Debug)]
pub(crate) enum Acknowledged {
    /// This message.
    Message(Arc<Message>),
    /// No message of this id is on its way.
    Unknown,
    /// A message of this id is on its way, but this is not how it is acknowledged.
    Mismatch,
}

impl State {
    /// Takes what is to be sent next, while fewer than `window` messages are on their way.
    ///
    /// After a reconnect, what was on its way comes first, in its order and with DUP [MQTT-4.4.0-1].
    ///
    /// What `identity` may no longer hear of is left out; what is on its way already stays until it is acknowledged.
    pub(crate) fn next(
        &mut self,
        identity: &Identity,
        window: usize,
        now: Instant,
        metrics: &Metrics,
    ) -> Option<Next> {
        if let Some(pending) = self.in_flight.get(self.sent) {
            if self.sent >= window {
                return None;
            }
            self.sent += 1;
            return Some(match &pending.phase {
                Phase::Sent(delivery) => Next::Publish {
                    delivery: delivery.clone(),
                    id: Some(pending.id),
                    dup: true,
                },
                Phase::Released => Next::Release(pending.id),
            });
        }
        loop {
            let open = self.in_flight.len() < window;
            let delivery = self.take(open)?;
            if !identity.may_hear(&delivery.message.topic.serial) {
                continue;
            }
            if delivery.message.is_expired(now) {
                metrics.dropped(Dropped::Expired);
                continue;
            }
            if delivery.qos == QoS::AtMostOnce {
                return Some(Next::Publish {
                    delivery,
                    id: None,
                    dup: false,
                });
            }
            let id = self.free_id();
            self.in_flight.push_back(InFlight {
                id,
                phase: Phase::Sent(delivery.clone()),
            });
            self.sent += 1;
            return Some(Next::Publish {
                delivery,
                id: Some(id),
                dup: false,
            });
        }
    }

    /// The first thing in the queue, unless it needs an open window.
    fn take(&mut self, open: bool) -> Option<Delivery> {
        loop {
            match self.queue.front_mut()? {
                Item::Message(delivery) => {
                    if delivery.qos != QoS::AtMostOnce && !open {
                        return None;
                    }
                    let Some(Item::Message(delivery)) = self.queue.pop_front() else {
                        return None;
                    };
                    self.queued_bytes = self.queued_bytes.saturating_sub(delivery.message.weight());
                    self.release_queue();
                    return Some(delivery);
                }
                Item::Replay(replay) => {
                    let Some(message) = replay.messages.as_slice().first() else {
                        self.queue.pop_front();
                        self.release_queue();
                        continue;
                    };
                    let qos = message.qos.less_value(replay.subscription.qos);
                    if qos != QoS::AtMostOnce && !open {
                        return None;
                    }
                    let message = replay.messages.next()?;
                    let ids = replay.subscription.id.into_iter().collect();
                    return Some(Delivery {
                        message,
                        qos,
                        retain: true,
                        ids,
                        shared: None,
                    });
                }
            }
        }
    }

    /// An idle session keeps no memory for a queue.
    fn release_queue(&mut self) {
        if self.queue.is_empty() {
            self.queue = std::collections::VecDeque::new();
        }
    }

    /// A packet id that no message on its way has [MQTT-2.2.1-3].
    fn free_id(&mut self) -> NonZeroU16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = NonZeroU16::new(self.last_id)
                && !self.in_flight.iter().any(|sent| sent.id == id)
            {
                return id;
            }
        }
    }

    /// PUBACK: done with a QoS 1 message.
    pub(crate) fn acknowledge(&mut self, id: NonZeroU16) -> Acknowledged {
        self.complete(
            id,
            |phase| matches!(phase, Phase::Sent(d) if d.qos == QoS::AtLeastOnce),
        )
    }

    /// PUBREC with an error, or a message too large to send: done with it [MQTT-4.3.3].
    pub(crate) fn abandon(&mut self, id: NonZeroU16) -> Acknowledged {
        self.complete(id, |phase| matches!(phase, Phase::Sent(_)))
    }

    /// PUBREC: the client has the message; PUBREL follows.
    pub(crate) fn receive(&mut self, id: NonZeroU16) -> Acknowledged {
        let Some(sent) = self
            .in_flight
            .iter_mut()
            .take(self.sent)
            .find(|sent| sent.id == id)
        else {
            return Acknowledged::Unknown;
        };
        if !matches!(&sent.phase, Phase::Sent(delivery) if delivery.qos == QoS::ExactlyOnce) {
            return Acknowledged::Mismatch;
        }
        match std::mem::replace(&mut sent.phase, Phase::Released) {
            Phase::Sent(delivery) => Acknowledged::Message(delivery.message),
            Phase::Released => Acknowledged::Mismatch,
        }
    }

    /// PUBCOMP: done with a QoS 2 message.
    pub(crate) fn release(&mut self, id: NonZeroU16) {
        self.complete(id, |phase| matches!(phase, Phase::Released));
    }

    fn complete(&mut self, id: NonZeroU16, fits: impl Fn(&Phase) -> bool) -> Acknowledged {
        let Some(index) = self
            .in_flight
            .iter()
            .take(self.sent)
            .position(|sent| sent.id == id)
        else {
            return Acknowledged::Unknown;
        };
        if !self.in_flight.get(index).is_some_and(|sent| fits(&sent.phase)) {
            return Acknowledged::Mismatch;
        }
        let done = self.in_flight.remove(index);
        self.sent -= 1;
        if self.in_flight.is_empty() {
            self.in_flight = std::collections::VecDeque::new();
        }
        match done.map(|sent| sent.phase) {
            Some(Phase::Sent(delivery)) => Acknowledged::Message(delivery.message),
            _ => Acknowledged::Unknown,
        }
    }
}
