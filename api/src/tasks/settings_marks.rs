//! Writes which versions were published and delivered, many in one statement.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::gather::{ENOUGH, gather};
use crate::app::App;

/// Marks in one statement.
const STEP: usize = 2_000;

/// Pause before another attempt while Postgres is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes marks until `stop`, then the last ones.
pub async fn run(app: App, stop: CancellationToken) {
    while stop
        .run_until_cancelled(app.settings.marks.wait())
        .await
        .is_some()
    {
        gather(&stop, ENOUGH, || app.settings.marks.count()).await;
        if let Err(error) = flush(&app).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "delivery marks wait for Postgres"
            );
            stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
        }
    }
    if let Err(error) = flush(&app).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "stopped without Postgres; delivery marks are lost"
        );
    }
}

/// Writes all that is waiting.
async fn flush(app: &App) -> Result<(), setpoint_store::Error> {
    loop {
        let marks = app.settings.marks.next(STEP);
        if marks.is_empty() {
            return Ok(());
        }
        app.store.mark_settings(&marks).await?;
        app.settings.marks.written(marks);
    }
}
