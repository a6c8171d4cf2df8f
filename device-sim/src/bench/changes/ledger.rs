//! What has happened when, in one run of the bench.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{bench::settings::Document, summary::Latencies};

/// Latencies of single changes.
#[derive(Debug, Default)]
pub(super) struct Phase {
    pub(super) answers: Latencies,
    pub(super) to_device: Latencies,
}

/// What has happened when. Times are microseconds since the run began.
#[derive(Debug)]
pub(super) struct Ledger {
    began: Instant,
    label: String,
    devices: usize,
    busy_now: AtomicBool,
    changed_at: AtomicU64,
    published: AtomicUsize,
    published_at: AtomicU64,
    acknowledged: AtomicUsize,
    acknowledged_at: AtomicU64,
    done: Notify,
    /// Before the change of all.
    pub(super) quiet: Phase,
    /// From its beginning to its last acknowledgement.
    pub(super) busy: Phase,
}

impl Ledger {
    /// Of a change of so many devices to `label`.
    pub(super) fn new(label: String, devices: usize) -> Self {
        Self {
            began: Instant::now(),
            label,
            devices,
            busy_now: AtomicBool::new(false),
            changed_at: AtomicU64::new(0),
            published: AtomicUsize::new(0),
            published_at: AtomicU64::new(0),
            acknowledged: AtomicUsize::new(0),
            acknowledged_at: AtomicU64::new(0),
            done: Notify::new(),
            quiet: Phase::default(),
            busy: Phase::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// What the change of all sets.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// The change of all is being asked for.
    pub(super) fn begin(&self) {
        self.changed_at.store(self.now(), Ordering::Relaxed);
        self.busy_now.store(true, Ordering::Relaxed);
    }

    /// A single change is being asked for: its phase, and the label it sets.
    pub(super) fn single(&self) -> (&Phase, String) {
        let now = self.now();
        if self.busy_now.load(Ordering::Relaxed) {
            (&self.busy, format!("busy-{now}"))
        } else {
            (&self.quiet, format!("quiet-{now}"))
        }
    }

    /// A document arrived; whether it is of the change of all.
    pub(super) fn arrived(&self, payload: &[u8]) -> bool {
        let document = serde_json::from_slice::<Document>(payload);
        let Some(label) = document.ok().and_then(|document| document.settings.label) else {
            return false;
        };
        let now = self.now();
        if label == self.label {
            self.published_at.fetch_max(now, Ordering::Relaxed);
            self.published.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        for (prefix, phase) in [("quiet-", &self.quiet), ("busy-", &self.busy)] {
            let asked = label
                .strip_prefix(prefix)
                .and_then(|asked| asked.parse::<u64>().ok());
            if let Some(asked) = asked {
                phase
                    .to_device
                    .record(Duration::from_micros(now.saturating_sub(asked)));
            }
        }
        false
    }

    /// A device's acknowledgement of the change of all was taken by the server.
    pub(super) fn acknowledged(&self) {
        self.acknowledged_at.fetch_max(self.now(), Ordering::Relaxed);
        if self.acknowledged.fetch_add(1, Ordering::AcqRel) + 1 >= self.devices {
            self.done.notify_one();
        }
    }

    /// Waits until all of them are.
    pub(super) async fn all(&self) {
        while self.acknowledged.load(Ordering::Acquire) < self.devices {
            self.done.notified().await;
        }
    }

    /// How far it is, in words.
    pub(super) fn standing(&self) -> String {
        let published = self.published.load(Ordering::Relaxed);
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        format!(
            "{published} published and {acknowledged} acknowledged of {}",
            self.devices
        )
    }

    /// From the request to the last device's document.
    pub(super) fn all_published(&self) -> Duration {
        self.since_change(&self.published_at)
    }

    /// From the request to the last device's acknowledgement.
    pub(super) fn all_acknowledged(&self) -> Duration {
        self.since_change(&self.acknowledged_at)
    }

    fn since_change(&self, at: &AtomicU64) -> Duration {
        let changed = self.changed_at.load(Ordering::Relaxed);
        Duration::from_micros(at.load(Ordering::Relaxed).saturating_sub(changed))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(label: &str) -> Vec<u8> {
        json!({"version": 3, "settings": {"label": label}})
            .to_string()
            .into_bytes()
    }

    #[tokio::test]
    async fn it_is_done_when_every_device_has_answered() {
        let ledger = Ledger::new("all-1".to_owned(), 2);
        ledger.begin();
        assert!(ledger.arrived(&document("all-1")));
        ledger.acknowledged();
        assert_eq!(ledger.standing(), "1 published and 1 acknowledged of 2");
        assert!(ledger.arrived(&document("all-1")));
        ledger.acknowledged();
        ledger.all().await;
        assert!(ledger.all_published() <= ledger.all_acknowledged());
    }

    #[test]
    fn single_changes_count_in_the_phase_they_were_asked_in() {
        let ledger = Ledger::new("all-1".to_owned(), 1);
        let (_, before) = ledger.single();
        ledger.begin();
        let (_, during) = ledger.single();
        for label in [before.as_str(), during.as_str(), "other", "busy-x"] {
            assert!(!ledger.arrived(&document(label)));
        }
        assert!(!ledger.arrived(b"no document"));
        assert_eq!(ledger.quiet.to_device.quantiles().count, 1);
        assert_eq!(ledger.busy.to_device.quantiles().count, 1);
    }
}
