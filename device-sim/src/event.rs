//! What happens to a device, for whoever watches it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;
use setpoint_model::Serial;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::behaviour::{FirmwareStatus, Refusal, Settings};

/// One thing that happened to a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The server accepted the session (CONNACK).
    Connected {
        /// Whether the server kept the session of before.
        session_present: bool,
        /// From dialling to CONNACK.
        #[serde(rename = "took_ms", serialize_with = "milliseconds")]
        took: Duration,
    },
    /// The server granted the device its subscriptions (SUBACK).
    Subscribed,
    /// The server refused at least one of them.
    SubscriptionRefused,
    /// A settings document arrived and was applied, in whole or in part.
    Settings {
        /// Its version.
        version: u64,
        /// The document's settings, before refusals.
        settings: Arc<Settings>,
        /// What the device refused.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        refused: BTreeMap<String, Refusal>,
        /// From SUBSCRIBE to here, for the first document of a session.
        #[serde(
            rename = "after_subscribe_ms",
            skip_serializing_if = "Option::is_none",
            serialize_with = "maybe_milliseconds"
        )]
        after_subscribe: Option<Duration>,
    },
    /// A settings document older than the one before it; ignored.
    StaleSettings {
        /// The version that arrived.
        version: u64,
        /// The version the device runs.
        current: u64,
    },
    /// A payload the device couldn't read; ignored.
    Unreadable {
        /// Where it came from.
        topic: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server has the device's acknowledgement of this version (PUBACK).
    Acknowledged {
        /// The version.
        version: u64,
        /// From publishing the acknowledgement to its PUBACK.
        #[serde(rename = "took_ms", serialize_with = "milliseconds")]
        took: Duration,
    },
    /// A sample was written to the connection.
    TelemetrySent {
        /// The sample.
        sample: Value,
    },
    /// The server has the sample (PUBACK; QoS 1 alone).
    TelemetryAcknowledged {
        /// From sending it to its PUBACK.
        #[serde(rename = "took_ms", serialize_with = "milliseconds")]
        took: Duration,
    },
    /// A sample was due and not sent: the queue to the server is full.
    TelemetryDropped,
    /// A command was answered.
    Command {
        /// Its id.
        id: Uuid,
        /// Its name.
        name: String,
        /// The result's code.
        code: u16,
    },
    /// A firmware moved on.
    Firmware {
        /// How far.
        #[serde(flatten)]
        status: FirmwareStatus,
    },
    /// The server refused a publish (a PUBACK of MQTT 5 with a failure).
    PublishRefused {
        /// The reason code in words.
        reason: String,
    },
    /// The connection ended, or couldn't be made; the device dials again.
    Disconnected {
        /// Why.
        reason: String,
        /// Whether there was a session; false when only dialling failed.
        was_connected: bool,
        /// When it dials again.
        #[serde(rename = "retry_in_ms", serialize_with = "milliseconds")]
        retry_in: Duration,
    },
    /// The server refused the credential; the device has ended.
    NotAuthorized,
    /// The device was told to stop, and has ended.
    Stopped {
        /// Whether it was connected until then.
        was_connected: bool,
    },
}

fn milliseconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

fn maybe_milliseconds<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => milliseconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}

/// Told of every event, on the device's own task: it must be quick and must not block.
pub type Observer = Arc<dyn Fn(&Serial, &Event) + Send + Sync>;

/// An observer for those who don't care.
pub fn nobody() -> Observer {
    Arc::new(|_, _| {})
}

/// The receiving end of [`channel`].
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<(Serial, Event)>,
    missed: Arc<AtomicU64>,
}

impl Events {
    /// The next event, or `None` once every device that reports here has ended.
    pub async fn next(&mut self) -> Option<(Serial, Event)> {
        self.receiver.recv().await
    }

    /// How many events were dropped because nobody took them in time.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// An observer that queues up to `capacity` events. A full queue drops and counts the newest, so that a
/// reader that went away never holds up a device.
pub fn channel(capacity: usize) -> (Observer, Events) {
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    let missed = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&missed);
    let observer: Observer = Arc::new(move |serial: &Serial, event: &Event| {
        if sender.try_send((serial.clone(), event.clone())).is_err() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    (observer, Events { receiver, missed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_channel_drops_and_counts() {
        let (observer, events) = channel(1);
        let serial: Serial = "A".parse().unwrap();
        observer(&serial, &Event::Subscribed);
        observer(&serial, &Event::TelemetryDropped);
        assert_eq!(events.missed(), 1);
    }

    #[test]
    fn events_are_flat_json() {
        let event = Event::Acknowledged {
            version: 3,
            took: Duration::from_micros(1234),
        };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"event": "acknowledged", "version": 3, "took_ms": 1.234})
        );
        let json = serde_json::to_value(Event::NotAuthorized).unwrap();
        assert_eq!(json, serde_json::json!({"event": "not_authorized"}));
    }
}
