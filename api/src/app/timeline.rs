//! The timeline of devices: recorded on the side, read by people.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use setpoint_broker::{Ack, Outcome};
use setpoint_model::{
    Serial,
    timeline::{Entry, Kind},
};
use setpoint_store::timeline::{EntryPosition, StoredEntry};
use tokio::{sync::mpsc, time::Instant};

use super::{Actor, App, Error, policy::Action};
use crate::config;

/// Devices whose entries are counted at once; beyond it the counting begins anew.
const MAX_COUNTED: usize = 100_000;

/// The interval over which entries are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Takes entries for the timeline of devices. Cheap to clone.
///
/// What is more than one device may have in a minute is dropped and counted. [`Self::record`] never waits and may lose:
/// what finds the queue full is dropped as well. [`Self::keep`] loses nothing that it acknowledges.
#[derive(Clone)]
pub struct Timeline(Arc<Shared>);

/// An entry on its way to Postgres, and who waits for it to be there.
pub struct Noted {
    /// The entry.
    pub entry: Entry,
    /// Completed once it is committed; dropped when it never will be, so that the client keeps it.
    pub done: Option<Ack>,
}

struct Shared {
    queue: mpsc::Sender<Noted>,
    limits: config::Timeline,
    counted: Mutex<Counted>,
    dropped: Counter,
}

/// How many entries each device has had in the present window.
struct Counted {
    begun: Instant,
    entries: HashMap<Serial, Count>,
}

#[derive(Default)]
struct Count {
    all: u32,
    refusals: u32,
}

impl Timeline {
    /// A timeline, and the queue from which `tasks::timeline_writer` writes it.
    pub fn new(limits: &config::Timeline, metrics: &mut Registry) -> (Self, mpsc::Receiver<Noted>) {
        let dropped = Counter::default();
        metrics.register(
            "timeline_dropped",
            "Timeline entries dropped by a full queue or a device's limit",
            dropped.clone(),
        );
        let (queue, entries) = mpsc::channel(limits.max_queue);
        let counted = Mutex::new(Counted {
            begun: Instant::now(),
            entries: HashMap::new(),
        });
        (
            Self(Arc::new(Shared {
                queue,
                limits: limits.clone(),
                counted,
                dropped,
            })),
            entries,
        )
    }

    /// Records an entry, unless the device had its share or the queue is full.
    pub fn record(&self, entry: Entry) {
        if !self.within_limits(&entry) || self.0.queue.try_send(Noted { entry, done: None }).is_err() {
            self.0.dropped.inc();
        }
    }

    /// Records what a device said and is told to be safe: `done` is completed once it is committed. Waits while the queue
    /// is full. What is more than the device may have in a minute is acknowledged all the same, or it would come for ever.
    pub async fn keep(&self, entry: Entry, done: Ack) {
        if self.within_limits(&entry) {
            // Closed when the server stops: then it stays unacknowledged.
            let done = Some(done);
            let _ = self.0.queue.send(Noted { entry, done }).await;
        } else {
            self.0.dropped.inc();
            done.complete(Outcome::Accepted);
        }
    }

    fn within_limits(&self, entry: &Entry) -> bool {
        let limits = &self.0.limits;
        let mut counted = self.0.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.begun.elapsed() >= WINDOW || counted.entries.len() >= MAX_COUNTED {
            counted.begun = Instant::now();
            counted.entries = HashMap::new();
        }
        let count = counted.entries.entry(entry.serial.clone()).or_default();
        let refusal = is_refusal(entry.facts.kind());
        let within = count.all < limits.max_per_minute
            && (!refusal || count.refusals < limits.max_refusals_per_minute);
        count.all = count.all.saturating_add(1);
        count.refusals = count.refusals.saturating_add(u32::from(refusal));
        within
    }
}

/// Whether a kind tells of something that a faulty or hostile client can cause at will.
fn is_refusal(kind: Kind) -> bool {
    match kind {
        Kind::LoginRefused
        | Kind::StolenSeen
        | Kind::AccessDenied
        | Kind::AckRejected
        | Kind::SettingsSetRejected
        | Kind::SettingsRejected
        | Kind::TelemetryRejected
        | Kind::ClockAhead
        | Kind::MessageRejected => true,
        Kind::Created
        | Kind::CredentialRotated
        | Kind::CredentialRevoked
        | Kind::Connected
        | Kind::Disconnected
        | Kind::SettingsChanged
        | Kind::SettingsApplied
        | Kind::SettingsSetAccepted
        | Kind::SettingsRefused
        | Kind::SettingsWithheld
        | Kind::SettingsPending
        | Kind::AlertFiring
        | Kind::AlertResolved
        | Kind::CommandResult
        | Kind::FirmwareStatus => false,
    }
}

impl App {
    /// A page of a device's timeline, newest first: what stands behind `after`, of the kinds given (all if none
    /// is).
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:read`, [`Error::NotFound`] for an unknown device.
    pub async fn timeline(
        &self,
        actor: &Actor,
        serial: &Serial,
        kinds: &[Kind],
        after: Option<EntryPosition>,
        limit: i64,
    ) -> Result<Vec<StoredEntry>, Error> {
        self.authorize_device(actor, Action::ReadDevice, serial).await?;
        let device_id = self
            .store
            .device_id(serial)
            .await?
            .ok_or(Error::NotFound { what: "device" })?;
        Ok(self.store.timeline(device_id, kinds, after, limit).await?)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use setpoint_model::timeline::Facts;

    use super::*;

    fn limits() -> config::Timeline {
        config::Timeline {
            retention: Duration::from_secs(86_400),
            max_per_device: 100,
            max_queue: 8,
            max_per_minute: 5,
            max_refusals_per_minute: 2,
            last_seen_every: Duration::from_secs(60),
        }
    }

    fn entry(serial: &str, facts: Facts) -> Entry {
        Entry {
            serial: serial.parse().unwrap(),
            at: DateTime::UNIX_EPOCH,
            facts,
        }
    }

    fn refusal() -> Facts {
        Facts::AckRejected {
            reason: "stale".to_owned(),
        }
    }

    fn applied() -> Facts {
        Facts::SettingsApplied { version: 1 }
    }

    fn taken(queue: &mut mpsc::Receiver<Noted>) -> usize {
        std::iter::from_fn(|| queue.try_recv().ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_has_its_share_per_minute_and_refusals_a_smaller_one() {
        let (timeline, mut queue) = Timeline::new(&limits(), &mut Registry::default());
        for _ in 0..10 {
            timeline.record(entry("A", refusal()));
        }
        assert_eq!(taken(&mut queue), 2);
        timeline.record(entry("B", refusal()));
        assert_eq!(taken(&mut queue), 1, "another device has its own share");
        tokio::time::advance(WINDOW).await;
        for _ in 0..10 {
            timeline.record(entry("A", applied()));
        }
        assert_eq!(taken(&mut queue), 5);
        assert_eq!(timeline.0.dropped.get(), 8 + 5);
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_counts_and_never_waits() {
        let (timeline, mut queue) = Timeline::new(&limits(), &mut Registry::default());
        for number in 0..10 {
            timeline.record(entry(&format!("D{number}"), applied()));
        }
        assert_eq!(timeline.0.dropped.get(), 2);
        assert_eq!(taken(&mut queue), 8);
    }
}
