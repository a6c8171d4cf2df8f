//! Which metrics a device may send, and as what.

use setpoint_model::{
    Serial,
    telemetry::{Parsed, Problem, Reason},
};
use setpoint_store::Error as StoreError;

use super::{
    catalog::{Device, MAX_METRIC_NAMES},
    error::Refused,
    ingest::Ingest,
};

impl Ingest {
    /// The metric id of each sample; `None` when no more names can be known.
    pub(super) async fn metric_ids(&self, parsed: &Parsed<'_>) -> Result<Vec<Option<i32>>, Refused> {
        let catalog = &self.0.catalog;
        let names = || parsed.samples.iter().map(|sample| &*sample.metric);
        let ids = catalog.known(names());
        if ids.iter().all(Option::is_some) {
            return Ok(ids);
        }
        let mut missing: Vec<String> = names()
            .zip(&ids)
            .filter(|(_, id)| id.is_none())
            .map(|(name, _)| name.to_owned())
            .collect();
        missing.sort_unstable();
        missing.dedup();
        // One payload can't bring more new names than its device may have.
        missing.truncate(self.0.max_device_metrics);
        catalog.learn(&self.0.store, &missing).await?;
        Ok(catalog.known(names()))
    }

    /// Records metrics that are new to the device, and refuses those beyond its limit and samples of another type.
    pub(super) async fn admit_metrics(
        &self,
        serial: &Serial,
        device: &Device,
        parsed: &mut Parsed<'_>,
        ids: Vec<Option<i32>>,
    ) -> Result<Vec<Option<i32>>, Refused> {
        let kinds = || parsed.samples.iter().map(|sample| sample.value.kind());
        if device.takes(ids.iter().copied().zip(kinds())) {
            return Ok(ids);
        }
        let known = parsed.samples.iter().zip(&ids);
        let known = known.filter_map(|(sample, id)| Some(((*id)?, &*sample.metric, sample.value.kind())));
        let (mut fresh, open, had) = device.unrecorded(known);
        let room = self.0.max_device_metrics.saturating_sub(had);
        let refused = fresh.split_off(fresh.len().min(room));
        fresh.extend(open);
        if !fresh.is_empty() {
            match self.0.store.add_device_metrics(device.id, &fresh).await {
                Ok(recorded) => device.record(&recorded),
                Err(StoreError::Reference { .. }) => {
                    self.0.catalog.forget(serial);
                    return Err(Refused::Gone);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let Parsed {
            samples, problems, ..
        } = parsed;
        let mut admitted = ids;
        let mut told: Vec<&str> = Vec::new();
        for (sample, id) in samples.iter().zip(&mut admitted) {
            let metric = &*sample.metric;
            let (reason, message) = match *id {
                None if self.0.catalog.is_full() => {
                    let message = format!("there are at most {MAX_METRIC_NAMES} metric names on this server");
                    (Reason::TooMany, message)
                }
                // Without an id it was not even looked up.
                known if known.is_none_or(|id| refused.iter().any(|metric| metric.id == id)) => {
                    let message = format!("a device has at most {} metrics", self.0.max_device_metrics);
                    (Reason::TooMany, message)
                }
                None => continue,
                Some(known) => match (device.kind(known, metric), sample.value.kind()) {
                    (Some(kind), sent) if kind != sent => {
                        let (kind, sent) = (kind.article(), sent.article());
                        (Reason::Type, format!("is {kind} on this device, not {sent}"))
                    }
                    _ => continue,
                },
            };
            *id = None;
            // Of a metric beyond a limit once is enough.
            if reason == Reason::TooMany {
                if told.contains(&metric) {
                    continue;
                }
                told.push(metric);
            }
            problems.push(Problem {
                item: sample.item,
                key: Some(metric.to_owned()),
                reason,
                message: message.into(),
            });
        }
        Ok(admitted)
    }
}
