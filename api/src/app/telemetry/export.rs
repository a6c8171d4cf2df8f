//! Streams of history: a whole range, fetched as its reader takes it.

use prometheus_client::metrics::gauge::Gauge;
use setpoint_model::{DeviceId, Serial};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    super::{Actor, App, Error, policy::Action, rights::RightsWatch},
    read::{Pages, Point, Query},
};

/// How many points are fetched at once. Between two fetches a stream holds nothing of the database.
const STEP: i64 = 2_000;

/// A stream of history. It ends early, with an error, when its reader may not have it any more.
pub struct Export {
    app: App,
    pages: Pages,
    /// What the reader's right to a device's history hangs on.
    of: Option<Of>,
    /// How many points are still wanted; `None` for all.
    left: Option<i64>,
    done: bool,
    _place: Place,
}

/// A place among the streams that are open at once.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    open: Gauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

pub(super) struct Of {
    rights: RightsWatch,
    serial: Serial,
    device_id: DeviceId,
}

impl App {
    /// A device's history as a stream, oldest first, at most `limit` points.
    ///
    /// # Errors
    /// Those of [`App::telemetry`]; [`Error::Busy`] while there are too many.
    pub async fn export_telemetry(
        &self,
        actor: &Actor,
        serial: &Serial,
        query: Query,
        limit: Option<i64>,
    ) -> Result<Export, Error> {
        let device_id = self.readable_device(actor, serial).await?;
        let place = self.export_place()?;
        let rights = self.watch_rights(actor, Action::ReadTelemetry).await?;
        let pages = self.history(device_id, query).await?;
        let of = Of {
            rights,
            serial: serial.clone(),
            device_id,
        };
        Ok(self.export(pages, Some(of), limit, place))
    }

    pub(super) fn export_place(&self) -> Result<Place, Error> {
        let metrics = &self.reading.metrics;
        let permit = self.reading.exports.clone().try_acquire_owned();
        let permit = permit.map_err(|_| {
            metrics.refused.inc();
            Error::Busy {
                what: "streams of history",
            }
        })?;
        metrics.open.inc();
        Ok(Place {
            _permit: permit,
            open: metrics.open.clone(),
        })
    }

    pub(super) fn export(&self, pages: Pages, of: Option<Of>, left: Option<i64>, place: Place) -> Export {
        self.reading.metrics.begun.inc();
        Export {
            app: self.clone(),
            pages: pages.in_steps(STEP),
            of,
            left,
            done: false,
            _place: place,
        }
    }
}

impl Export {
    /// The next points; `None` at the end.
    ///
    /// # Errors
    /// Whatever keeps the rest from being read: what was read so far is not the whole.
    pub async fn next(&mut self) -> Result<Option<Vec<Point>>, Error> {
        if self.done {
            return Ok(None);
        }
        let outcome = self.step().await;
        match &outcome {
            Ok(points) => {
                let count = points.as_ref().map_or(0, Vec::len);
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                self.app.reading.metrics.points.inc_by(count);
                self.done = points.is_none();
            }
            Err(error) => {
                self.done = true;
                self.app.reading.metrics.broken.inc();
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "a stream of history broke off"
                );
            }
        }
        outcome
    }

    async fn step(&mut self) -> Result<Option<Vec<Point>>, Error> {
        let limit = self.left.map_or(STEP, |left| left.min(STEP));
        if limit <= 0 {
            return Ok(None);
        }
        let points = match &self.of {
            None => self.pages.next(limit).await?,
            Some(of) => {
                if !of.rights.sees(&of.serial) {
                    return Err(Error::NotFound { what: "device" });
                }
                tokio::select! {
                    biased;
                    () = of.rights.ended() => return Err(Error::Unauthenticated),
                    points = self.pages.next(limit) => points?,
                }
            }
        };
        if points.is_empty() {
            self.still_there().await?;
            return Ok(None);
        }
        if let Some(left) = &mut self.left {
            *left -= i64::try_from(points.len()).unwrap_or(*left);
        }
        Ok(Some(points))
    }

    /// The history of a device that was deleted meanwhile has no end, but a hole.
    async fn still_there(&self) -> Result<(), Error> {
        let Some(of) = &self.of else { return Ok(()) };
        if self.app.store.device_id(&of.serial).await? == Some(of.device_id) {
            Ok(())
        } else {
            Err(Error::NotFound { what: "device" })
        }
    }
}
