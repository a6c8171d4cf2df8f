//! Telemetry: taking it from devices, and reading it back.

mod catalog;
mod error;
mod ingest;
mod metrics;
mod queue;

use chrono::{DateTime, Utc};
use setpoint_model::{
    DeviceId, Serial,
    telemetry::{Aggregate, Bucket},
};
use setpoint_store::telemetry::{History, Latest, Position, Reading};

use super::{Actor, App, Error, Principal, policy::Action};

pub use error::IngestError;
pub use ingest::{Ingest, Report};
pub use metrics::Metrics;
pub use queue::{Batch, NotStored, Receipt};

/// Which part of a device's history is wanted.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    /// The metrics by name; `None` for all.
    pub metrics: Option<&'a [String]>,
    /// The earliest time.
    pub from: DateTime<Utc>,
    /// The first time that is too late.
    pub to: DateTime<Utc>,
    /// In buckets of this width, each brought down to one value; `None` for the samples as they came.
    pub buckets: Option<(Bucket, Aggregate)>,
    /// Where the page before ended.
    pub after: Option<Position>,
    /// The most readings wanted.
    pub limit: i64,
}

impl App {
    /// Stores telemetry for a device, on its own behalf or on that of a holder of `telemetry:write`.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::NotFound`]; [`Error::Malformed`] or [`Error::Invalid`] when nothing could be
    /// stored; [`Error::Unavailable`] and [`Error::Stopping`] when trying again may help.
    pub async fn ingest(&self, actor: &Actor, serial: &Serial, payload: &[u8]) -> Result<Report, Error> {
        if actor.principal != Principal::Device(serial.clone()) {
            self.authorize_device(actor, Action::WriteTelemetry, serial)
                .await?;
        }
        let report = self
            .ingest
            .from_http(serial, payload)
            .await
            .map_err(|error| match error {
                IngestError::Malformed(malformed) => Error::invalid("body", malformed.to_string()),
                IngestError::NoDevice => Error::NotFound { what: "device" },
                IngestError::Store(error) => error.into(),
                IngestError::Stopping => Error::Stopping,
                IngestError::NotStored(error) => Error::invalid("body", error.to_string()),
            })?;
        self.presence.seen(serial, self.clock.now());
        if report.stored == 0 && !report.problems.is_empty() {
            let errors = report.problems.listed().iter().map(|problem| {
                let item = problem.item.map_or(String::new(), |item| format!("[{item}]"));
                let key = problem
                    .key
                    .as_ref()
                    .map_or(String::new(), |key| format!(".{key}"));
                (format!("body{item}{key}"), problem.message.to_string())
            });
            return Err(Error::Invalid {
                errors: errors.collect(),
            });
        }
        Ok(report)
    }

    /// A device's history, oldest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `telemetry:read`, [`Error::NotFound`] for an unknown device.
    pub async fn telemetry(
        &self,
        actor: &Actor,
        serial: &Serial,
        query: Query<'_>,
    ) -> Result<Vec<Reading>, Error> {
        let device_id = self.readable_device(actor, serial).await?;
        let Query {
            metrics,
            from,
            to,
            buckets,
            after,
            limit,
        } = query;
        let history = History {
            device_id,
            metrics,
            from,
            to,
            after,
            limit,
        };
        Ok(match buckets {
            Some((bucket, aggregate)) => self.store.telemetry_buckets(&history, bucket, aggregate).await?,
            None => self.store.telemetry(&history).await?,
        })
    }

    /// The newest sample of each metric that a device has, by name.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `telemetry:read`, [`Error::NotFound`] for an unknown device.
    pub async fn latest_telemetry(&self, actor: &Actor, serial: &Serial) -> Result<Vec<Reading>, Error> {
        let device_id = self.readable_device(actor, serial).await?;
        Ok(self
            .store
            .latest_telemetry(Latest {
                device_id,
                now: self.clock.now(),
            })
            .await?)
    }

    async fn readable_device(&self, actor: &Actor, serial: &Serial) -> Result<DeviceId, Error> {
        self.authorize_device(actor, Action::ReadTelemetry, serial)
            .await?;
        self.store
            .device_id(serial)
            .await?
            .ok_or(Error::NotFound { what: "device" })
    }
}
