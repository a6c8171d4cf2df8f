//! What ingest knows by heart: metric ids by name, devices by serial.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Utc};
use setpoint_model::{DeviceId, Serial, telemetry::Kind};
use setpoint_store::{
    Store,
    telemetry::{DeviceMetric, TelemetryDevice},
};

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
    sends: Mutex<Sends>,
    /// Counts how often what is known was said to be outdated, and up to where it was looked up again.
    outdated: AtomicU64,
    looked_up: AtomicU64,
    /// The latest arrival time given to one of its samples, in microseconds since 1970.
    arrival: AtomicI64,
}

/// What a device sends.
struct Sends {
    model: Box<str>,
    /// Its metrics with their types, sorted; `None` where the next sample decides.
    metrics: Vec<(i32, Option<Kind>)>,
    /// Metric name to the type that the model declares.
    declared: BTreeMap<String, Kind>,
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
        let outdated = match &known {
            None => 0,
            Some(device) => match device.outdated() {
                Some(outdated) => outdated,
                None => return Ok(known),
            },
        };
        let forgotten = self.forgotten.load(Ordering::SeqCst);
        let Some(found) = store.telemetry_device(serial).await? else {
            if known.is_some() {
                self.forget(serial);
            }
            return Ok(None);
        };
        if let Some(device) = known {
            if device.id == found.id {
                device.look_up_again(found, outdated);
                return Ok(Some(device));
            }
            self.forget(serial);
            return Box::pin(self.device(store, serial)).await;
        }
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

    /// The device of this serial, if nothing has to be looked up for it.
    pub(super) fn known_device(&self, serial: &Serial) -> Option<Arc<Device>> {
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        let device = devices.get(serial)?;
        device.outdated().is_none().then(|| Arc::clone(device))
    }

    /// Forgets a device that was deleted: its serial may come back as another one.
    pub(super) fn forget(&self, serial: &Serial) {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        devices.remove(serial);
    }

    /// What a device may send was changed: it is looked up again.
    pub(super) fn refresh(&self, wanted: impl Fn(&Serial, &Device) -> bool) {
        // One that is being looked up just now is not remembered.
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        for (_, device) in devices.iter().filter(|(serial, device)| wanted(serial, device)) {
            device.outdated.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The ids of those `names` that are known, in their order, `None` for the others.
    pub(super) fn known<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<Option<i32>> {
        let metrics = self.metrics.read().unwrap_or_else(PoisonError::into_inner);
        names.map(|name| metrics.get(name).copied()).collect()
    }

    /// Whether there is no room for more names.
    pub(super) fn is_full(&self) -> bool {
        let metrics = self.metrics.read().unwrap_or_else(PoisonError::into_inner);
        metrics.len() >= MAX_METRIC_NAMES
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
        Self {
            id: found.id,
            sends: Mutex::new(Sends::from(found)),
            outdated: AtomicU64::new(0),
            looked_up: AtomicU64::new(0),
            arrival: AtomicI64::new(0),
        }
    }

    /// The mark up to which it is to be looked up again, if it is.
    fn outdated(&self) -> Option<u64> {
        let outdated = self.outdated.load(Ordering::SeqCst);
        (outdated != self.looked_up.load(Ordering::SeqCst)).then_some(outdated)
    }

    fn look_up_again(&self, found: TelemetryDevice, outdated: u64) {
        let mut sends = self.sends();
        // Of two at once the later look tells more.
        if self.looked_up.fetch_max(outdated, Ordering::SeqCst) < outdated {
            *sends = Sends::from(found);
        }
    }

    fn sends(&self) -> MutexGuard<'_, Sends> {
        self.sends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is of this model.
    pub(super) fn is_of(&self, model: &str) -> bool {
        *self.sends().model == *model
    }

    /// Whether the device sends all of these metrics, and each as this type.
    pub(super) fn takes(&self, mut samples: impl Iterator<Item = (Option<i32>, Kind)>) -> bool {
        let sends = self.sends();
        samples.all(|(id, kind)| id.and_then(|id| sends.kind(id)) == Some(Some(kind)))
    }

    /// Those of the samples' metrics that are to be recorded first, by id: the ones that are new to the device, and the
    /// ones whose type is open; and how many metrics the device has.
    pub(super) fn unrecorded<'a>(
        &self,
        samples: impl Iterator<Item = (i32, &'a str, Kind)>,
    ) -> (Vec<DeviceMetric>, Vec<DeviceMetric>, usize) {
        let sends = self.sends();
        let (mut fresh, mut open) = (BTreeMap::new(), BTreeMap::new());
        for (id, name, kind) in samples {
            let declared = sends.declared.get(name);
            let list = match sends.kind(id) {
                // A sample that is not of the declared type is not stored, and says nothing.
                _ if declared.is_some_and(|declared| *declared != kind) => continue,
                Some(Some(_)) => continue,
                Some(None) => &mut open,
                None => &mut fresh,
            };
            let declared = declared.is_some();
            list.entry(id).or_insert(DeviceMetric { id, kind, declared });
        }
        let had = sends.metrics.len();
        (fresh.into_values().collect(), open.into_values().collect(), had)
    }

    /// Remembers of which type metrics are.
    pub(super) fn record(&self, recorded: &[(i32, Kind)]) {
        let metrics = &mut self.sends().metrics;
        for (id, kind) in recorded {
            match metrics.binary_search_by_key(id, |(known, _)| *known) {
                Ok(index) => {
                    if let Some((_, known)) = metrics.get_mut(index) {
                        *known = Some(*kind);
                    }
                }
                Err(index) => metrics.insert(index, (*id, Some(*kind))),
            }
        }
    }

    /// The type that a metric has on this device, if there is one.
    pub(super) fn kind(&self, id: i32, name: &str) -> Option<Kind> {
        let sends = self.sends();
        let declared = sends.declared.get(name).copied();
        declared.or_else(|| sends.kind(id).flatten())
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

impl Sends {
    /// The type of a metric that the device sends; `None` if it doesn't.
    fn kind(&self, id: i32) -> Option<Option<Kind>> {
        let index = self.metrics.binary_search_by_key(&id, |(known, _)| *known).ok()?;
        self.metrics.get(index).map(|(_, kind)| *kind)
    }
}

impl From<TelemetryDevice> for Sends {
    fn from(found: TelemetryDevice) -> Self {
        let mut metrics = found.metrics;
        metrics.sort_unstable_by_key(|(id, _)| *id);
        Self {
            model: found.model.into_boxed_str(),
            metrics,
            declared: found.declared,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn device(metrics: Vec<(i32, Option<Kind>)>, declared: &[(&str, Kind)]) -> Device {
        let declared = declared.iter().map(|(name, kind)| ((*name).to_owned(), *kind));
        Device::new(TelemetryDevice {
            id: DeviceId(1),
            model: "home".to_owned(),
            metrics,
            declared: declared.collect(),
        })
    }

    #[test]
    fn arrivals_never_overlap() {
        let device = device(vec![], &[]);
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let micros = TimeDelta::microseconds;
        assert_eq!(device.reserve_arrival(now, 3), now);
        assert_eq!(device.reserve_arrival(now, 1), now + micros(3));
        assert_eq!(device.reserve_arrival(now + micros(2), 1), now + micros(4));
        assert_eq!(device.reserve_arrival(now + micros(100), 1), now + micros(100));
    }

    #[test]
    fn metrics_are_recorded_once_with_the_type_of_their_first_sample() {
        use Kind::{Boolean, Number, String};
        let device = device(vec![(5, Some(Number)), (2, None)], &[("door", Boolean)]);
        assert!(device.takes([(Some(5), Number)].into_iter()));
        for other in [
            (Some(5), String),
            (Some(2), Number),
            (Some(9), Number),
            (None, Number),
        ] {
            assert!(!device.takes([(Some(5), Number), other].into_iter()), "{other:?}");
        }
        let metric = |id, kind, declared| DeviceMetric { id, kind, declared };
        let samples = [
            (5, "t", String),
            (9, "u", Number),
            (9, "u", String),
            (2, "v", String),
            (1, "door", Number),
            (1, "door", Boolean),
        ];
        assert_eq!(
            device.unrecorded(samples.into_iter()),
            (
                vec![metric(1, Boolean, true), metric(9, Number, false)],
                vec![metric(2, String, false)],
                2
            )
        );
        // Another server was first with one of them.
        device.record(&[(1, Boolean), (9, String), (2, String)]);
        assert_eq!(device.unrecorded(samples.into_iter()), (vec![], vec![], 4));
        assert_eq!(device.kind(9, "u"), Some(String));
        assert_eq!(
            (device.kind(7, "door"), device.kind(7, "x")),
            (Some(Boolean), None)
        );
    }
}
