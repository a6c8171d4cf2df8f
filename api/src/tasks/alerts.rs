//! Judges devices by alert rules: those whose samples may change a state at once, those whose time has come, and all of
//! them now and then.
//!
//! Any number of servers may run it: a device that one is at work on the others leave alone.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, Error, alerts::Step},
    lifecycle::Pulse,
};

/// Devices judged at once.
const BATCH: usize = 200;

/// Pause before another attempt while Postgres is away.
const PAUSE: Duration = Duration::from_millis(500);

/// Pause before another look while all that is due is locked by others.
const LOCKED: Duration = Duration::from_millis(20);

/// What is known between two rounds.
struct Rounds {
    /// When the database is asked whatever was heard.
    ask_at: Instant,
    /// When a state is due, as far as is known.
    due: Option<DateTime<Utc>>,
    /// Whether everything is to be looked at: at the start, something may have been missed.
    everything: bool,
}

/// Judges until `stop`: on a hint, when a state is due, and `every` so often. `pulse` beats each round.
pub async fn run(app: App, every: Duration, pulse: Pulse, stop: CancellationToken) {
    let work = async {
        let mut rounds = Rounds {
            ask_at: Instant::now(),
            due: None,
            everything: true,
        };
        loop {
            match rounds.round(&app, every).await {
                Ok(wait) if wait.is_zero() => {}
                // Whichever comes first; the round looks at everything.
                Ok(wait) => drop(timeout(wait, app.alerts.waiting()).await),
                Err(error) if error.is_contended() => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "alerts wait");
                    rounds.ask_at = Instant::now();
                    sleep(PAUSE).await;
                }
            }
            pulse.beat();
        }
    };
    stop.run_until_cancelled(work).await;
}

impl Rounds {
    /// One round; how long to wait for the next.
    async fn round(&mut self, app: &App, every: Duration) -> Result<Duration, Error> {
        let work = app.alerts.work(BATCH);
        self.everything |= work.everything;
        if self.everything {
            app.store.sweep_alerts().await?;
            self.everything = false;
            self.ask_at = Instant::now();
        }
        if work.database {
            self.ask_at = Instant::now();
        }
        let asks = Instant::now() >= self.ask_at;
        if work.rules || asks {
            app.watch_alerts().await?;
        }
        let mut step = Step::default();
        if !work.devices.is_empty() {
            step = app.judge_waiting(work.devices).await?;
            self.due = self.due.into_iter().chain(step.next_due).min();
        }
        if asks || self.due.is_some_and(|due| due <= app.clock.now()) {
            let stored = app.judge_stored().await?;
            self.due = app.store.next_alert_due().await?;
            if !stored.more {
                app.count_alerts().await?;
                self.ask_at = Instant::now() + every;
            }
            step.more |= stored.more;
            step.busy |= stored.busy;
        }
        if step.more {
            return Ok(Duration::ZERO);
        }
        if step.busy {
            return Ok(LOCKED);
        }
        let until = self
            .due
            .map_or(every, |due| (due - app.clock.now()).to_std().unwrap_or_default());
        let asked = self.ask_at.saturating_duration_since(Instant::now());
        Ok(until.min(asked).max(LOCKED))
    }
}
