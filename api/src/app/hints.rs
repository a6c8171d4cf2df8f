//! Hints: "there is work", from a use case to the task that reconciles it.
//!
//! A hint may be lost (a crash, a full queue): the task also looks by timer. It is never the only record.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

/// Beyond this many waiting devices the task is told to look at all of them instead.
const MAX_WAITING: usize = 10_000;

/// The hints of all tasks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// Devices whose settings may be ahead of what was published.
    pub settings: Hint,
}

/// One task's hint: a bounded set of device ids and a bell.
#[derive(Debug, Clone, Default)]
pub struct Hint(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    devices: HashSet<i64>,
    all: bool,
}

/// What a hint asks to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// At these devices.
    At(Vec<i64>),
    /// At everything.
    Everywhere,
}

impl Hint {
    /// Asks for a look at one device.
    pub fn device(&self, id: i64) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.devices.len() < MAX_WAITING {
            waiting.devices.insert(id);
        } else {
            waiting.all = true;
        }
        drop(waiting);
        self.0.bell.notify_one();
    }

    /// Asks for a look at everything.
    pub fn everything(&self) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).all = true;
        self.0.bell.notify_one();
    }

    /// Waits for the next hint and takes all that came in together. One task at a time.
    pub async fn next(&self) -> Look {
        loop {
            let taken = std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if taken.all {
                return Look::Everywhere;
            }
            if !taken.devices.is_empty() {
                return Look::At(taken.devices.into_iter().collect());
            }
            self.0.bell.notified().await;
        }
    }
}
