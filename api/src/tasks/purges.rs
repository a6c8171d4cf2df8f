//! Removes what is left of deleted devices: telemetry, partition by partition, and timeline entries that came late.

use std::time::Duration;

use chrono::TimeDelta;
use setpoint_store::Error;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often to look.
const EVERY: Duration = Duration::from_secs(60);

/// For how long after its deletion samples of a device may still be on their way to a commit.
const SETTLED_AFTER: TimeDelta = TimeDelta::minutes(15);

/// Looks every minute until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    loop {
        let round = async {
            if let Err(error) = purge(&app).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "deleted devices keep telemetry for now"
                );
            }
            tokio::time::sleep(EVERY).await;
        };
        if stop.run_until_cancelled(round).await.is_none() {
            return;
        }
    }
}

/// One round over all deleted devices. A device is forgotten after a round that began when nothing of it could
/// be on its way any more.
///
/// # Errors
/// When the database fails; the next round goes on.
pub async fn purge(app: &App) -> Result<(), Error> {
    let devices = app.store.purges(app.clock.now() - SETTLED_AFTER).await?;
    if devices.is_empty() {
        return Ok(());
    }
    let partitions = app.store.telemetry_partitions().await?;
    for (device_id, settled) in devices {
        let mut samples = 0;
        for partition in &partitions {
            samples += app.store.purge_partition(partition, device_id).await?;
        }
        app.store.remove_rollups(device_id, None).await?;
        app.store.purge_timeline(device_id).await?;
        if settled {
            app.store.finish_purge(device_id).await?;
        }
        if samples > 0 {
            tracing::info!(%device_id, samples, "telemetry of a deleted device removed");
        }
    }
    Ok(())
}
