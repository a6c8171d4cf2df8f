//! Tells of settings that devices have not answered within the time expected of their model.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::App;

/// Looks until `stop`, `every` so often.
pub async fn run(app: App, every: Duration, stop: CancellationToken) {
    let looks = async {
        loop {
            match app.tell_overdue().await {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(every).await,
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "overdue settings wait to be told of"
                    );
                    tokio::time::sleep(every).await;
                }
            }
        }
    };
    stop.run_until_cancelled(looks).await;
}
