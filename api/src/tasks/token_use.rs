//! Writes down when API tokens were last used, so that a request doesn't have to.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How exact `last_used_at` is.
const EVERY: Duration = Duration::from_secs(60);

/// Runs until `stop`, then writes once more.
pub async fn run(app: App, stop: CancellationToken) {
    loop {
        let more = stop
            .run_until_cancelled(tokio::time::sleep(EVERY))
            .await
            .is_some();
        if let Err(error) = app.record_token_use().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the use of tokens was not written down"
            );
        }
        if !more {
            return;
        }
    }
}
