//! Live events: told as they happen, kept for a while so that a reader may go on where it was cut off.
//!
//! Readers pull from one bounded log, each at its own place: one that is too slow for it is dropped, and costs the
//! others nothing. What an event tells is in the database already; an event lost is news lost, never state.

mod log;
mod stream;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use serde::Serialize;
use serde_json::json;
use setpoint_model::{
    Serial,
    event::{EventType, SettingsStage},
    presence::Presence,
};
use tokio::{sync::watch, time::Instant};

use self::log::Log;
use crate::config;

pub use log::{Lost, Numbered};
pub use stream::{Ended, EventStream, MAX_SERIALS, Position, Wanted};

/// How long telemetry is still kept for after its last reader was cut off.
const LINGER: Duration = Duration::from_secs(60);

/// Something that just happened to a device.
#[derive(Debug, Clone)]
pub struct Event {
    /// What kind of thing.
    pub kind: EventType,
    /// The device.
    pub serial: Serial,
    /// When.
    pub at: DateTime<Utc>,
    /// The facts: a JSON object.
    pub data: Arc<str>,
}

impl Event {
    /// The bytes it takes in the log, about.
    fn size(&self) -> usize {
        std::mem::size_of::<Numbered>() + self.data.len()
    }
}

/// What is happening. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Tells the positions of this server's run from those of others.
    run: u64,
    logs: Mutex<Logs>,
    newest: watch::Sender<u64>,
    limits: config::Events,
    /// Readers that want telemetry.
    telemetry_readers: AtomicUsize,
    /// Whether [`Logs::telemetry_until`] is set: most samples are asked about without a lock.
    lingering: AtomicBool,
    metrics: Metrics,
}

#[derive(Debug)]
struct Logs {
    number: u64,
    /// A log of its own, so that a flood of samples leaves the rest alone.
    telemetry: Log,
    others: Log,
    /// Until when telemetry is kept without a reader.
    telemetry_until: Option<Instant>,
}

#[derive(Debug)]
struct Metrics {
    streams: Gauge,
    told: Counter,
    slow: Counter,
    refused: Counter,
}

impl Events {
    /// No events yet; `run` differs from that of servers before this one.
    pub fn new(run: u64, limits: &config::Events, registry: &mut Registry) -> Self {
        Self(Arc::new(Shared {
            run,
            logs: Mutex::new(Logs {
                number: 0,
                telemetry: Log::new(limits.log_entries, limits.log_bytes),
                others: Log::new(limits.log_entries, limits.log_bytes),
                telemetry_until: None,
            }),
            newest: watch::Sender::new(0),
            limits: limits.clone(),
            telemetry_readers: AtomicUsize::new(0),
            lingering: AtomicBool::new(false),
            metrics: Metrics::register(registry),
        }))
    }

    /// How often a quiet stream says that it is alive.
    pub fn heartbeat(&self) -> Duration {
        self.0.limits.heartbeat
    }

    /// Whether anybody would hear of samples now: telling nobody should cost a busy fleet nothing.
    pub fn wants_telemetry(&self) -> bool {
        if self.0.telemetry_readers.load(Ordering::Acquire) > 0 {
            return true;
        }
        if !self.0.lingering.load(Ordering::Acquire) {
            return false;
        }
        let mut logs = self.logs();
        match logs.telemetry_until {
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                logs.telemetry_until = None;
                self.0.lingering.store(false, Ordering::Release);
                // From here on samples are missing: a number that no reader has.
                logs.number += 1;
                let number = logs.number;
                logs.telemetry.forget_until(number);
                false
            }
            None => false,
        }
    }

    /// A device came or went.
    pub fn presence(&self, serial: &Serial, presence: &Presence, at: DateTime<Utc>) {
        // Not a map of JSON values: a storm makes tens of thousands of these.
        #[derive(Serialize)]
        struct Data<'a> {
            serial: &'a Serial,
            #[serde(flatten)]
            presence: &'a Presence,
        }
        self.tell_of(EventType::Presence, serial, at, |serial| Data {
            serial,
            presence,
        });
    }

    /// A version of a device's settings has come as far as `stage`; `facts` is an object with what else is known.
    pub fn settings(
        &self,
        serial: &Serial,
        version: i64,
        stage: SettingsStage,
        at: DateTime<Utc>,
        facts: impl Serialize,
    ) {
        #[derive(Serialize)]
        struct Data<'a, T> {
            serial: &'a Serial,
            version: i64,
            stage: SettingsStage,
            at: DateTime<Utc>,
            #[serde(flatten)]
            facts: T,
        }
        self.tell_of(EventType::Settings, serial, at, |serial| Data {
            serial,
            version,
            stage,
            at,
            facts,
        });
    }

    /// A device answered a command, or told of its firmware.
    pub fn answer(&self, kind: EventType, serial: &Serial, at: DateTime<Utc>, facts: &serde_json::Value) {
        self.tell_of(
            kind,
            serial,
            at,
            |serial| json!({"serial": serial, "at": at, "data": facts}),
        );
    }

    /// Tells of an event whose facts are made by `data`.
    fn tell_of<'a, T: Serialize>(
        &self,
        kind: EventType,
        serial: &'a Serial,
        at: DateTime<Utc>,
        data: impl FnOnce(&'a Serial) -> T,
    ) {
        let Ok(data) = serde_json::to_string(&data(serial)) else {
            return;
        };
        self.tell(Event {
            kind,
            serial: serial.clone(),
            at,
            data: data.into(),
        });
    }

    /// Tells of an event.
    pub fn tell(&self, event: Event) {
        let number = {
            let mut logs = self.logs();
            logs.number += 1;
            let number = logs.number;
            let kind = event.kind;
            let entry = Arc::new(Numbered { number, event });
            match kind {
                EventType::Telemetry => logs.telemetry.push(entry),
                _ => logs.others.push(entry),
            }
            number
        };
        self.0.metrics.told.inc();
        self.0
            .newest
            .send_if_modified(|newest| std::mem::replace(newest, number.max(*newest)) < number);
    }

    fn logs(&self) -> std::sync::MutexGuard<'_, Logs> {
        self.0.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            streams: Gauge::default(),
            told: Counter::default(),
            slow: Counter::default(),
            refused: Counter::default(),
        };
        registry.register(
            "event_streams",
            "Open streams of live events",
            metrics.streams.clone(),
        );
        registry.register("events", "Live events told", metrics.told.clone());
        registry.register(
            "event_streams_dropped",
            "Streams of live events ended because their readers were too slow",
            metrics.slow.clone(),
        );
        registry.register(
            "event_streams_refused",
            "Streams of live events refused because there were too many",
            metrics.refused.clone(),
        );
        metrics
    }
}
