//! The devices that have sent something that matters: what is believed of each, and which wait to be looked at.
//!
//! A sample costs a comparison with what is believed. Only a device one of whose states may have changed, or of whom
//! nothing is known yet, is looked at in the database; what it sends meanwhile is compared afterwards. The number of
//! devices is bounded, not that of samples: a device that waits waits once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use chrono::{DateTime, Utc};
use prometheus_client::registry::Registry;
use setpoint_model::DeviceId;
use setpoint_store::alerts::Rule;
use tokio::sync::Notify;

use super::{
    Metrics,
    backlog::Backlog,
    watch::{Known, Seen, Watch},
};
use crate::config;

/// Devices are kept in so many parts, each with a lock of its own.
const SHARDS: usize = 64;

/// What alerts need beside the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Alerts(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: config::Alerts,
    /// Whether any sample matters.
    watching: AtomicBool,
    watch: RwLock<Arc<Watch>>,
    shards: Vec<Mutex<HashMap<DeviceId, Entry>>>,
    queue: Mutex<Queue>,
    bell: Notify,
    metrics: Metrics,
}

#[derive(Debug)]
struct Entry {
    generation: u64,
    state: EntryState,
}

#[derive(Debug)]
enum EntryState {
    Known(Known),
    /// It waits to be looked at, or is being looked at.
    Waiting(Backlog),
}

/// What waits for `tasks::alerts`.
#[derive(Debug, Default)]
struct Queue {
    /// Devices, with the time of the earliest sample that matters.
    devices: HashMap<DeviceId, DateTime<Utc>>,
    /// There was no room for some.
    overflowed: bool,
    /// Something may have changed in the database.
    database: bool,
    /// Rules may have changed.
    rules: bool,
}

/// What there is to do.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Devices to be looked at, with the time of the earliest sample that matters.
    pub(crate) devices: HashMap<DeviceId, DateTime<Utc>>,
    /// All are to be looked at.
    pub(crate) everything: bool,
    /// The database is to be asked what there is to do.
    pub(crate) database: bool,
    /// The rules are to be read again.
    pub(crate) rules: bool,
}

impl Alerts {
    /// Nothing is known yet.
    pub fn new(config: config::Alerts, registry: &mut Registry) -> Self {
        Self(Arc::new(Shared {
            config,
            watching: AtomicBool::new(false),
            watch: RwLock::default(),
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            queue: Mutex::default(),
            bell: Notify::new(),
            metrics: Metrics::register(registry),
        }))
    }

    /// The limits.
    pub(crate) fn config(&self) -> &config::Alerts {
        &self.0.config
    }

    /// The counts.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What notes those of a device's samples that matter; `None` while none of any device does.
    pub fn watch(&self, device: DeviceId) -> Option<Seen> {
        if !self.0.watching.load(Ordering::Relaxed) {
            return None;
        }
        Some(Seen {
            alerts: self.clone(),
            watch: self.watched(),
            device,
            samples: Vec::new(),
            newest: None,
        })
    }

    pub(super) fn watched(&self) -> Arc<Watch> {
        Arc::clone(&self.0.watch.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Watches for what these rules name. What was believed of devices counts no more.
    pub(super) fn rewatch(&self, version: (i64, i64), rules: Vec<Rule>) {
        let mut watch = self.0.watch.write().unwrap_or_else(PoisonError::into_inner);
        let next = Watch::new(watch.generation + 1, version, rules);
        self.0.watching.store(!next.is_empty(), Ordering::Relaxed);
        *watch = Arc::new(next);
    }

    /// Says that something about devices changed in the database.
    pub(crate) fn look(&self) {
        self.queue().database = true;
        self.0.bell.notify_one();
    }

    /// Says that rules, or something that they look at, may have changed in the database.
    pub fn changed(&self) {
        let mut queue = self.queue();
        queue.rules = true;
        queue.database = true;
        drop(queue);
        self.0.bell.notify_one();
    }

    /// Another server judged these devices: what was believed of them counts no more.
    pub(crate) fn forget(&self, devices: &[DeviceId]) {
        for device in devices {
            let mut shard = self.shard(*device);
            if let Some(entry) = shard.get(device)
                && matches!(entry.state, EntryState::Known(_))
            {
                shard.remove(device);
            }
        }
    }

    /// Forgets what is believed of every device.
    pub(crate) fn forget_all(&self) {
        for shard in &self.0.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, entry| matches!(entry.state, EntryState::Waiting(_)));
        }
        self.changed();
    }

    /// Compares what a device sent with what is believed of it.
    pub(super) fn take(&self, seen: Seen) {
        let Seen {
            watch,
            device,
            samples,
            newest,
            ..
        } = seen;
        let earliest = samples.iter().map(|sample| sample.at).chain(newest).min();
        let Some(earliest) = earliest else { return };
        let mut shard = self.shard(device);
        let from = match shard.get_mut(&device) {
            Some(Entry {
                generation,
                state: EntryState::Known(known),
            }) if *generation == watch.generation => known.judge(&watch, &samples, newest),
            Some(Entry {
                state: EntryState::Waiting(backlog),
                ..
            }) => {
                backlog.add(watch.generation, samples, newest);
                return;
            }
            Some(_) | None => Some(earliest),
        };
        if let Some(from) = from {
            self.make_room(&mut shard);
            self.wait(&mut shard, device, from, watch.generation);
        }
    }

    /// Has a device wait to be looked at.
    fn wait(
        &self,
        shard: &mut HashMap<DeviceId, Entry>,
        device: DeviceId,
        from: DateTime<Utc>,
        generation: u64,
    ) {
        if self.enqueue(device, from) {
            let state = EntryState::Waiting(Backlog::of(generation));
            shard.insert(device, Entry { generation, state });
        } else {
            shard.remove(&device);
        }
    }

    /// Puts a device in the queue; `false` if there is no room.
    pub(crate) fn enqueue(&self, device: DeviceId, from: DateTime<Utc>) -> bool {
        let mut queue = self.queue();
        let room = queue.devices.len() < self.0.config.max_waiting || queue.devices.contains_key(&device);
        if room {
            let earliest = queue.devices.entry(device).or_insert(from);
            *earliest = from.min(*earliest);
        } else {
            queue.overflowed = true;
            self.0.metrics.overflowed.inc();
        }
        self.count(&queue);
        drop(queue);
        self.0.bell.notify_one();
        room
    }

    fn make_room(&self, shard: &mut HashMap<DeviceId, Entry>) {
        if shard.len() < self.0.config.max_watched.div_ceil(SHARDS) {
            return;
        }
        let before = shard.len();
        shard.retain(|_, entry| matches!(entry.state, EntryState::Waiting(_)));
        self.0.metrics.forgotten.inc_by((before - shard.len()) as u64);
    }

    /// Takes what there is to do, at most so many devices.
    pub(crate) fn work(&self, most: usize) -> Work {
        let mut queue = self.queue();
        let devices: Vec<DeviceId> = queue.devices.keys().take(most).copied().collect();
        let taken = |device: DeviceId| Some((device, queue.devices.remove(&device)?));
        let devices = devices.into_iter().filter_map(taken).collect();
        self.count(&queue);
        Work {
            devices,
            everything: std::mem::take(&mut queue.overflowed),
            database: std::mem::take(&mut queue.database),
            rules: std::mem::take(&mut queue.rules),
        }
    }

    /// Waits until there is something to do; it may be less than it seems.
    pub(crate) async fn waiting(&self) {
        let idle = {
            let queue = self.queue();
            queue.devices.is_empty() && !queue.overflowed && !queue.database && !queue.rules
        };
        if idle {
            self.0.bell.notified().await;
        }
    }

    /// These devices are going to be looked at: what they send from now on waits until that is done.
    pub(super) fn begin(&self, devices: impl Iterator<Item = DeviceId>) {
        for device in devices {
            if let Some(entry) = self.shard(device).get_mut(&device)
                && matches!(entry.state, EntryState::Known(_))
            {
                entry.state = EntryState::Waiting(Backlog::of(entry.generation));
            }
        }
    }

    /// A device was looked at, and this is known of it; `None` if that came to nothing.
    pub(super) fn finish(&self, device: DeviceId, watch: &Watch, known: Option<Known>) {
        let mut shard = self.shard(device);
        let Some(entry) = shard.get_mut(&device) else {
            return;
        };
        let EntryState::Waiting(backlog) = &mut entry.state else {
            return;
        };
        if self.queue().devices.contains_key(&device) {
            return;
        }
        let Some(mut known) = known else {
            shard.remove(&device);
            return;
        };
        let backlog = std::mem::take(backlog).read_by(watch.generation);
        let from = known
            .judge(watch, &backlog.samples, backlog.newest)
            .into_iter()
            .chain(backlog.missed)
            .min();
        match from {
            Some(from) => self.wait(&mut shard, device, from, watch.generation),
            None => {
                entry.generation = watch.generation;
                entry.state = EntryState::Known(known);
            }
        }
    }

    /// What was believed of a device counts no more, and it is looked at anew.
    pub(super) fn recheck(&self, device: DeviceId, from: DateTime<Utc>) {
        let mut shard = self.shard(device);
        if shard
            .get(&device)
            .is_some_and(|entry| matches!(entry.state, EntryState::Known(_)))
        {
            let generation = self.watched().generation;
            self.wait(&mut shard, device, from, generation);
        }
    }

    fn shard(&self, device: DeviceId) -> MutexGuard<'_, HashMap<DeviceId, Entry>> {
        let number = usize::try_from(device.0).unwrap_or(0) % SHARDS;
        let shards = &self.0.shards;
        #[expect(clippy::indexing_slicing, reason = "there are SHARDS of them")]
        shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, queue: &Queue) {
        let waiting = i64::try_from(queue.devices.len()).unwrap_or(i64::MAX);
        self.0.metrics.waiting.set(waiting);
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
