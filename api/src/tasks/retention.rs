//! Drops what is older than it is to be kept: telemetry by whole days, timeline entries by age and by number.

use std::time::Duration;

use chrono::{Days, TimeDelta};
use setpoint_store::{Error, telemetry::Rollup};
use tokio_util::sync::CancellationToken;

use crate::{app::App, config};

/// How often to look.
const EVERY: Duration = Duration::from_secs(3_600);

/// Rows deleted in one statement.
const STEP: i64 = 5_000;

/// Looks every hour until `stop`.
pub async fn run(
    app: App,
    telemetry: config::Telemetry,
    timeline: config::Timeline,
    stop: CancellationToken,
) {
    loop {
        let round = async {
            if let Err(error) = expire(&app, &telemetry, &timeline).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "old data could not be dropped"
                );
            }
            tokio::time::sleep(EVERY).await;
        };
        if stop.run_until_cancelled(round).await.is_none() {
            return;
        }
    }
}

/// One round: drops what is too old by now.
///
/// # Errors
/// When the database fails.
pub async fn expire(
    app: &App,
    telemetry: &config::Telemetry,
    timeline: &config::Timeline,
) -> Result<(), Error> {
    let now = app.clock.now();
    // A day more than asked for: a sample that was young enough when it arrived must find its partition.
    let oldest = (now - delta(telemetry.retention)).date_naive() - Days::new(1);
    app.store.telemetry_starts(oldest).await?;
    let partitions = app.store.drop_telemetry_partitions(oldest).await?;
    let mut past = 0;
    loop {
        let deleted = app.store.expire_past_telemetry(oldest, STEP).await?;
        past += deleted;
        if deleted == 0 {
            break;
        }
    }
    let rollups = expire_rollups(app, telemetry).await?;
    let mut entries = 0;
    loop {
        let deleted = app
            .store
            .expire_timeline(now - delta(timeline.retention), STEP)
            .await?
            + app
                .store
                .trim_timelines(i64::from(timeline.max_per_device))
                .await?;
        entries += deleted;
        if deleted == 0 {
            break;
        }
    }
    if partitions > 0 || past > 0 || rollups > 0 || entries > 0 {
        tracing::info!(partitions, samples = past, rollups, entries, "old data dropped");
    }
    Ok(())
}

/// Drops roll-ups by whole months. Returns how many partitions and rows.
async fn expire_rollups(app: &App, config: &config::Telemetry) -> Result<u64, Error> {
    let mut dropped = 0;
    for (rollup, retention) in [
        (Rollup::Minutes, config.rollup_retention_1m),
        (Rollup::Hours, config.rollup_retention_1h),
    ] {
        let oldest =
            (app.clock.now() - delta(retention.unwrap_or(config.retention))).date_naive() - Days::new(1);
        dropped += app.store.drop_rollup_partitions(rollup, oldest).await? as u64;
        loop {
            let deleted = app.store.expire_past_rollups(rollup, oldest, STEP).await?;
            dropped += deleted;
            if deleted == 0 {
                break;
            }
        }
    }
    Ok(dropped)
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
