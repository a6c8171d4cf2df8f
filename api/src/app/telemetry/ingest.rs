//! The way of a telemetry payload to the writer: parse, find the device and its metrics, encode, queue.
//!
//! All but the commit happens on the task of the session or request that brought the payload, so that many
//! devices are served by many cores and a slow one waits alone.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use prometheus_client::registry::Registry;
use serde_json::json;
use setpoint_broker::{Ack, Outcome};
use setpoint_model::{
    Clock, Serial,
    telemetry::{self, Malformed, Parsed, Problems, Window},
    timeline::{Entry, Facts},
};
use setpoint_store::{Store, telemetry::Rows};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    catalog::{Catalog, Device},
    error::{IngestError, Refused},
    metrics::Metrics,
    queue::{Batch, News, Receipt, Room, Sequel},
};
use crate::{
    app::{Alerts, Timeline, events::Events},
    config,
};

/// How many problems an entry of the timeline tells.
const TOLD_PROBLEMS: usize = 5;

/// No model keeps samples for less than this.
const SHORTEST_RETENTION: TimeDelta = TimeDelta::days(1);

/// Pauses between attempts while Postgres is away.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Takes telemetry payloads. Cheap to clone.
#[derive(Clone)]
pub struct Ingest(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) store: Store,
    clock: Arc<dyn Clock>,
    timeline: Timeline,
    events: Events,
    alerts: Alerts,
    pub(super) limits: telemetry::Limits,
    skew: TimeDelta,
    retention: TimeDelta,
    pub(super) max_device_metrics: usize,
    delete_within: Duration,
    pub(super) catalog: Catalog,
    pub(super) queue: mpsc::Sender<Batch>,
    /// One permit per row that may wait.
    pub(super) space: Arc<Semaphore>,
    max_queue: u32,
    pub(super) metrics: Metrics,
}

/// What became of a payload, as far as its sender is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Samples stored, or stored before.
    pub stored: usize,
    /// What was not stored, and why.
    pub problems: Problems,
    /// Objects whose time was too far ahead: stored at their arrival.
    pub skewed: usize,
}

/// Rows ready for the queue.
pub(super) struct Prepared {
    pub(super) rows: Rows,
    pub(super) sequel: Sequel,
    report: Report,
}

impl Ingest {
    /// An ingest, and the queue that `tasks::telemetry_writer` empties.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        timeline: Timeline,
        events: Events,
        alerts: Alerts,
        config: &config::Telemetry,
        registry: &mut Registry,
    ) -> (Self, mpsc::Receiver<Batch>) {
        let max_queue = u32::try_from(config.max_queue)
            .unwrap_or(u32::MAX)
            .min(MAX_PERMITS);
        let (queue, batches) = mpsc::channel(config.max_queue.clamp(1, MAX_MESSAGES));
        let shared = Shared {
            store,
            clock,
            timeline,
            events,
            alerts,
            limits: telemetry::Limits {
                items: config.max_batch,
                metrics: config.max_metrics,
                text: config.max_text,
            },
            skew: delta(config.max_clock_skew),
            retention: delta(config.retention),
            max_device_metrics: config.max_metrics_per_device,
            delete_within: config.delete_within,
            catalog: Catalog::default(),
            queue,
            space: Arc::new(Semaphore::new(max_queue as usize)),
            max_queue,
            metrics: Metrics::register(registry),
        };
        (Self(Arc::new(shared)), batches)
    }

    /// The counts, for the writer.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Forgets a device that was deleted, so that its serial may come back as another one.
    pub fn forget(&self, serial: &Serial) {
        self.0.catalog.forget(serial);
    }

    /// Has a device looked up again: it is of another model, or its metrics are others.
    pub fn refresh(&self, serial: &Serial) {
        self.0.catalog.refresh(|known, _| known == serial);
    }

    /// Has all devices of a model looked up again: it may declare other types.
    pub fn refresh_model(&self, model: &str) {
        self.0.catalog.refresh(|_, device| device.is_of(model));
    }

    /// Has all devices looked up again.
    pub fn refresh_all(&self) {
        self.0.catalog.refresh(|_, _| true);
    }

    /// For how long samples are kept, unless a device's model says less.
    pub fn retention(&self) -> TimeDelta {
        self.0.retention
    }

    /// For how long one request deletes samples.
    pub fn delete_within(&self) -> Duration {
        self.0.delete_within
    }

    /// Takes a payload from MQTT and completes `ack` once all that can be stored is committed. While Postgres is
    /// away this waits, and with it the session; samples of a device that is gone need no keeping.
    pub async fn from_mqtt(&self, serial: &Serial, payload: &[u8], arrived: DateTime<Utc>, ack: Ack) {
        let mut pause = FIRST_PAUSE;
        let prepared = loop {
            match self.prepare(serial, payload, arrived).await {
                Err(Refused::Store(error)) => {
                    if !error.is_unavailable() {
                        tracing::warn!(%serial, error = &error as &dyn std::error::Error, "telemetry waits");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                done => break done,
            }
        };
        match prepared {
            Ok(Prepared { rows, sequel, report }) => {
                let outcome = report
                    .problems
                    .sentence()
                    .map_or(Outcome::Accepted, Outcome::Invalid);
                self.record(serial, arrived, &report);
                if rows.is_empty() {
                    ack.complete(outcome);
                } else {
                    // The queue is closed at shutdown only: then the sample stays with the device.
                    let _ = self.enqueue(rows, sequel, Receipt::Mqtt(ack, outcome)).await;
                }
            }
            Err(Refused::Malformed(malformed)) => {
                self.record_malformed(serial, arrived, &malformed);
                ack.complete(Outcome::Invalid(malformed.to_string()));
            }
            Err(Refused::Gone | Refused::Store(_)) => ack.complete(Outcome::Accepted),
        }
    }

    /// Takes a payload from a request and answers once all that can be stored is committed.
    ///
    /// # Errors
    /// See [`IngestError`]; the database being away is one of them.
    pub async fn from_http(&self, serial: &Serial, payload: &[u8]) -> Result<Report, IngestError> {
        let arrived = self.0.clock.now();
        let Prepared { rows, sequel, report } = match self.prepare(serial, payload, arrived).await {
            Err(Refused::Malformed(malformed)) => {
                self.record_malformed(serial, arrived, &malformed);
                return Err(malformed.into());
            }
            other => other?,
        };
        self.record(serial, arrived, &report);
        if !rows.is_empty() {
            let (sender, committed) = oneshot::channel();
            self.enqueue(rows, sequel, Receipt::Http(sender)).await?;
            committed.await.map_err(|_| IngestError::Stopping)??;
        }
        Ok(report)
    }

    /// From bytes to rows, step by step.
    async fn prepare(
        &self,
        serial: &Serial,
        payload: &[u8],
        arrived: DateTime<Utc>,
    ) -> Result<Prepared, Refused> {
        let window = self.window(arrived);
        let mut parsed = telemetry::parse(payload, &self.0.limits, window).map_err(Refused::Malformed)?;
        let Some(device) = self.0.catalog.device(&self.0.store, serial).await? else {
            self.0.metrics.orphaned.inc_by(parsed.samples.len() as u64);
            return Err(Refused::Gone);
        };
        if let Some(window) = self.shorter_window(&device, &parsed, arrived).await? {
            parsed = telemetry::parse(payload, &self.0.limits, window).map_err(Refused::Malformed)?;
        }
        let ids = self.metric_ids(&parsed).await?;
        let admitted = self.admit_metrics(serial, &device, &mut parsed, ids).await?;
        Ok(self.encode(serial, &device, parsed, &admitted, arrived))
    }

    pub(super) fn window(&self, arrived: DateTime<Utc>) -> Window {
        Window {
            oldest: arrived - self.0.retention,
            newest: arrived + self.0.skew,
        }
    }

    /// The window of the device's model, where that is shorter and samples are old enough for it to matter. Asked of the
    /// database each time: such samples are rare, and a model may change on another server.
    async fn shorter_window(
        &self,
        device: &Device,
        parsed: &Parsed<'_>,
        arrived: DateTime<Utc>,
    ) -> Result<Option<Window>, Refused> {
        if is_recent(parsed, arrived) {
            return Ok(None);
        }
        let seconds = self.0.store.telemetry_retention_of(device.id).await?;
        let window = self.window(arrived);
        let oldest = seconds.map(|seconds| arrived - TimeDelta::seconds(i64::from(seconds)));
        let shorter = oldest.filter(|oldest| *oldest > window.oldest);
        Ok(shorter.map(|oldest| Window { oldest, ..window }))
    }

    pub(super) fn encode(
        &self,
        serial: &Serial,
        device: &Device,
        parsed: Parsed<'_>,
        admitted: &[Option<i32>],
        arrived: DateTime<Utc>,
    ) -> Prepared {
        let arrival = match parsed.untimed {
            0 => arrived,
            count => device.reserve_arrival(arrived, count),
        };
        let mut rows = Rows::with_capacity(parsed.samples.len());
        let mut told = self.0.events.wants_telemetry().then(Vec::new);
        let mut seen = self.0.alerts.watch(device.id);
        for (sample, metric) in parsed.samples.iter().zip(admitted) {
            if let Some(metric) = metric {
                let at = sample.at.resolve(arrival);
                rows.push(device.id, *metric, at, &sample.value);
                if let Some(seen) = &mut seen {
                    seen.note(&sample.metric, at, &sample.value);
                }
                if let Some(items) = &mut told {
                    items.push(json!({"at": at, "metric": sample.metric, "value": sample.value}));
                }
            }
        }
        let news = told.map(|items| News::of_samples(&self.0.events, serial, arrived, &items));
        let report = Report {
            stored: rows.len(),
            problems: parsed.problems,
            skewed: parsed.skewed,
        };
        let sequel = Sequel { news, seen };
        Prepared { rows, sequel, report }
    }

    /// Waits for room and queues the rows.
    async fn enqueue(&self, rows: Rows, sequel: Sequel, receipt: Receipt) -> Result<(), IngestError> {
        let shared = &self.0;
        let wanted = u32::try_from(rows.len())
            .unwrap_or(u32::MAX)
            .min(shared.max_queue);
        let space = Arc::clone(&shared.space);
        let Ok(permit) = space.acquire_many_owned(wanted).await else {
            return Err(IngestError::Stopping);
        };
        let room = Room::new(permit, rows.len(), &shared.metrics.queued);
        shared
            .queue
            .send(Batch::new(rows, receipt, sequel, room))
            .await
            .map_err(|_| IngestError::Stopping)
    }

    fn record(&self, serial: &Serial, at: DateTime<Utc>, report: &Report) {
        let count = report.problems.count();
        if count > 0 {
            for (reason, count) in report.problems.by_reason() {
                self.0.metrics.rejected(*reason, *count);
            }
            let problems = report
                .problems
                .listed()
                .iter()
                .take(TOLD_PROBLEMS)
                .map(ToString::to_string)
                .collect();
            let facts = Facts::TelemetryRejected {
                problems,
                count,
                stored: report.stored,
            };
            self.0.timeline.record(Entry {
                serial: serial.clone(),
                at,
                facts,
            });
        }
        if report.skewed > 0 {
            self.0.metrics.skewed.inc_by(report.skewed as u64);
            let facts = Facts::ClockAhead { items: report.skewed };
            self.0.timeline.record(Entry {
                serial: serial.clone(),
                at,
                facts,
            });
        }
    }

    fn record_malformed(&self, serial: &Serial, at: DateTime<Utc>, malformed: &Malformed) {
        self.0.metrics.rejected(malformed.reason(), 1);
        let facts = Facts::TelemetryRejected {
            problems: vec![malformed.to_string()],
            count: 1,
            stored: 0,
        };
        self.0.timeline.record(Entry {
            serial: serial.clone(),
            at,
            facts,
        });
    }
}

/// Whether no model's retention can matter to these samples.
pub(super) fn is_recent(parsed: &Parsed<'_>, arrived: DateTime<Utc>) -> bool {
    let old = arrived - SHORTEST_RETENTION;
    parsed
        .samples
        .iter()
        .all(|sample| sample.at.resolve(arrived) >= old)
}

/// The most permits a semaphore of tokio is asked for here.
const MAX_PERMITS: u32 = u32::MAX >> 3;

/// The most batches in the queue: the rows are bounded by permits, this bounds the list itself.
const MAX_MESSAGES: usize = 1 << 20;

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
