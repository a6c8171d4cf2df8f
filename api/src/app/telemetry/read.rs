//! Reading telemetry: page by page, so that a range of any length is gone through in bounded memory.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use setpoint_model::{
    DeviceId, Serial,
    telemetry::{Aggregate, Bucket, Fill, Value},
};
use setpoint_store::{
    Store,
    telemetry::{History, Position, Reading},
};
use tokio::sync::Semaphore;

use super::{
    super::{Actor, App, Error},
    grid::{Column, Grid},
};
use crate::config;

/// The span of time that an export of samples looks at first.
const FIRST_SPAN: TimeDelta = TimeDelta::hours(1);
/// The shortest span that an export looks at.
const SHORTEST_SPAN: TimeDelta = TimeDelta::milliseconds(1);

/// Which part of a history is wanted.
#[derive(Debug, Clone)]
pub struct Query {
    /// The metrics by name; `None` for all.
    pub metrics: Option<Vec<String>>,
    /// The earliest time.
    pub from: DateTime<Utc>,
    /// The first time that is too late.
    pub to: DateTime<Utc>,
    /// In buckets, each brought down to one value; `None` for the samples as they came.
    pub buckets: Option<Buckets>,
    /// Where the page before ended.
    pub after: Option<Place>,
}

/// How samples are brought down to buckets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Buckets {
    /// Their width.
    pub width: Bucket,
    /// How the samples of one become one value.
    pub aggregate: Aggregate,
    /// What stands in one without samples.
    pub fill: Fill,
}

/// One value of a history.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// When it was taken, or the beginning of its bucket.
    pub at: DateTime<Utc>,
    /// The device, where there may be several.
    pub device: Option<(DeviceId, Serial)>,
    /// The metric's name.
    pub metric: Arc<str>,
    /// The metric's id.
    pub metric_id: i32,
    /// The value; `None` in a bucket without samples.
    pub value: Option<Value<'static>>,
}

/// A point's place in the order of a history: by time, device and metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The point's time.
    pub at: DateTime<Utc>,
    /// The device; 0 where there is only one.
    pub device: DeviceId,
    /// The metric.
    pub metric_id: i32,
}

impl Point {
    /// Its place in the order.
    pub fn place(&self) -> Place {
        Place {
            at: self.at,
            device: self.device.as_ref().map_or(DeviceId(0), |(id, _)| *id),
            metric_id: self.metric_id,
        }
    }
}

impl From<Reading> for Point {
    fn from(reading: Reading) -> Self {
        Self {
            at: reading.at,
            device: None,
            metric: reading.metric.into(),
            metric_id: reading.metric_id,
            value: Some(reading.value),
        }
    }
}

/// What reading telemetry needs beside the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readers {
    /// The most points of an answer that is worked out as a whole.
    pub(super) max_points: usize,
    /// The most devices of a query over many.
    pub(super) max_group_devices: usize,
    /// The longest that one may take.
    pub(super) group_timeout: Duration,
    /// A place for each export.
    pub(super) exports: Arc<Semaphore>,
    pub(super) metrics: ReadMetrics,
}

/// What reading tells Prometheus.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadMetrics {
    pub(super) open: Gauge,
    pub(super) begun: Counter,
    pub(super) refused: Counter,
    pub(super) broken: Counter,
    pub(super) points: Counter,
    pub(super) too_large: Counter,
    pub(super) too_slow: Counter,
}

impl Readers {
    /// With the limits of the configuration.
    pub fn new(limits: &config::Telemetry, registry: &mut Registry) -> Self {
        Self {
            max_points: limits.max_points,
            max_group_devices: limits.max_group_devices,
            group_timeout: limits.group_timeout,
            exports: Arc::new(Semaphore::new(limits.max_exports.min(Semaphore::MAX_PERMITS))),
            metrics: ReadMetrics::register(registry),
        }
    }

    /// Refuses more points than are worked out at once.
    pub(super) fn check(&self, buckets: u64, series: u64, field: &'static str) -> Result<(), Error> {
        let points = buckets.saturating_mul(series);
        if usize::try_from(points).is_ok_and(|points| points <= self.max_points) {
            return Ok(());
        }
        self.metrics.too_large.inc();
        let max = self.max_points;
        Err(Error::invalid(
            field,
            format!(
                "{buckets} buckets of {series} series are more than {max} points: take wider buckets, a shorter range or fewer metrics"
            ),
        ))
    }
}

impl ReadMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("telemetry");
        registry.register("exports_open", "Open streams of history", metrics.open.clone());
        for (name, help, counter) in [
            ("exports", "Streams of history begun", &metrics.begun),
            (
                "exports_refused",
                "Streams of history refused because there were too many",
                &metrics.refused,
            ),
            (
                "exports_broken",
                "Streams of history that broke off before their end",
                &metrics.broken,
            ),
            (
                "exported_points",
                "Points sent in streams of history",
                &metrics.points,
            ),
            (
                "reads_too_large",
                "Queries refused because of too many points or devices",
                &metrics.too_large,
            ),
            (
                "reads_too_slow",
                "Queries over many devices that took too long",
                &metrics.too_slow,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        metrics
    }
}

/// A history that is read page by page.
#[derive(Debug)]
pub struct Pages {
    store: Store,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// As it is stored.
    Walk(Walk),
    /// Worked out as a whole.
    Grid(Grid, usize),
}

impl Pages {
    pub(super) fn of_grid(store: Store, grid: Grid, after: Option<Place>) -> Self {
        let begin = after.map_or(0, |after| grid.behind(after));
        Self {
            store,
            source: Source::Grid(grid, begin),
        }
    }

    /// From here on each query looks at no more of the range than it needs, however many there will be.
    #[must_use]
    pub(super) fn in_steps(mut self, step: i64) -> Self {
        if let Source::Walk(walk) = &mut self.source {
            let width = walk.query.buckets.map(|buckets| buckets.width.width());
            let steps = i32::try_from(step).unwrap_or(i32::MAX);
            walk.span = Some(match width {
                Some(width) => width.checked_mul(steps).unwrap_or(width),
                None => FIRST_SPAN,
            });
        }
        self
    }

    /// The next points, at most `limit`; empty at the end, and only there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn next(&mut self, limit: i64) -> Result<Vec<Point>, Error> {
        match &mut self.source {
            Source::Walk(walk) => {
                let readings = walk.next(&self.store, limit).await?;
                Ok(readings.into_iter().map(Point::from).collect())
            }
            Source::Grid(grid, begin) => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let (points, end) = grid.page(*begin, limit);
                *begin = end;
                Ok(points)
            }
        }
    }
}

/// A walk along a device's stored history.
#[derive(Debug)]
struct Walk {
    device_id: DeviceId,
    query: Query,
    /// What is before has been read.
    from: DateTime<Utc>,
    /// Where within `from..` the last query ended, if it was not at its end.
    after: Option<Position>,
    /// How much time the next query looks at; `None` for all that is left.
    span: Option<TimeDelta>,
    done: bool,
}

impl Walk {
    async fn next(&mut self, store: &Store, limit: i64) -> Result<Vec<Reading>, Error> {
        while !self.done {
            let to = self.end();
            let history = History {
                device_id: self.device_id,
                metrics: self.query.metrics.as_deref(),
                from: self.from,
                to,
                after: self.after,
                limit,
            };
            let found = match &self.query.buckets {
                Some(buckets) => {
                    store
                        .telemetry_buckets(&history, buckets.width, buckets.aggregate)
                        .await?
                }
                None => store.telemetry(&history).await?,
            };
            let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
            if let (Some(last), true) = (found.last(), count >= limit) {
                self.after = Some(Position {
                    at: last.at,
                    metric_id: last.metric_id,
                });
                self.span = self.span.map(|span| (span / 2).max(SHORTEST_SPAN));
            } else {
                (self.from, self.after) = (to, None);
                self.done = to >= self.query.to;
                if count < limit / 2 {
                    let factor = if count == 0 { 8 } else { 2 };
                    self.span = self.span.map(|span| span.checked_mul(factor).unwrap_or(span));
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// The first time that the next query doesn't look at: never within a bucket.
    fn end(&self) -> DateTime<Utc> {
        let begin = self.after.map_or(self.from, |after| after.at.max(self.from));
        let end = self.span.and_then(|span| begin.checked_add_signed(span));
        let end = match (&self.query.buckets, end) {
            (Some(buckets), Some(end)) => {
                let width = buckets.width;
                width.begin(end).checked_add_signed(width.width())
            }
            (_, end) => end,
        };
        end.map_or(self.query.to, |end| end.min(self.query.to))
    }
}

impl App {
    /// A device's history, oldest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `telemetry:read`, [`Error::NotFound`] for an unknown device, [`Error::Invalid`] for
    /// more points than are filled at once.
    pub async fn telemetry(&self, actor: &Actor, serial: &Serial, query: Query) -> Result<Pages, Error> {
        let device_id = self.readable_device(actor, serial).await?;
        self.history(device_id, query).await
    }

    pub(super) async fn history(&self, device_id: DeviceId, query: Query) -> Result<Pages, Error> {
        match query.buckets {
            Some(buckets) if buckets.fill != Fill::None => {
                let grid = self.filled(device_id, &query, buckets).await?;
                Ok(Pages::of_grid(self.store.clone(), grid, query.after))
            }
            _ => Ok(Pages {
                store: self.store.clone(),
                source: Source::Walk(Walk {
                    device_id,
                    from: query.from,
                    after: query.after.map(|after| Position {
                        at: after.at,
                        metric_id: after.metric_id,
                    }),
                    query,
                    span: None,
                    done: false,
                }),
            }),
        }
    }

    /// A device's buckets, those without samples among them.
    async fn filled(&self, device_id: DeviceId, query: &Query, buckets: Buckets) -> Result<Grid, Error> {
        let count = buckets.width.count(query.from, query.to);
        self.reading.check(count, 1, "bucket")?;
        let history = History {
            device_id,
            metrics: query.metrics.as_deref(),
            from: query.from,
            to: query.to,
            after: None,
            limit: i64::try_from(self.reading.max_points)
                .unwrap_or(i64::MAX)
                .saturating_add(1),
        };
        let found = self
            .store
            .telemetry_buckets(&history, buckets.width, buckets.aggregate)
            .await?;
        let mut grid = Grid::new(query, buckets);
        for reading in found {
            let column = (DeviceId(0), reading.metric_id);
            let make = || Column::new(None, reading.metric_id, reading.metric.into());
            if let Some(series) = grid.put(column, reading.at, reading.value, make) {
                self.reading.check(count, series, "bucket")?;
            }
        }
        Ok(grid.filled(buckets.fill))
    }
}
