//! Carries changes of layers to the devices under them: a group's settings or members, a model, a schedule's boundary.
//!
//! Any number of servers may run it: what one is at work on the others leave alone, and a document that was computed twice
//! makes one version.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, Error},
    lifecycle::Pulse,
};

/// Pause before another attempt while Postgres is away.
const PAUSE: Duration = Duration::from_millis(500);

/// Pause before another look while all that is due is locked by others.
const LOCKED: Duration = Duration::from_millis(20);

/// Settles until `stop`: on a hint, when the next device is due, and `every` so often. `pulse` beats each step.
pub async fn run(app: App, every: Duration, pulse: Pulse, stop: CancellationToken) {
    let steps = async {
        loop {
            let wait = match step(&app, every).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "changed layers wait to be settled"
                    );
                    app.hints.layers.everything();
                    tokio::time::sleep(PAUSE).await;
                    Duration::ZERO
                }
            };
            pulse.beat();
            if !wait.is_zero() {
                // Whichever comes first; the step looks at everything.
                let _ = tokio::time::timeout(wait, app.hints.layers.next()).await;
            }
        }
    };
    stop.run_until_cancelled(steps).await;
}

/// Makes one step; how long to wait for the next.
async fn step(app: &App, every: Duration) -> Result<Duration, Error> {
    if app.settle_layers().await? {
        return Ok(Duration::ZERO);
    }
    let due = app.store.next_settings_due().await?;
    let until = due.map(|due| (due - app.clock.now()).to_std().unwrap_or(LOCKED));
    Ok(until.map_or(every, |until| until.clamp(LOCKED, every)))
}
