//! What ingest knows by heart: metric ids by name, devices by serial.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Utc};
use setpoint_model::{DeviceId, Serial};
use setpoint_store::{Store, telemetry::TelemetryDevice};

/// Devices known at once; beyond it all are looked up anew.
const MAX_DEVICES: usize = 250_000;

/// Metric names known at once. Devices can't add more.
pub(super) const MAX_METRIC_NAMES: usize = 100_000;

/// Metric ids and devices, looked up once.
#[derive(Default)]
pub(super) struct Catalog {
    metrics: RwLock<HashMap<Box<str>, i32>>,
    devices: RwLock<HashMap<Serial, Arc<Device>>>,
    /// Counts what was forgotten: a look that began before must not be remembered after.
    forgotten: AtomicU64,
}

/// A device that sends telemetry.
pub(super) struct Device {
    pub(super) id: DeviceId,
    /// The metrics it has, sorted.
    metrics: Mutex<Vec<i32>>,
    /// The latest arrival time given to one of its samples, in microseconds since 1970.
    arrival: AtomicI64,
}

impl Catalog {
    /// The device of this serial; `None` if there is none.
    pub(super) async fn device(
        &self,
        store: &Store,
        serial: &Serial,
    ) -> Result<Option<Arc<Device>>, setpoint_store::Error> {
        let known = self
            .devices
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(serial)
            .cloned();
        if known.is_some() {
            return Ok(known);
        }
        let forgotten = self.forgotten.load(Ordering::SeqCst);
        let Some(found) = store.telemetry_device(serial).await? else {
            return Ok(None);
        };
        let device = Arc::new(Device::new(found));
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        if devices.len() >= MAX_DEVICES {
            devices.clear();
        }
        if self.forgotten.load(Ordering::SeqCst) == forgotten {
            // Two lookups at once agree on the first one's entry, and with it on the arrival times.
            return Ok(Some(Arc::clone(devices.entry(serial.clone()).or_insert(device))));
        }
        Ok(Some(device))
    }

    /// Forgets a device that was deleted: its serial may come back as another one.
    pub(super) fn forget(&self, serial: &Serial) {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        devices.remove(serial);
    }

    /// The ids of those `names` that are known, in their order, `None` for the others.
    pub(super) fn known<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<Option<i32>> {
        let metrics = self.metrics.read().unwrap_or_else(PoisonError::into_inner);
        names.map(|name| metrics.get(name).copied()).collect()
    }

    /// Looks up `names` and adds those that are new, as long as there is room for more names.
    pub(super) async fn learn(&self, store: &Store, names: &[String]) -> Result<(), setpoint_store::Error> {
        let room = {
            let metrics = self.metrics.read().unwrap_or_else(PoisonError::into_inner);
            MAX_METRIC_NAMES.saturating_sub(metrics.len())
        };
        let wanted: Vec<String> = names.iter().take(room).cloned().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let learned = store.metric_ids(&wanted).await?;
        let mut metrics = self.metrics.write().unwrap_or_else(PoisonError::into_inner);
        metrics.extend(learned.into_iter().map(|(name, id)| (name.into_boxed_str(), id)));
        Ok(())
    }
}

impl Device {
    fn new(found: TelemetryDevice) -> Self {
        let mut metrics = found.metrics;
        metrics.sort_unstable();
        Self {
            id: found.id,
            metrics: Mutex::new(metrics),
            arrival: AtomicI64::new(0),
        }
    }

    /// Those of `ids` that the device has not sent before, and how many it has.
    pub(super) fn unseen(&self, ids: impl Iterator<Item = i32>) -> (Vec<i32>, usize) {
        let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unseen: Vec<i32> = ids.filter(|id| metrics.binary_search(id).is_err()).collect();
        unseen.sort_unstable();
        unseen.dedup();
        (unseen, metrics.len())
    }

    /// Remembers that the device has these metrics.
    pub(super) fn add(&self, ids: &[i32]) {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.extend_from_slice(ids);
        metrics.sort_unstable();
        metrics.dedup();
    }

    /// Reserves `count` microseconds at or after `now` that no other sample of this device arrived in: two
    /// messages within one microsecond would otherwise be taken for duplicates.
    pub(super) fn reserve_arrival(&self, now: DateTime<Utc>, count: u32) -> DateTime<Utc> {
        let now = now.timestamp_micros();
        let count = i64::from(count);
        let before = self
            .arrival
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
                Some(now.max(last + 1) + count - 1)
            })
            .unwrap_or_default();
        DateTime::from_timestamp_micros(now.max(before + 1)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn arrivals_never_overlap() {
        let device = Device::new(TelemetryDevice {
            id: DeviceId(1),
            metrics: vec![],
        });
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let micros = TimeDelta::microseconds;
        assert_eq!(device.reserve_arrival(now, 3), now);
        assert_eq!(device.reserve_arrival(now, 1), now + micros(3));
        assert_eq!(device.reserve_arrival(now + micros(2), 1), now + micros(4));
        assert_eq!(device.reserve_arrival(now + micros(100), 1), now + micros(100));
    }

    #[test]
    fn metrics_are_unseen_once() {
        let device = Device::new(TelemetryDevice {
            id: DeviceId(1),
            metrics: vec![5, 2],
        });
        assert_eq!(device.unseen([2, 9, 5, 9, 1].into_iter()), (vec![1, 9], 2));
        device.add(&[1, 9]);
        assert_eq!(device.unseen([2, 9, 5, 9, 1].into_iter()), (vec![], 4));
    }
}
