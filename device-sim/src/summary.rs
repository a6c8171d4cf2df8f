//! What a fleet does, counted while it runs.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;
use setpoint_model::Serial;

use crate::event::{Event, Observer};

/// The longest latency told apart, in microseconds: a minute.
const LONGEST: u64 = 60_000_000;

/// Latencies, kept in fixed memory to two significant digits.
#[derive(Debug)]
pub struct Latencies(Mutex<Option<Histogram<u32>>>);

/// A half and a hundredth of all were slower than these.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Quantiles {
    /// How many were measured.
    pub count: u64,
    /// The median, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// The slowest, in milliseconds.
    pub max_ms: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Mutex::new(Histogram::new_with_bounds(1, LONGEST, 2).ok()))
    }
}

impl Latencies {
    /// Adds one; more than a minute counts as a minute.
    pub fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST);
        if let Some(histogram) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            histogram.saturating_record(micros);
        }
    }

    /// Adds several at once.
    pub fn record_all(&self, latencies: impl Iterator<Item = Duration>) {
        if let Some(histogram) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            for latency in latencies {
                histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST));
            }
        }
    }

    /// All that were recorded so far.
    pub fn quantiles(&self) -> Quantiles {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().map(quantiles).unwrap_or_default()
    }

    /// The same, and none of them counts any more.
    pub fn take(&self) -> Quantiles {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(histogram) = guard.as_mut() else {
            return Quantiles::default();
        };
        let taken = quantiles(histogram);
        histogram.reset();
        taken
    }
}

fn quantiles(histogram: &Histogram<u32>) -> Quantiles {
    if histogram.is_empty() {
        return Quantiles::default();
    }
    Quantiles {
        count: histogram.len(),
        p50_ms: milliseconds(histogram.value_at_quantile(0.5)),
        p99_ms: milliseconds(histogram.value_at_quantile(0.99)),
        max_ms: milliseconds(histogram.max()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies are under a minute")]
fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1e3
}

/// Counts of everything a fleet's devices report.
#[derive(Debug, Default)]
pub struct Summary {
    connected: AtomicU64,
    connects: AtomicU64,
    disconnects: AtomicU64,
    failed_dials: AtomicU64,
    settings: AtomicU64,
    refused: AtomicU64,
    acknowledged: AtomicU64,
    telemetry_sent: AtomicU64,
    telemetry_acknowledged: AtomicU64,
    telemetry_dropped: AtomicU64,
    unreadable: AtomicU64,
    commands: AtomicU64,
    not_authorized: AtomicU64,
    first_settings: Latencies,
    changes: Latencies,
    telemetry: Latencies,
}

/// A [`Summary`] at one moment; counts are since the start.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Counts {
    /// Devices connected now.
    pub connected: u64,
    /// Sessions begun.
    pub connects: u64,
    /// Sessions that ended, wanted or not.
    pub disconnects: u64,
    /// Connections that couldn't be made.
    pub failed_dials: u64,
    /// Devices whose credential was refused.
    pub not_authorized: u64,
    /// Settings documents applied.
    pub settings: u64,
    /// Of those, how many were refused in part.
    pub refused: u64,
    /// Settings acknowledgements that the server has.
    pub acknowledged: u64,
    /// Samples written to a connection.
    pub telemetry_sent: u64,
    /// Samples that the server has (QoS 1).
    pub telemetry_acknowledged: u64,
    /// Samples given up because the server took none.
    pub telemetry_dropped: u64,
    /// Payloads that no device could read.
    pub unreadable: u64,
    /// Commands answered.
    pub commands: u64,
    /// From SUBSCRIBE to the first settings document of a session.
    pub first_settings: Quantiles,
    /// From a change at the server to the device, by the server's own time of the change.
    pub changes: Quantiles,
    /// From a sample to its PUBACK.
    pub telemetry_puback: Quantiles,
}

impl Summary {
    /// Counts one event.
    pub fn count(&self, event: &Event) {
        let one_more = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match event {
            Event::Connected { .. } => {
                one_more(&self.connected);
                one_more(&self.connects);
            }
            Event::Disconnected {
                was_connected: true, ..
            } => {
                one_more(&self.disconnects);
                self.connected.fetch_sub(1, Ordering::Relaxed);
            }
            Event::Disconnected {
                was_connected: false, ..
            } => {
                one_more(&self.failed_dials);
            }
            Event::NotAuthorized => {
                one_more(&self.not_authorized);
            }
            Event::Stopped { was_connected: true } => {
                self.connected.fetch_sub(1, Ordering::Relaxed);
            }
            Event::Settings {
                refused,
                after_subscribe,
                ..
            } => {
                one_more(&self.settings);
                if !refused.is_empty() {
                    one_more(&self.refused);
                }
                if let Some(latency) = after_subscribe {
                    self.first_settings.record(*latency);
                }
            }
            Event::Acknowledged { .. } => {
                one_more(&self.acknowledged);
            }
            Event::TelemetrySent { .. } => {
                one_more(&self.telemetry_sent);
            }
            Event::TelemetryAcknowledged { took } => {
                one_more(&self.telemetry_acknowledged);
                self.telemetry.record(*took);
            }
            Event::TelemetryDropped => {
                one_more(&self.telemetry_dropped);
            }
            Event::Unreadable { .. } => {
                one_more(&self.unreadable);
            }
            Event::Command { .. } => {
                one_more(&self.commands);
            }
            Event::Stopped { was_connected: false }
            | Event::Subscribed
            | Event::SubscriptionRefused
            | Event::StaleSettings { .. }
            | Event::Firmware { .. }
            | Event::PublishRefused { .. } => {}
        }
    }

    /// Adds the time a change took from the server's commit to the device.
    pub fn change_took(&self, latency: Duration) {
        self.changes.record(latency);
    }

    /// An observer that counts here, and then tells `next`.
    pub fn observe(self: &Arc<Self>, next: Observer) -> Observer {
        let summary = Arc::clone(self);
        Arc::new(move |serial: &Serial, event: &Event| {
            summary.count(event);
            next(serial, event);
        })
    }

    /// How it stands now.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connected: read(&self.connected),
            connects: read(&self.connects),
            disconnects: read(&self.disconnects),
            failed_dials: read(&self.failed_dials),
            not_authorized: read(&self.not_authorized),
            settings: read(&self.settings),
            refused: read(&self.refused),
            acknowledged: read(&self.acknowledged),
            telemetry_sent: read(&self.telemetry_sent),
            telemetry_acknowledged: read(&self.telemetry_acknowledged),
            telemetry_dropped: read(&self.telemetry_dropped),
            unreadable: read(&self.unreadable),
            commands: read(&self.commands),
            first_settings: self.first_settings.quantiles(),
            changes: self.changes.quantiles(),
            telemetry_puback: self.telemetry.quantiles(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_recorded() {
        let latencies = Latencies::default();
        assert_eq!(latencies.quantiles(), Quantiles::default());
        for millis in 1..=100 {
            latencies.record(Duration::from_millis(millis));
        }
        let quantiles = latencies.quantiles();
        assert_eq!(quantiles.count, 100);
        // Two significant digits: within one per cent.
        assert!((quantiles.p50_ms - 50.0).abs() <= 0.5, "{quantiles:?}");
        assert!((quantiles.p99_ms - 99.0).abs() <= 1.0, "{quantiles:?}");
        latencies.record(Duration::from_secs(3600));
        assert!((quantiles.max_ms - 100.0).abs() <= 1.0, "{quantiles:?}");
        assert!(latencies.quantiles().max_ms >= 60_000.0);
    }

    #[test]
    fn connected_rises_and_falls_and_never_below_nought() {
        let summary = Summary::default();
        let connected = Event::Connected {
            session_present: false,
            took: Duration::ZERO,
        };
        let lost = |was_connected| Event::Disconnected {
            reason: String::new(),
            was_connected,
            retry_in: Duration::ZERO,
        };
        for event in [
            lost(false),
            connected.clone(),
            lost(true),
            lost(false),
            connected,
            Event::Stopped { was_connected: true },
            Event::Stopped { was_connected: false },
        ] {
            summary.count(&event);
        }
        let counts = summary.counts();
        assert_eq!(
            (
                counts.connected,
                counts.connects,
                counts.disconnects,
                counts.failed_dials
            ),
            (0, 2, 1, 2)
        );
    }
}
