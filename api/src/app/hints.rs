//! Hints: "there is work", from a use case to the task that reconciles it.
//!
//! A hint may be lost (a crash, a full queue): the task also looks by timer. It is never the only record.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// Beyond this many waiting devices the task is told to look at all of them instead.
const MAX_WAITING: usize = 10_000;

/// The hints of all tasks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// Devices whose settings may be ahead of what was published.
    pub settings: Hint,
    /// Imports of factory serials whose lines are all there.
    pub factory: Hint,
    /// A layer changed under devices: `tasks::settings_layers` finds which in the database.
    pub layers: Hint,
    /// Devices that Home Assistant is told of, or their models, are others than before.
    pub home_assistant: Hint,
    /// Bulk changes that may have something to do.
    pub changes: Hint,
    /// Webhooks that may have something to be told.
    pub webhooks: Hint,
    /// Telemetry that is to go: `tasks::purges` finds which in the database.
    pub purges: Hint,
}

/// One task's hint: a bounded set of device ids and a bell.
#[derive(Debug, Clone, Default)]
pub struct Hint(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    bell: Notify,
    /// The last round of hints that the task is through with.
    done: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Waiting {
    devices: HashSet<i64>,
    all: bool,
    /// How many rounds of hints were taken; those that wait belong to the next.
    taken: u64,
}

/// What a hint asks to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// At these devices.
    At(Vec<i64>),
    /// At everything.
    Everywhere,
}

/// A hint that was given: whoever needs to may wait until the task has looked.
#[derive(Debug)]
pub struct Given {
    round: u64,
    done: watch::Receiver<u64>,
}

impl Given {
    /// Waits until the task has looked, at most for `patience`: it may be busy, or about to end.
    pub async fn looked_at(mut self, patience: Duration) {
        // Without an answer the task looks later.
        let _ = timeout(patience, self.done.wait_for(|done| *done >= self.round)).await;
    }
}

impl Hint {
    /// Asks for a look at one device.
    pub fn device(&self, id: i64) -> Given {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.devices.len() < MAX_WAITING {
            waiting.devices.insert(id);
        } else {
            waiting.all = true;
        }
        let round = waiting.taken + 1;
        drop(waiting);
        self.0.bell.notify_one();
        Given {
            round,
            done: self.0.done.subscribe(),
        }
    }

    /// Asks for a look at everything.
    pub fn everything(&self) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).all = true;
        self.0.bell.notify_one();
    }

    /// Waits for the next hint and takes all that came in together; whoever asks for more is through with what it
    /// took before. One task at a time.
    pub async fn next(&self) -> Look {
        let taken = self
            .0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .taken;
        self.0.done.send_replace(taken);
        loop {
            if let Some(look) = self.take() {
                return look;
            }
            self.0.bell.notified().await;
        }
    }

    fn take(&self) -> Option<Look> {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (devices, all) = (
            std::mem::take(&mut waiting.devices),
            std::mem::take(&mut waiting.all),
        );
        if !all && devices.is_empty() {
            return None;
        }
        waiting.taken += 1;
        Some(if all {
            Look::Everywhere
        } else {
            Look::At(devices.into_iter().collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hint_is_looked_at_once_the_task_asks_for_more() {
        let hint = Hint::default();
        let given = hint.device(7);
        assert_eq!(hint.next().await, Look::At(vec![7]));
        let next = hint.device(8);
        assert!(*given.done.borrow() < given.round, "the task is at it");
        assert_eq!(hint.next().await, Look::At(vec![8]));
        given.looked_at(Duration::from_secs(60)).await;
        assert!(*next.done.borrow() < next.round);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_never_looks_holds_nobody_up_for_ever() {
        Hint::default().device(7).looked_at(Duration::from_secs(60)).await;
    }
}
