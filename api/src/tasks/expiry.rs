//! Ends what is over: the grace of former device tokens, sessions and claims out of date, old audit entries.

use std::time::Duration;

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, Error},
    config,
};

/// How exact the end of a grace is for sessions that stand; signing in ends to the moment.
const EVERY: Duration = Duration::from_secs(2);
/// Rounds between two looks at what merely takes room.
const ROUNDS: u32 = 300;
/// Audit entries removed in one statement.
const STEP: i32 = 5_000;

/// Looks until `stop`.
pub async fn run(app: App, audit: config::Audit, stop: CancellationToken) {
    let mut round = 0_u32;
    loop {
        if let Err(error) = look(&app, &audit, round.is_multiple_of(ROUNDS)).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "what is over could not be ended"
            );
        }
        round = round.wrapping_add(1);
        if stop
            .run_until_cancelled(tokio::time::sleep(EVERY))
            .await
            .is_none()
        {
            return;
        }
    }
}

async fn look(app: &App, audit: &config::Audit, tidy: bool) -> Result<(), Error> {
    let ended = app.end_grace().await?;
    if ended > 0 {
        tracing::info!(devices = ended, "former tokens ended");
    }
    if tidy {
        let removed = app.remove_what_is_over().await? + app.forget_imports().await?;
        let retention = TimeDelta::from_std(audit.retention).unwrap_or(TimeDelta::MAX);
        let horizon = app.clock.now() - retention;
        let mut entries = 0;
        loop {
            let step = app.store.expire_audit(horizon, STEP).await?;
            entries += step;
            if step < i64::from(STEP) {
                break;
            }
        }
        if removed > 0 || entries > 0 {
            tracing::debug!(removed, audit_entries = entries, "what is over was removed");
        }
    }
    Ok(())
}
