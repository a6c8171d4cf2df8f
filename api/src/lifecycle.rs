//! Tasks that are watched, signs of life, and the order of an end.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A group of tasks of one server, which end together. Cheap to clone.
///
/// A task that panics, or that ends before it was told to, is logged and counted; if it is an essential one the
/// server isn't ready any more and comes to its end.
#[derive(Debug, Clone)]
pub struct Tasks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tracker: TaskTracker,
    stop: CancellationToken,
    watch: Arc<Watch>,
}

/// What all groups of tasks of one server share.
#[derive(Debug)]
struct Watch {
    failures: Counter,
    failed: watch::Sender<Option<&'static str>>,
    pulses: Mutex<Vec<Arc<Beat>>>,
}

#[derive(Debug)]
struct Beat {
    name: &'static str,
    at_least_every: Duration,
    last: Mutex<Instant>,
}

/// A sign of life that a task gives each time it has looked at its work.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Beat>);

impl Pulse {
    /// The task is alive and has got round once more.
    pub fn beat(&self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Tasks {
    /// No tasks yet; failures are counted in `metrics`.
    pub fn new(metrics: &mut Registry) -> Self {
        let failures = Counter::default();
        metrics.register(
            "task_failures",
            "Background tasks that panicked or ended by themselves",
            failures.clone(),
        );
        Self::of(Arc::new(Watch {
            failures,
            failed: watch::Sender::new(None),
            pulses: Mutex::default(),
        }))
    }

    fn of(watch: Arc<Watch>) -> Self {
        Self(Arc::new(Inner {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            watch,
        }))
    }

    /// Another group of tasks, watched together with these and stopped by itself.
    #[must_use]
    pub fn group(&self) -> Self {
        Self::of(Arc::clone(&self.0.watch))
    }

    /// Cancelled when tasks are to finish what they have in hand and end.
    pub fn stopping(&self) -> CancellationToken {
        self.0.stop.clone()
    }

    /// Runs a task without which the server is no use.
    pub fn essential(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.run(name, true, task);
    }

    /// Runs a task that lives until it is told to end, whose failure the server survives.
    pub fn background(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.run(name, false, task);
    }

    /// Runs a task that ends by itself, such as a connection's.
    pub fn short(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let watch = Arc::clone(&self.0.watch);
        self.0.tracker.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                watch.failures.inc();
                tracing::error!(task = name, "a task panicked");
            }
        });
    }

    fn run(&self, name: &'static str, essential: bool, task: impl Future<Output = ()> + Send + 'static) {
        let watch = Arc::clone(&self.0.watch);
        let stop = self.stopping();
        self.0.tracker.spawn(async move {
            let panicked = AssertUnwindSafe(task).catch_unwind().await.is_err();
            if !panicked && stop.is_cancelled() {
                return;
            }
            tracing::error!(
                task = name,
                panicked,
                essential,
                "a task ended before it was told to"
            );
            watch.failures.inc();
            if essential {
                watch
                    .failed
                    .send_if_modified(|failed| failed.replace(name).is_none());
            }
        });
    }

    /// Resolves with the name of the first essential task that failed.
    pub async fn failed(&self) -> &'static str {
        let mut failed = self.0.watch.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(name) => name.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// The essential task that failed, if one did.
    pub fn failure(&self) -> Option<&'static str> {
        *self.0.watch.failed.borrow()
    }

    /// A sign of life for a task that gets round `at_least_every` so often; readiness asks for it.
    pub fn pulse(&self, name: &'static str, at_least_every: Duration) -> Pulse {
        let beat = Arc::new(Beat {
            name,
            at_least_every,
            last: Mutex::new(Instant::now()),
        });
        self.0
            .watch
            .pulses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&beat));
        Pulse(beat)
    }

    /// Tasks whose last sign of life is older than three of their rounds.
    pub fn silent(&self) -> Vec<&'static str> {
        let pulses = self.0.watch.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = pulses.iter().filter(|beat| {
            let last = *beat.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.elapsed() > 3 * beat.at_least_every
        });
        silent.map(|beat| beat.name).collect()
    }

    /// Tells every task to end and waits for them; `false` if some had not ended `within`.
    pub async fn stop(&self, within: Duration) -> bool {
        self.0.stop.cancel();
        self.0.tracker.close();
        tokio::time::timeout(within, self.0.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks() -> Tasks {
        Tasks::new(&mut Registry::default())
    }

    #[tokio::test]
    async fn an_essential_task_that_panics_or_ends_is_noticed() {
        for panics in [true, false] {
            let tasks = tasks();
            tasks.essential("publisher", async move { assert!(!panics, "as asked") });
            assert_eq!(tasks.failed().await, "publisher");
            assert_eq!(tasks.failure(), Some("publisher"));
            assert_eq!(tasks.0.watch.failures.get(), 1);
            assert!(tasks.stop(Duration::from_secs(5)).await);
        }
    }

    #[tokio::test]
    async fn ending_when_told_to_is_no_failure() {
        let tasks = tasks();
        let stop = tasks.stopping();
        tasks.essential("writer", async move { stop.cancelled().await });
        assert!(tasks.stop(Duration::from_secs(5)).await);
        assert_eq!(tasks.failure(), None);
        assert_eq!(tasks.0.watch.failures.get(), 0);
    }

    #[tokio::test]
    async fn the_failure_of_a_lesser_task_is_counted_alone() {
        let tasks = tasks();
        tasks.background("usage", async {});
        tasks.short("connection", async { panic!("as asked") });
        tasks.short("connection", async {});
        while tasks.0.watch.failures.get() < 2 {
            tokio::task::yield_now().await;
        }
        assert!(tasks.stop(Duration::from_secs(5)).await);
        assert_eq!(tasks.failure(), None);
        assert_eq!(tasks.0.watch.failures.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_without_a_sign_of_life_is_named() {
        let tasks = tasks();
        let pulse = tasks.pulse("publisher", Duration::from_secs(5));
        assert!(tasks.silent().is_empty());
        tokio::time::advance(Duration::from_secs(16)).await;
        assert_eq!(tasks.silent(), ["publisher"]);
        pulse.beat();
        assert!(tasks.silent().is_empty());
    }
}
