//! The removal of one metric of one device, with all of its samples: also the way out for one that has the wrong type.
//!
//! A request notes that it is to go and works on it for a while; `tasks::purges` goes on, on whichever server.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use setpoint_model::{DeviceId, Serial, telemetry::is_metric_name};
use setpoint_store::telemetry::{Lease, Series, Turn};
use tokio::time::Instant;

use crate::app::{Actor, App, Error, policy::Action};

/// Rows deleted in one statement.
const STEP: i64 = 10_000;

/// For how much longer than it may work somebody has the lease of a removal: one statement and its rest.
const MARGIN: Duration = Duration::from_secs(60);

/// For how long after a removal samples may still be on their way to a commit.
pub(crate) const SETTLED_AFTER: TimeDelta = TimeDelta::minutes(15);

/// How long the end of a removal waits for the roll-ups, which may be at work.
const PATIENCE: Duration = Duration::from_secs(3);

/// How far a removal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Samples deleted by this request.
    pub deleted: u64,
    /// Whether nothing is left; otherwise it goes on by itself.
    pub done: bool,
}

impl App {
    /// Deletes the samples of a metric of a device, for as long as `telemetry.delete_within` says; the rest goes on in the
    /// background. When none is left, the metric's type is free again. Asked again, it tells how far that is.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `telemetry:write`; [`Error::Invalid`] without a metric's name; [`Error::NotFound`] for
    /// an unknown device, or a metric that it never sent.
    pub async fn delete_telemetry(
        &self,
        actor: &Actor,
        serial: &Serial,
        metric: Option<&str>,
    ) -> Result<Removed, Error> {
        let action = Action::DeleteTelemetry;
        self.authorize_device(actor, action, serial).await?;
        let metric = metric
            .filter(|name| is_metric_name(name))
            .ok_or_else(|| Error::invalid("metric", "the name of one metric is needed"))?;
        let device_id = self.store.device_id(serial).await?;
        let device_id = device_id.ok_or(Error::NotFound { what: "device" })?;
        let metric_id = self.store.device_metric(device_id, metric).await?;
        let metric_id = metric_id.ok_or(Error::NotFound { what: "metric" })?;
        let series = Series {
            device_id,
            serial: serial.clone(),
            metric_id,
        };
        let entry = self.entry(actor, action.name(), format!("device:{serial}"));
        let entry = entry.after(json!({"metric": metric}));
        let within = self.ingest.delete_within();
        let lease = self.telemetry_lease(within);
        let removed = match self.store.begin_removal(&series, lease, &entry).await? {
            Turn::Ours => self.remove_series(&series, Instant::now() + within).await?,
            turn => Removed {
                deleted: 0,
                done: turn == Turn::Done,
            },
        };
        let Removed { deleted, done } = removed;
        tracing::info!(%serial, metric, deleted, done, by = actor.label(), "samples deleted");
        Ok(removed)
    }

    /// A lease for work of this length.
    pub(crate) fn telemetry_lease(&self, within: Duration) -> Lease {
        let now = self.clock.now();
        let length = TimeDelta::from_std(within + MARGIN).unwrap_or(TimeDelta::MAX);
        Lease {
            now,
            until: now.checked_add_signed(length).unwrap_or(now),
            settled: now - SETTLED_AFTER,
        }
    }

    /// Works on a removal whose lease the caller has, until it is done or it is time; then the lease is given back.
    pub(crate) async fn remove_series(&self, series: &Series, until: Instant) -> Result<Removed, Error> {
        let mut deleted = 0;
        for (table, samples) in self.store.all_telemetry_tables().await? {
            let (rows, through) = self
                .delete_from(&table, &[series.device_id], Some(series.metric_id), until)
                .await?;
            deleted += if samples { rows } else { 0 };
            if !through {
                return self.put_off(series, deleted).await;
            }
        }
        let now = self.clock.now();
        if !self.store.finish_removal(series, now, PATIENCE).await? {
            return self.put_off(series, deleted).await;
        }
        self.ingest.refresh(&series.serial);
        Ok(Removed { deleted, done: true })
    }

    /// Deletes what devices have in one table, of one metric or of all, until nothing is left or it is time. Rests as long as
    /// it works. Returns how many rows, and whether nothing is left.
    pub(crate) async fn delete_from(
        &self,
        table: &str,
        devices: &[DeviceId],
        metric_id: Option<i32>,
        until: Instant,
    ) -> Result<(u64, bool), setpoint_store::Error> {
        let mut deleted = 0;
        loop {
            let begun = Instant::now();
            let step = self
                .store
                .delete_telemetry_rows(table, devices, metric_id, STEP)
                .await?;
            deleted += step;
            let through = step < STEP.unsigned_abs();
            if !through && Instant::now() >= until {
                return Ok((deleted, false));
            }
            tokio::time::sleep(begun.elapsed()).await;
            if through {
                return Ok((deleted, true));
            }
        }
    }

    /// Leaves the rest of a removal to the task.
    async fn put_off(&self, series: &Series, deleted: u64) -> Result<Removed, Error> {
        self.store.release_removal(series, self.clock.now()).await?;
        self.hints.purges.everything();
        Ok(Removed { deleted, done: false })
    }

    /// Removes what was on its way when a removal was done, and forgets that removal.
    pub(crate) async fn remove_strays(&self, series: &Series) -> Result<u64, Error> {
        let mut removed = 0;
        let tables = self.store.all_telemetry_tables().await?;
        for (table, _) in tables.into_iter().filter(|(_, samples)| *samples) {
            loop {
                let step = self.store.remove_strays(&table, series, STEP).await?;
                removed += step;
                if step < STEP.unsigned_abs() {
                    break;
                }
            }
        }
        self.store.forget_removal(series).await?;
        Ok(removed)
    }
}
