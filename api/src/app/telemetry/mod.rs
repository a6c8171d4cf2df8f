//! Telemetry: taking it from devices, and reading it back.

mod admit;
mod catalog;
mod error;
mod export;
mod grid;
mod group;
mod ingest;
mod known;
mod metrics;
mod picture;
mod queue;
mod read;
pub(crate) mod removal;

use setpoint_model::{DeviceId, Serial};
use setpoint_store::telemetry::{Latest, Reading};

use super::{Actor, App, Error, Principal, policy::Action};

pub use error::IngestError;
pub use export::Export;
pub use group::{Devices, FIRST, GroupQuery};
pub use ingest::{Ingest, Report};
pub use metrics::Metrics;
pub use picture::{Curve, MAX_DRAWN, Picture, Shape, Sight, Spread};
pub use queue::{Batch, NotStored, Receipt};
pub use read::{Buckets, Pages, Place, Point, Query, Readers};
pub use removal::Removed;

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

    /// The newest sample of each metric that a device has, by name: of those among `metrics`, if that is given.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `telemetry:read`, [`Error::NotFound`] for an unknown device.
    pub async fn latest_telemetry(
        &self,
        actor: &Actor,
        serial: &Serial,
        metrics: Option<&[String]>,
    ) -> Result<Vec<Reading>, Error> {
        let device_id = self.readable_device(actor, serial).await?;
        let wanted = Latest {
            device_id,
            now: self.clock.now(),
        };
        let mut readings = self.store.latest_telemetry(wanted).await?;
        if let Some(metrics) = metrics {
            readings.retain(|reading| metrics.iter().any(|metric| *metric == *reading.metric));
        }
        Ok(readings)
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
