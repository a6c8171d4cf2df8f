//! Works on bulk changes: a batch at a time, each a transaction of its own that also says when to go on, so that any
//! number of servers can do it and a crash at any moment neither loses a device nor writes it twice.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, Error, changes::Step},
    config,
    lifecycle::Pulse,
};

/// The longest rest after a batch: single changes come in between.
const MAX_REST: Duration = Duration::from_millis(100);
/// Pause before another attempt while Postgres is away.
const PAUSE: Duration = Duration::from_millis(500);
/// How often changes that ended long ago are removed.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);

/// Works until `stop`: on a hint, when a change is due, and `every` so often whatever the hints. `pulse` beats each
/// round.
pub async fn run(
    app: App,
    config: config::BulkChanges,
    every: Duration,
    pulse: Pulse,
    stop: CancellationToken,
) {
    let mut expire_at = Instant::now();
    loop {
        let round = async {
            if let Err(error) = work(&app, every).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "bulk changes wait");
                sleep(PAUSE).await;
            }
            if expire_at <= Instant::now() {
                if let Err(error) = expire(&app, &config).await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "old bulk changes stay for now"
                    );
                }
                return true;
            }
            false
        };
        match stop.run_until_cancelled(round).await {
            Some(true) => expire_at = Instant::now() + EXPIRE_EVERY,
            Some(false) => {}
            None => return,
        }
        pulse.beat();
    }
}

/// One step, and the rest that follows it.
async fn work(app: &App, every: Duration) -> Result<(), Error> {
    let began = Instant::now();
    match app.work_on_changes().await {
        Ok(Step::Wrote) => sleep(began.elapsed().min(MAX_REST)).await,
        Ok(Step::Looked) => {}
        Ok(Step::Idle) => {
            let due = app.store.next_change_due().await?;
            let until = due.map_or(every, |due| (due - app.clock.now()).to_std().unwrap_or_default());
            // Another server may be at work on what is due.
            let until = until.clamp(Duration::from_millis(20), every);
            // Without a hint it is time to look.
            let _ = timeout(until, app.hints.changes.next()).await;
        }
        Err(error) if error.is_contended() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn expire(app: &App, config: &config::BulkChanges) -> Result<(), Error> {
    let retention = TimeDelta::from_std(config.retention).unwrap_or(TimeDelta::MAX);
    let horizon = app.clock.now() - retention;
    while app.store.expire_change(horizon).await? {}
    Ok(())
}
