//! What waits for a commit, and who waits for it.

use chrono::{DateTime, Utc};
use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Value, json};
use setpoint_broker::{Ack, Outcome};
use setpoint_model::{Serial, event::EventType};
use setpoint_store::telemetry::Rows;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::app::{
    alerts::Seen,
    events::{Event, Events},
};

/// The rows of one payload, and who waits for them to be committed.
pub struct Batch {
    /// The rows.
    pub rows: Rows,
    receipt: Receipt,
    /// What follows once they are committed.
    sequel: Sequel,
    /// Its room in the queue.
    _room: Room,
}

impl Batch {
    pub(super) fn new(rows: Rows, receipt: Receipt, sequel: Sequel, room: Room) -> Self {
        Self {
            rows,
            receipt,
            sequel,
            _room: room,
        }
    }

    /// The rows are committed.
    pub fn stored(self) {
        let Sequel { news, seen } = self.sequel;
        if let Some(News { events, event }) = news {
            events.tell(event);
        }
        if let Some(seen) = seen {
            seen.stored();
        }
        self.receipt.stored();
    }

    /// The rows can never be committed.
    pub fn refused(self) {
        self.receipt.refused();
    }
}

/// What follows once rows are committed.
pub(super) struct Sequel {
    /// What is told.
    pub(super) news: Option<News>,
    /// What is judged by alert rules.
    pub(super) seen: Option<Seen>,
}

/// An event that waits for a commit, and where it is told.
pub(super) struct News {
    events: Events,
    event: Event,
}

impl News {
    /// What is told of a device's samples.
    pub(super) fn of_samples(events: &Events, serial: &Serial, at: DateTime<Utc>, items: &[Value]) -> Self {
        let event = Event {
            kind: EventType::Telemetry,
            serial: serial.clone(),
            at,
            data: json!({"serial": serial, "items": items}).to_string().into(),
        };
        let events = events.clone();
        Self { events, event }
    }
}

/// Room for a batch in the queue, free again when it is dropped.
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
    rows: i64,
    queued: Gauge,
}

impl Room {
    pub(super) fn new(permit: OwnedSemaphorePermit, rows: usize, queued: &Gauge) -> Self {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        queued.inc_by(rows);
        Self {
            _permit: permit,
            rows,
            queued: queued.clone(),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.queued.dec_by(self.rows);
    }
}

/// Who waits for a commit. Dropping it without a word leaves the payload unacknowledged.
pub enum Receipt {
    /// An MQTT client, with what it is told once the rows are safe.
    Mqtt(Ack, Outcome),
    /// A request.
    Http(oneshot::Sender<Result<(), NotStored>>),
}

/// The database refuses these rows for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the samples could not be stored")]
pub struct NotStored;

impl Receipt {
    /// The rows are committed.
    fn stored(self) {
        match self {
            Self::Mqtt(ack, outcome) => ack.complete(outcome),
            // A request that was given up needs no answer.
            Self::Http(waiting) => drop(waiting.send(Ok(()))),
        }
    }

    /// The rows can never be committed.
    fn refused(self) {
        match self {
            Self::Mqtt(ack, _) => ack.complete(Outcome::Invalid(NotStored.to_string())),
            Self::Http(waiting) => drop(waiting.send(Err(NotStored))),
        }
    }
}
