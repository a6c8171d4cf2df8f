//! Ends the rights of open streams when their time is over, and looks at all of them now and then.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often everybody's rights are looked at, for what no word came of.
const EVERY: Duration = Duration::from_secs(30);

/// Watches until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    let mut look = Instant::now() + EVERY;
    loop {
        let round = async {
            tokio::select! {
                () = tokio::time::sleep_until(look) => {}
                () = next_end(&app) => {}
                () = app.rights.more() => {}
            }
            let ended = app.end_expired_rights().await;
            if ended > 0 {
                tracing::info!(streams = ended, "rights expired");
            }
            if look <= Instant::now() {
                look = Instant::now() + EVERY;
                if let Err(error) = app.recheck_rights().await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "rights could not be looked at"
                    );
                }
            }
        };
        if stop.run_until_cancelled(round).await.is_none() {
            return;
        }
    }
}

/// Resolves when the next of the rights expires.
async fn next_end(app: &App) {
    let Some(end) = app.rights.next_end() else {
        return std::future::pending().await;
    };
    let left = (end - app.clock.now()).max(TimeDelta::zero());
    // Never for longer than a look is due anyway: the clock may be set meanwhile.
    tokio::time::sleep(left.to_std().unwrap_or_default().min(EVERY)).await;
}
