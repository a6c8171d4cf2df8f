//! Makes the partitions of telemetry ahead of time.

use std::time::Duration;

use chrono::Days;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How many days ahead there are partitions.
pub(super) const DAYS_AHEAD: u64 = 7;

/// How often to look.
const EVERY: Duration = Duration::from_secs(3_600);

/// Makes the partitions from the newest there is up to a week ahead: before ingest begins.
///
/// # Errors
/// When the database fails.
pub async fn make(app: &App) -> Result<(), setpoint_store::Error> {
    let today = app.clock.now().date_naive();
    let made = app
        .store
        .make_telemetry_partitions(today, today + Days::new(DAYS_AHEAD))
        .await?;
    app.store
        .make_rollup_partitions(today + Days::new(DAYS_AHEAD))
        .await?;
    if made > 0 {
        tracing::info!(made, "telemetry partitions made");
    }
    Ok(())
}

/// Looks every hour until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(EVERY))
        .await
        .is_some()
    {
        if let Err(error) = make(&app).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "no telemetry partitions could be made"
            );
        }
    }
}
