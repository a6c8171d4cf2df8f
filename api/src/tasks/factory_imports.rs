//! Settles imports of factory serials: checks what was staged, and lets it take effect as a whole.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often to look for what a lost hint, or another server's end, left undone.
const EVERY: Duration = Duration::from_secs(15);
/// Pause before another attempt while Postgres is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Settles imports until `stop`: on a hint, and by a timer.
pub async fn run(app: App, stop: CancellationToken) {
    loop {
        let round = async {
            if let Err(error) = app.settle_imports().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "imports of serials wait to be settled"
                );
                app.hints.factory.everything();
                tokio::time::sleep(PAUSE).await;
            }
            // Whether a hint or the timer, the look is the same.
            let _ = tokio::time::timeout(EVERY, app.hints.factory.next()).await;
        };
        if stop.run_until_cancelled(round).await.is_none() {
            return;
        }
    }
}
