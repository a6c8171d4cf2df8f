//! Removes telemetry that is to go, in small steps with rests as long as they took: what deleted devices leave, and metrics
//! whose removal a request did not end. Any server does so; leases say who is at what.

use std::time::Duration;

use chrono::TimeDelta;
use setpoint_model::DeviceId;
use setpoint_store::{Error, telemetry::Series};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::app::{App, telemetry::Removed};

/// How often to look without a hint, and how often a deleted device is looked at until it is settled.
const EVERY: Duration = Duration::from_secs(60);
const AGAIN: TimeDelta = TimeDelta::seconds(60);

/// For how long one works on something before others have their turn.
const TURN: Duration = Duration::from_secs(300);
const METRIC_TURN: Duration = Duration::from_secs(60);

/// Looks when it is told to and every minute, until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    loop {
        let round = async {
            let outcome = async {
                remove_metric(&app).await?;
                purge(&app).await.map_err(crate::app::Error::from)
            };
            if let Err(error) = outcome.await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "telemetry that is to go stays for now"
                );
                tokio::time::sleep(EVERY).await;
            }
            // Without a hint it is time as well.
            let _ = timeout(EVERY, app.hints.purges.next()).await;
        };
        if stop.run_until_cancelled(round).await.is_none() {
            return;
        }
    }
}

/// Goes on with one removal of a metric that is due.
async fn remove_metric(app: &App) -> Result<(), crate::app::Error> {
    let lease = app.telemetry_lease(METRIC_TURN);
    let Some(removal) = app.store.due_removals(lease, 1).await?.pop() else {
        return Ok(());
    };
    let Series {
        serial, metric_id, ..
    } = &removal.series;
    if removal.done {
        let strays = app.remove_strays(&removal.series).await?;
        tracing::debug!(%serial, metric_id, strays, "a removal of samples is settled");
    } else {
        let until = Instant::now() + METRIC_TURN;
        let Removed { deleted, done } = app.remove_series(&removal.series, until).await?;
        tracing::info!(%serial, metric_id, deleted, done, "samples deleted");
    }
    // There may be others.
    app.hints.purges.everything();
    Ok(())
}

/// One round over all deleted devices that are due. A device is forgotten after a round that began when nothing of it
/// could be on its way any more.
///
/// # Errors
/// When the database fails; the next round goes on.
pub async fn purge(app: &App) -> Result<(), Error> {
    let due = app.store.due_purges(app.telemetry_lease(TURN)).await?;
    if due.is_empty() {
        return Ok(());
    }
    let devices: Vec<DeviceId> = due.iter().map(|(device_id, _)| *device_id).collect();
    let Some(rows) = purge_devices(app, &devices).await? else {
        app.hints.purges.everything();
        return app.store.release_purges(&devices, app.clock.now()).await;
    };
    for device_id in &devices {
        app.store.purge_timeline(*device_id).await?;
    }
    for (device_id, _) in due.iter().filter(|(_, settled)| *settled) {
        app.store.finish_purge(*device_id).await?;
    }
    app.store
        .release_purges(&devices, app.clock.now() + AGAIN)
        .await?;
    if rows > 0 {
        tracing::info!(
            devices = devices.len(),
            rows,
            "telemetry of deleted devices removed"
        );
    }
    Ok(())
}

/// Deletes all that these devices have. Returns how many rows; `None` when it was not through in its turn.
async fn purge_devices(app: &App, devices: &[DeviceId]) -> Result<Option<u64>, Error> {
    let (until, mut rows) = (Instant::now() + TURN, 0);
    for (table, _) in app.store.all_telemetry_tables().await? {
        let (deleted, through) = app.delete_from(&table, devices, None, until).await?;
        rows += deleted;
        if !through || Instant::now() >= until {
            return Ok(None);
        }
    }
    Ok(Some(rows))
}
