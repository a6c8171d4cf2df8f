//! Marks of published and delivered versions, gathered until they are written: a storm of ten thousand PUBACKs is
//! ten thousand short locks and a few statements.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use prometheus_client::metrics::counter::Counter;
use setpoint_model::Serial;
use setpoint_store::settings::DeliveryMark;
use tokio::sync::Notify;

/// Versions that may wait to be marked; only when Postgres is away do they add up. Beyond it marks are dropped and
/// counted: the timeline of a version then lacks a step that the device's acknowledgement supplies.
const MAX_WAITING: usize = 100_000;

/// The marks that wait. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Marks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<HashMap<(Serial, i64), Steps>>,
    bell: Notify,
    dropped: Counter,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Steps {
    published: Option<DateTime<Utc>>,
    delivered: Option<DateTime<Utc>>,
}

impl Steps {
    fn mark(self, (serial, version): &(Serial, i64)) -> DeliveryMark {
        let Self { published, delivered } = self;
        DeliveryMark {
            serial: serial.clone(),
            version: *version,
            published,
            delivered,
        }
    }
}

impl Marks {
    pub(super) fn new(dropped: Counter) -> Self {
        Self(Arc::new(Shared {
            waiting: Mutex::default(),
            bell: Notify::new(),
            dropped,
        }))
    }

    /// A version was handed to MQTT.
    pub fn published(&self, serial: &Serial, version: i64, at: DateTime<Utc>) {
        self.add(
            serial,
            version,
            Steps {
                published: Some(at),
                delivered: None,
            },
        );
    }

    /// The device's PUBACK for a version came in.
    pub fn delivered(&self, serial: &Serial, version: i64, at: DateTime<Utc>) {
        self.add(
            serial,
            version,
            Steps {
                published: None,
                delivered: Some(at),
            },
        );
    }

    /// Waits until there is a mark. One task at a time.
    pub(crate) async fn wait(&self) {
        while self.with(|waiting| waiting.is_empty()) {
            self.0.bell.notified().await;
        }
    }

    /// How many marks wait.
    pub(crate) fn count(&self) -> usize {
        self.with(|waiting| waiting.len())
    }

    /// Up to `limit` marks, which wait until they are [`Self::written`].
    pub(crate) fn next(&self, limit: usize) -> Vec<DeliveryMark> {
        self.with(|waiting| {
            waiting
                .iter()
                .take(limit)
                .map(|(key, steps)| steps.mark(key))
                .collect()
        })
    }

    /// These marks are in the database; what was added to one since waits on.
    pub(crate) fn written(&self, marks: Vec<DeliveryMark>) {
        self.with(|waiting| {
            for DeliveryMark {
                serial,
                version,
                published,
                delivered,
            } in marks
            {
                let key = (serial, version);
                if waiting.get(&key) == Some(&Steps { published, delivered }) {
                    waiting.remove(&key);
                }
            }
            if waiting.is_empty() {
                // A storm's room is not kept.
                *waiting = HashMap::new();
            }
        });
    }

    /// The marks of a device that wait: to be asked for before the database is, which may have them a moment later.
    pub(super) fn of(&self, serial: &Serial) -> Vec<DeliveryMark> {
        self.with(|waiting| {
            let own = waiting.iter().filter(|((device, _), _)| device == serial);
            own.map(|(key, steps)| steps.mark(key)).collect()
        })
    }

    /// Adds steps; the first of each kind stays.
    fn add(&self, serial: &Serial, version: i64, steps: Steps) {
        let key = (serial.clone(), version);
        let added = self.with(|waiting| {
            if waiting.len() >= MAX_WAITING && !waiting.contains_key(&key) {
                return false;
            }
            let known = waiting.entry(key).or_default();
            known.published = earliest(known.published, steps.published);
            known.delivered = earliest(known.delivered, steps.delivered);
            true
        });
        if added {
            self.0.bell.notify_one();
        } else {
            self.0.dropped.inc();
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<(Serial, i64), Steps>) -> T) -> T {
        act(&mut self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn earliest(one: Option<DateTime<Utc>>, other: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    #[tokio::test]
    async fn marks_of_one_version_become_one_with_the_first_of_each_step() {
        let marks = Marks::new(Counter::default());
        let a: Serial = "A".parse().unwrap();
        marks.delivered(&a, 7, at(3));
        marks.published(&a, 7, at(1));
        marks.delivered(&a, 7, at(2));
        marks.wait().await;
        let expected = DeliveryMark {
            serial: a.clone(),
            version: 7,
            published: Some(at(1)),
            delivered: Some(at(2)),
        };
        assert_eq!(marks.next(10), std::slice::from_ref(&expected));
        assert_eq!(marks.of(&a), std::slice::from_ref(&expected));
        assert!(marks.of(&"B".parse().unwrap()).is_empty());
        marks.written(vec![expected]);
        assert!(marks.next(10).is_empty());
    }

    #[test]
    fn a_step_that_came_during_the_write_waits_on() {
        let marks = Marks::new(Counter::default());
        let a: Serial = "A".parse().unwrap();
        marks.published(&a, 7, at(1));
        let writing = marks.next(10);
        marks.delivered(&a, 7, at(2));
        marks.written(writing);
        assert_eq!(marks.next(10)[0].delivered, Some(at(2)));
    }

    #[test]
    fn the_marks_are_bounded_and_what_is_dropped_is_counted() {
        let marks = Marks::new(Counter::default());
        let a: Serial = "A".parse().unwrap();
        for version in 0..i64::try_from(MAX_WAITING).unwrap() + 5 {
            marks.delivered(&a, version, at(0));
        }
        assert_eq!(marks.0.dropped.get(), 5);
        assert_eq!(marks.next(usize::MAX).len(), MAX_WAITING);
    }
}
