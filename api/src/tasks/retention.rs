//! Drops what is older than it is to be kept: telemetry by whole days, timeline entries by age and by number.

use std::time::Duration;

use chrono::{Days, TimeDelta};
use setpoint_model::DeviceId;
use setpoint_store::{Error, telemetry::Rollup};
use tokio_util::sync::CancellationToken;

use crate::{app::App, config};

/// How often to look.
const EVERY: Duration = Duration::from_secs(3_600);

/// Rows deleted in one statement.
const STEP: i64 = 5_000;

/// Devices whose model keeps telemetry for less long, looked after in one go.
const DEVICES: i64 = 100;

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
    let samples = past + expire_models(app).await?;
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
    if partitions > 0 || samples > 0 || rollups > 0 || entries > 0 {
        tracing::info!(partitions, samples, rollups, entries, "old data dropped");
    }
    Ok(())
}

/// Deletes what is older than the models of its devices keep it, roll-ups included. Returns how many rows.
async fn expire_models(app: &App) -> Result<u64, Error> {
    let mut rows = 0;
    for (model, seconds) in app.store.telemetry_retentions().await? {
        let keep_from = (app.clock.now() - TimeDelta::seconds(i64::from(seconds))).date_naive();
        let mut after = DeviceId(i64::MIN);
        while let Some(expired) = app
            .store
            .expired_devices(&model, keep_from, after, DEVICES)
            .await?
        {
            // The hours go last: as long as they are there, a round that was broken off is known to be unfinished.
            for table in app.store.telemetry_tables(expired.oldest, keep_from).await? {
                loop {
                    let deleted = app
                        .store
                        .expire_telemetry_of(&table, &expired.devices, keep_from, STEP)
                        .await?;
                    rows += deleted;
                    if deleted < STEP.unsigned_abs() {
                        break;
                    }
                }
            }
            let Some(last) = expired.devices.last() else { break };
            after = *last;
        }
    }
    Ok(rows)
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
