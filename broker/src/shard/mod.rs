//! A shard: the devices whose serials fall into it, who listens to them, and what is retained for them.
//!
//! Everything that must agree about one device stands behind one lock: a subscription and the snapshot of retained
//! messages it is answered with, a session's end and the presence that tells of it. Messages get their place in the
//! shard's order under that lock too, and go through the shard's router ([`crate::bus`]) to [`Shard::deliver`].

mod devices;
mod retained;
mod subscribers;

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize},
    },
};

use setpoint_model::{Serial, TopicFilter};
use tokio::sync::mpsc;

pub(crate) use self::devices::Settled;
use self::{
    devices::Device,
    retained::Verdict,
    subscribers::{Match, Picked, Subscribers},
};
use crate::{
    config::Config,
    error::ShuttingDown,
    message::Message,
    metrics::{Dropped, Limit, Metrics},
    session::{Delivery, Session, Subscription, bound_device},
};

/// One shard.
pub(crate) struct Shard {
    pub(crate) index: usize,
    state: Mutex<State>,
    bus: mpsc::Sender<Arc<Message>>,
    pub(crate) health: Health,
}

/// What the shard's bus says of itself.
#[derive(Debug, Default)]
pub(crate) struct Health {
    pub(crate) down: AtomicBool,
    pub(crate) in_router: AtomicUsize,
    pub(crate) restarts: AtomicU64,
    /// Set by a test that wants the router thread dead.
    #[cfg(feature = "testing")]
    pub(crate) kill: tokio::sync::Notify,
}

#[derive(Default)]
pub(crate) struct State {
    sequence: u64,
    pub(crate) devices: HashMap<Serial, Device>,
    /// Those who hear every device.
    fleet: Subscribers,
}

/// What became of a message that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// On its way to whoever listens.
    Queued,
    /// In place, but nobody listens just now.
    Unheard,
    /// A newer one is retained: dropped.
    Outdated,
}

impl Shard {
    /// A shard and the end of its queue that the bus takes messages from.
    pub(crate) fn new(index: usize, capacity: usize) -> (Self, mpsc::Receiver<Arc<Message>>) {
        let (bus, queue) = mpsc::channel(capacity);
        (
            Self {
                index,
                state: Mutex::default(),
                bus,
                health: Health::default(),
            },
            queue,
        )
    }

    /// The shard of `shards` that a device belongs to. Stable within a process.
    pub(crate) fn of(serial: &Serial, shards: usize) -> usize {
        let mut hasher = DefaultHasher::new();
        serial.hash(&mut hasher);
        usize::try_from(hasher.finish() % u64::try_from(shards.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages handed in and not yet delivered.
    pub(crate) fn depth(&self) -> usize {
        let queued = self.bus.max_capacity() - self.bus.capacity();
        queued + self.health.in_router.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Room for one message in the shard's queue; waits while it is full.
    pub(crate) async fn reserve(&self) -> Result<Permit<'_>, ShuttingDown> {
        self.bus.reserve().await.map_err(|_| ShuttingDown)
    }

    /// Room for one message, if there is some now.
    pub(crate) fn try_reserve(&self) -> Option<Permit<'_>> {
        self.bus.try_reserve().ok()
    }

    /// Gives a message its place in the order. Waits while the shard's queue is full.
    pub(crate) async fn publish(
        &self,
        message: Message,
        config: &Config,
        metrics: &Metrics,
    ) -> Result<Admitted, ShuttingDown> {
        let permit = self.reserve().await?;
        Ok(self.lock().admit(message, Some(permit), config, metrics))
    }

    /// Delivers a message that came back from the router to everyone subscribed since before it was handed in.
    pub(crate) fn deliver(&self, message: &Arc<Message>, config: &Config, metrics: &Metrics) {
        let mut state = self.lock();
        let State { devices, fleet, .. } = &mut *state;
        let mut kept = false;
        let mut offer = |session: &Arc<Session>, found: Match| {
            let delivery = Delivery {
                message: Arc::clone(message),
                qos: message.qos.less_value(found.qos),
                retain: message.retain && found.retain_as_published,
                ids: found.ids,
                shared: None,
            };
            kept |= session.offer(delivery, config, metrics);
        };
        let mut own = devices
            .get_mut(&message.topic.serial)
            .map(|device| &mut device.subscribers);
        if let Some(subscribers) = &mut own {
            for (session, found) in subscribers.matches(message) {
                // One message per client, however many of its subscriptions match [MQTT-3.3.5-1].
                let found = match fleet.match_of(session.id, message) {
                    Some(other) => found.merge(other),
                    None => found,
                };
                offer(session, found);
            }
        }
        for (session, found) in fleet.matches(message) {
            let served = own
                .as_ref()
                .is_some_and(|own| own.match_of(session.id, message).is_some());
            if !served {
                offer(session, found);
            }
        }
        let shared = own
            .into_iter()
            .flat_map(|own| own.pick_shared(message))
            .chain(fleet.pick_shared(message));
        for picked in shared {
            share(picked, message, config, metrics);
        }
        if kept && let Some(device) = devices.get(&message.topic.serial) {
            bound_device(&device.sessions, config, metrics);
        }
    }

    /// Gives what came by a shared subscription, and whose session ended before its client had it, to another member
    /// [MQTT5-4.8.2-4].
    pub(crate) fn pass_on(
        &self,
        message: &Arc<Message>,
        shared: &Subscription,
        config: &Config,
        metrics: &Metrics,
    ) {
        let mut state = self.lock();
        let State { devices, fleet, .. } = &mut *state;
        let own = devices
            .get_mut(&message.topic.serial)
            .and_then(|device| device.subscribers.pick_other(shared, message));
        let picked = own.or_else(|| fleet.pick_other(shared, message));
        share(picked, message, config, metrics);
    }

    /// Subscribes a session to this device or, without one, to all of the shard. Yields the retained messages that
    /// match, of which none is also delivered by the subscription.
    pub(crate) fn subscribe(
        &self,
        serial: Option<&Serial>,
        session: &Arc<Session>,
        subscription: &Arc<Subscription>,
        replay: bool,
    ) {
        let mut state = self.lock();
        let after = state.sequence;
        let subscribers = match serial {
            Some(serial) => &mut state.devices.entry(serial.clone()).or_default().subscribers,
            None => &mut state.fleet,
        };
        subscribers.add(session, subscription, after);
        if replay {
            let found = match serial {
                Some(serial) => state
                    .devices
                    .get(serial)
                    .map(|d| d.retained.matching(&subscription.filter))
                    .unwrap_or_default(),
                None => state
                    .devices
                    .values()
                    .flat_map(|device| device.retained.matching(&subscription.filter))
                    .collect(),
            };
            // Under the lock, so that what comes after it in the order comes after it in the session's queue.
            session.replay(subscription, found);
        }
    }

    /// Takes a subscription back.
    pub(crate) fn unsubscribe(&self, serial: Option<&Serial>, session: u64, filter: &TopicFilter) {
        let mut state = self.lock();
        match serial {
            Some(serial) => {
                if let Some(device) = state.devices.get_mut(serial) {
                    device.subscribers.remove(session, filter);
                }
                state.tidy(serial);
            }
            None => state.fleet.remove(session, filter),
        }
    }
}

/// Hands a message to the member of a shared subscription that was picked.
fn share(picked: Option<Picked>, message: &Arc<Message>, config: &Config, metrics: &Metrics) {
    let Some((session, subscription)) = picked else {
        metrics.dropped(Dropped::NoMember);
        return;
    };
    let delivery = Delivery {
        message: Arc::clone(message),
        qos: message.qos.less_value(subscription.qos),
        retain: message.retain && subscription.retain_as_published,
        ids: subscription.id.into_iter().collect(),
        shared: Some(subscription),
    };
    // It is an operator's session: a device's bounds are not its own.
    let _ = session.offer(delivery, config, metrics);
}

/// Room for one message in a shard's queue.
pub(crate) type Permit<'a> = mpsc::Permit<'a, Arc<Message>>;

impl State {
    /// Gives a message its place in the order, and retains it if it asks for that. Without a permit it is not
    /// delivered, only retained.
    pub(crate) fn admit(
        &mut self,
        mut message: Message,
        permit: Option<Permit<'_>>,
        config: &Config,
        metrics: &Metrics,
    ) -> Admitted {
        self.sequence += 1;
        message.sequence = self.sequence;
        let message = Arc::new(message);
        if message.retain {
            let serial = &message.topic.serial;
            match self
                .devices
                .entry(serial.clone())
                .or_default()
                .retained
                .put(&message, config)
            {
                Verdict::Kept => {}
                Verdict::Full => metrics.limit(Limit::Retained),
                Verdict::Outdated => {
                    metrics.dropped(Dropped::Outdated);
                    return Admitted::Outdated;
                }
            }
            if message.payload.is_empty() {
                self.tidy(serial);
            }
        }
        let heard = self.fleet.hear(&message)
            || self
                .devices
                .get(&message.topic.serial)
                .is_some_and(|device| device.subscribers.hear(&message));
        match permit {
            Some(permit) if heard => {
                permit.send(message);
                Admitted::Queued
            }
            None if heard => {
                metrics.dropped(Dropped::QueueFull);
                Admitted::Unheard
            }
            _ => Admitted::Unheard,
        }
    }

    /// Whether anyone may hear a message of this device, by its topic's name.
    pub(crate) fn may_hear(&self, serial: &Serial, name: &str) -> bool {
        self.fleet.may_hear(name)
            || self
                .devices
                .get(serial)
                .is_some_and(|device| device.subscribers.may_hear(name))
    }

    /// Forgets a device of which nothing is left to know.
    pub(crate) fn tidy(&mut self, serial: &Serial) {
        if self.devices.get(serial).is_some_and(Device::is_empty) {
            self.devices.remove(serial);
        }
    }

    /// Takes all subscriptions of a session out of this shard.
    pub(crate) fn forget_session(&mut self, session: u64, serial: Option<&Serial>) {
        match serial {
            Some(serial) => {
                if let Some(device) = self.devices.get_mut(serial) {
                    device.subscribers.remove_session(session);
                }
            }
            None => self.fleet.remove_session(session),
        }
    }

    /// How many messages are retained.
    pub(crate) fn retained(&self) -> usize {
        self.devices.values().map(|device| device.retained.len()).sum()
    }
}
