//! Presence: what the broker says of sessions, gathered per device until it is written.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use setpoint_model::{Serial, presence::Presence};
use setpoint_store::presence::PresenceChange;
use tokio::sync::Notify;
use uuid::Uuid;

/// Devices that may wait for a write; only when Postgres is away do they add up.
const MAX_WAITING: usize = 1_000_000;

/// Devices whose last word is remembered at once; beyond it all are forgotten and written anew.
const MAX_HEARD: usize = 250_000;

/// What is waiting to be written, newest word per device. Cheap to clone.
///
/// Ten thousand devices that reconnect are ten thousand short locks and a few statements.
#[derive(Debug, Clone)]
pub struct PresenceBook(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    server: Uuid,
    grain: i64,
    waiting: Mutex<Waiting>,
    bell: Notify,
    /// When each device was last noted as seen, in milliseconds since 1970.
    heard: RwLock<HashMap<Serial, AtomicI64>>,
}

/// What the writer takes out at once.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) changes: HashMap<Serial, PresenceChange>,
    pub(crate) seen: HashMap<Serial, DateTime<Utc>>,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.seen.is_empty()
    }
}

impl PresenceBook {
    /// An empty book of the server process `server`; a device's traffic is noted every `grain`.
    pub fn new(server: Uuid, grain: Duration) -> Self {
        Self(Arc::new(Shared {
            server,
            grain: i64::try_from(grain.as_millis()).unwrap_or(i64::MAX),
            waiting: Mutex::default(),
            bell: Notify::new(),
            heard: RwLock::default(),
        }))
    }

    /// The server process whose sessions these are.
    pub fn server(&self) -> Uuid {
        self.0.server
    }

    /// A device came or went; the newest word counts.
    pub fn change(&self, serial: &Serial, presence: Presence, at: DateTime<Utc>) {
        let change = PresenceChange {
            serial: serial.clone(),
            presence,
            last_seen: at,
        };
        self.with(|waiting| {
            if waiting.changes.len() < MAX_WAITING || waiting.changes.contains_key(serial) {
                waiting.changes.insert(serial.clone(), change);
            }
        });
    }

    /// A device was heard of. Noted once per grain, so that a busy device costs no write per message.
    pub fn seen(&self, serial: &Serial, at: DateTime<Utc>) {
        if self.is_news(serial, at) {
            self.with(|waiting| {
                if waiting.seen.len() < MAX_WAITING || waiting.seen.contains_key(serial) {
                    waiting.seen.insert(serial.clone(), at);
                }
            });
        }
    }

    fn is_news(&self, serial: &Serial, at: DateTime<Utc>) -> bool {
        let at = at.timestamp_millis();
        let grain = self.0.grain;
        if let Some(last) = self
            .0
            .heard
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(serial)
        {
            let due = |last: i64| (at - last >= grain).then_some(at);
            return last
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, due)
                .is_ok();
        }
        let mut heard = self.0.heard.write().unwrap_or_else(PoisonError::into_inner);
        if heard.len() >= MAX_HEARD {
            heard.clear();
        }
        heard.insert(serial.clone(), AtomicI64::new(at)).is_none()
    }

    /// Waits until there is something to take. One task at a time.
    pub(crate) async fn waiting(&self) {
        while self
            .0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
        {
            self.0.bell.notified().await;
        }
    }

    /// How many writes wait.
    pub(crate) fn count(&self) -> usize {
        let waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.changes.len() + waiting.seen.len()
    }

    /// Takes what there is.
    pub(crate) fn take(&self) -> Waiting {
        std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts back what could not be written, behind whatever has come since.
    pub(crate) fn put_back(&self, taken: Waiting) {
        self.with(|waiting| {
            for (serial, change) in taken.changes {
                waiting.changes.entry(serial).or_insert(change);
            }
            for (serial, at) in taken.seen {
                waiting.seen.entry(serial).or_insert(at);
            }
        });
    }

    fn with(&self, act: impl FnOnce(&mut Waiting)) {
        act(&mut self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.bell.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn presence(online: bool, second: i64) -> Presence {
        Presence {
            online,
            since: at(second),
            session: Uuid::nil(),
            reason: None,
        }
    }

    fn book() -> (PresenceBook, Serial, Serial) {
        let book = PresenceBook::new(Uuid::nil(), Duration::from_secs(60));
        (book, "A".parse().unwrap(), "B".parse().unwrap())
    }

    #[tokio::test]
    async fn the_newest_word_of_each_device_is_taken_once() {
        let (book, a, _) = book();
        book.change(&a, presence(true, 1), at(1));
        book.change(&a, presence(false, 2), at(2));
        book.waiting().await;
        let taken = book.take();
        assert_eq!(taken.changes.len(), 1);
        assert_eq!(taken.changes[&a].presence, presence(false, 2));
        assert!(book.take().is_empty());
    }

    #[test]
    fn traffic_is_noted_once_a_minute() {
        let (book, a, b) = book();
        book.seen(&a, at(0));
        book.seen(&b, at(30));
        book.seen(&a, at(59));
        assert_eq!(
            book.take().seen,
            HashMap::from([(a.clone(), at(0)), (b.clone(), at(30))])
        );
        book.seen(&a, at(60));
        book.seen(&b, at(60));
        assert_eq!(book.take().seen, HashMap::from([(a, at(60))]));
    }

    #[test]
    fn what_came_since_wins_over_what_is_put_back() {
        let (book, a, b) = book();
        book.change(&a, presence(true, 1), at(1));
        book.change(&b, presence(true, 1), at(1));
        let taken = book.take();
        book.change(&a, presence(false, 2), at(2));
        book.put_back(taken);
        let taken = book.take();
        assert_eq!(taken.changes[&a].presence, presence(false, 2));
        assert_eq!(taken.changes[&b].presence, presence(true, 1));
    }
}
