//! The removal of one metric of one device, with all of its samples: also the way out for one that has the wrong type.

use serde_json::json;
use setpoint_model::{Serial, telemetry::is_metric_name};
use tokio::time::Instant;

use crate::app::{Actor, App, Error, policy::Action};

/// Samples deleted in one statement.
const STEP: i64 = 10_000;

/// How far a removal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Samples deleted by this request.
    pub deleted: u64,
    /// Whether nothing is left; otherwise the request is to be made again.
    pub done: bool,
}

impl App {
    /// Deletes the samples of a metric of a device, for as long as `telemetry.delete_within` says. When none is left, the
    /// metric's type is free again.
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
        let until = Instant::now() + self.ingest.delete_within();
        let (mut deleted, mut done) = (0, true);
        'all: for partition in self.store.telemetry_partitions().await? {
            loop {
                let step = self
                    .store
                    .delete_metric_samples(&partition, device_id, metric_id, STEP)
                    .await?;
                deleted += step;
                if step < STEP.unsigned_abs() {
                    break;
                }
                if Instant::now() >= until {
                    done = false;
                    break 'all;
                }
            }
        }
        if done {
            self.store.remove_rollups(device_id, Some(metric_id)).await?;
        }
        if done {
            // With nothing left to make them from.
            self.store.remove_rollups(device_id, Some(metric_id)).await?;
        }
        let entry = self.entry(actor, action.name(), format!("device:{serial}"));
        let entry = entry.after(json!({"metric": metric, "deleted": deleted, "done": done}));
        self.store
            .finish_metric_removal((device_id, serial), metric_id, done, &entry)
            .await?;
        if done {
            self.ingest.refresh(serial);
        }
        tracing::info!(%serial, metric, deleted, done, by = actor.label(), "samples deleted");
        Ok(Removed { deleted, done })
    }
}
