//! What waits for a session, and its bounds.

use std::{sync::Arc, time::Duration};

use rmqtt_codec::types::QoS;
use setpoint_model::presence::DisconnectReason;
use tokio::time::Instant;

use super::{
    live::Live,
    state::{Delivery, Item, Replay, Session, State, settings_receipt},
    subscription::Subscription,
};
use crate::{
    config::Config,
    message::Message,
    metrics::{Dropped, Limit, Metrics},
};

impl Session {
    /// Puts a message behind what already waits, and wakes the connection.
    ///
    /// Whether its client is away, so that the message is kept for it: a device's sessions have bounds in common then
    /// ([`bound_device`]).
    pub(crate) fn offer(&self, delivery: Delivery, config: &Config, metrics: &Metrics) -> bool {
        if !self.identity.may_hear(&delivery.message.topic.serial) {
            return false;
        }
        let live = {
            let mut state = self.lock();
            let own = self
                .identity
                .serial()
                .is_some_and(|serial| *serial == delivery.message.topic.serial);
            let version = settings_receipt(&delivery.message);
            let dealt_with = delivery.message.sequence <= state.settings_after
                || (delivery.message.restored && state.newest_settings() >= version);
            if own && version.is_some() && dealt_with {
                return false;
            }
            state.push(delivery, own, config, metrics);
            state.live.clone()
        };
        match live {
            Some(live) => live.waker.wake(),
            None => return true,
        }
        false
    }

    /// Puts the retained messages of a new subscription behind what already waits.
    pub(crate) fn replay(&self, subscription: &Arc<Subscription>, mut messages: Vec<Arc<Message>>) {
        messages.retain(|message| self.identity.may_hear(&message.topic.serial));
        if messages.is_empty() {
            return;
        }
        let mut state = self.lock();
        let subscription = Arc::clone(subscription);
        state.queue.push_back(Item::Replay(Box::new(Replay {
            subscription,
            messages: messages.into_iter(),
        })));
    }

    /// Drops what an earlier subscription to the same filter still wanted to replay: a new snapshot is to come.
    pub(crate) fn cancel_replay(&self, filter: &setpoint_model::TopicFilter) {
        self.lock()
            .queue
            .retain(|item| !matches!(item, Item::Replay(replay) if replay.subscription.filter == *filter));
    }
}

/// Keeps what waits in `sessions`, those of one device, for clients that are away within the bounds of a device: the
/// oldest messages give way.
pub(crate) fn bound_device(sessions: &[Arc<Session>], config: &Config, metrics: &Metrics) {
    loop {
        let (mut messages, mut bytes) = (0, 0);
        let mut oldest: Option<(Instant, &Arc<Session>)> = None;
        for session in sessions {
            let state = session.lock();
            if state.live.is_some() {
                continue;
            }
            messages += state.queue.len();
            bytes += state.queued_bytes;
            if let Some(Item::Message(first)) = state.queue.front()
                && oldest.is_none_or(|(at, _)| first.message.at < at)
            {
                oldest = Some((first.message.at, session));
            }
        }
        let within = !exceeds(
            messages,
            bytes,
            config.offline_queue_messages,
            config.offline_queue_bytes,
        );
        match oldest {
            Some((_, session)) if !within => session.lock().drop_oldest(Dropped::OfflineQueueFull, metrics),
            _ => return,
        }
    }
}

/// Whether so much is too much. A single message is never too large: packets have a limit of their own.
fn exceeds(messages: usize, bytes: usize, max_messages: usize, max_bytes: usize) -> bool {
    messages > max_messages || (bytes > max_bytes && messages > 1)
}

impl State {
    fn push(&mut self, delivery: Delivery, own: bool, config: &Config, metrics: &Metrics) {
        if self.live.is_none() && delivery.qos == QoS::AtMostOnce {
            return;
        }
        let replaces = own && delivery.message.retain && delivery.message.receipt.is_some();
        let Some(delivery) = (if replaces {
            self.supersede(delivery, metrics)
        } else {
            Some(delivery)
        }) else {
            return;
        };
        self.queued_bytes += delivery.message.weight();
        self.queue.push_back(Item::Message(delivery));
        match self.live.clone() {
            Some(live) => self.bound_outbound(&live, config, metrics),
            None => self.bound_offline(config, metrics),
        }
    }

    /// A newer version takes the place of an older one that still waits: a device need not hear both.
    fn supersede(&mut self, delivery: Delivery, metrics: &Metrics) -> Option<Delivery> {
        for item in &mut self.queue {
            if let Item::Message(waiting) = item
                && waiting.message.topic == delivery.message.topic
                && waiting.message.receipt.is_some()
            {
                self.queued_bytes = self.queued_bytes - waiting.message.weight() + delivery.message.weight();
                *waiting = delivery;
                metrics.dropped(Dropped::Superseded);
                return None;
            }
        }
        Some(delivery)
    }

    fn exceeds(&self, messages: usize, bytes: usize) -> bool {
        exceeds(self.queue.len(), self.queued_bytes, messages, bytes)
    }

    /// QoS 0 gives way first; a client whose QoS 1 and 2 messages overflow is ended, for it doesn't read.
    fn bound_outbound(&mut self, live: &Live, config: &Config, metrics: &Metrics) {
        while self.exceeds(config.outbound_queue_messages, config.outbound_queue_bytes) {
            let newest = self.queue.len() - 1;
            let expendable =
                |item: Option<&Item>| matches!(item, Some(Item::Message(d)) if d.qos == QoS::AtMostOnce);
            let index = if expendable(self.queue.get(newest)) {
                Some(newest)
            } else {
                self.queue.iter().position(|item| expendable(Some(item)))
            };
            let Some(index) = index else {
                metrics.limit(Limit::OutboundQueue);
                live.end(DisconnectReason::LimitExceeded, false);
                self.drop_oldest(Dropped::QueueFull, metrics);
                return;
            };
            self.remove(index);
            metrics.dropped(Dropped::QueueFull);
        }
    }

    /// The oldest messages give way.
    pub(super) fn bound_offline(&mut self, config: &Config, metrics: &Metrics) {
        self.drop_aged(config.offline_queue_age, metrics);
        while self.exceeds(config.offline_queue_messages, config.offline_queue_bytes) {
            self.drop_oldest(Dropped::OfflineQueueFull, metrics);
        }
    }

    /// Drops what waited for longer than `age`, and what expired.
    pub(super) fn drop_aged(&mut self, age: Duration, metrics: &Metrics) {
        let now = Instant::now();
        while let Some(Item::Message(delivery)) = self.queue.front() {
            let reason = if delivery.message.is_expired(now) {
                Dropped::Expired
            } else if now.saturating_duration_since(delivery.message.at) >= age {
                Dropped::TooOld
            } else {
                return;
            };
            self.remove(0);
            metrics.dropped(reason);
        }
    }

    fn drop_oldest(&mut self, reason: Dropped, metrics: &Metrics) {
        self.remove(0);
        metrics.dropped(reason);
    }

    fn remove(&mut self, index: usize) {
        if let Some(Item::Message(delivery)) = self.queue.remove(index) {
            self.queued_bytes = self.queued_bytes.saturating_sub(delivery.message.weight());
        }
    }

    /// The connection is gone: QoS 0 and retained messages not yet sent go with it; the latter come again with the
    /// next SUBSCRIBE.
    pub(super) fn park(&mut self, config: &Config, metrics: &Metrics) {
        self.queue
            .retain(|item| matches!(item, Item::Message(delivery) if delivery.qos != QoS::AtMostOnce));
        self.queued_bytes = self
            .queue
            .iter()
            .map(|item| match item {
                Item::Message(delivery) => delivery.message.weight(),
                Item::Replay(_) => 0,
            })
            .sum();
        self.queue.shrink_to_fit();
        self.sent = 0;
        self.bound_offline(config, metrics);
    }

    /// Moves the settings that wait for a session that comes back before everything else that does.
    pub(crate) fn move_settings_first(&mut self) {
        let waiting = self.waiting_settings();
        if let Some(item) = waiting.and_then(|index| self.queue.remove(index)) {
            self.queue.push_front(item);
        }
    }

    fn waiting_settings(&self) -> Option<usize> {
        let settings =
            |item: &Item| matches!(item, Item::Message(d) if settings_receipt(&d.message).is_some());
        self.queue.iter().position(settings)
    }

    /// Puts the device's newest settings before everything that waits for a session that comes back, in the place of
    /// older ones: the newest may still be on their way through the router while these wait already.
    pub(crate) fn push_settings_first(&mut self, delivery: Delivery) {
        while let Some(older) = self.waiting_settings() {
            self.remove(older);
        }
        self.queued_bytes += delivery.message.weight();
        self.queue.push_front(Item::Message(delivery));
    }
}
