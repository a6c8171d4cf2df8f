//! What people and programs read on standard output.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use chrono::{DateTime, Local};
use device_sim::{
    Event,
    behaviour::{FirmwareState, Settings},
    event::Observer,
    summary::{Counts, Quantiles},
};
use serde::Serialize;
use serde_json::Value;
use setpoint_model::{Clock, Serial, SystemClock};

/// Writes a line. Nobody is told when nobody reads any more: the next signal ends us.
pub(crate) fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes a line to standard error.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "device-sim: {text}");
}

/// Prints every event of one device.
pub(crate) fn printer(json: bool) -> Observer {
    std::sync::Arc::new(move |serial: &Serial, event: &Event| {
        if json {
            line(&json_line(serial, event));
        } else if let Some(text) = told(event) {
            let now: DateTime<Local> = SystemClock.now().into();
            line(&format!("{} {text}", now.format("%H:%M:%S")));
        }
    })
}

#[derive(Serialize)]
struct JsonEvent<'a> {
    at: DateTime<chrono::Utc>,
    serial: &'a Serial,
    #[serde(flatten)]
    event: &'a Event,
}

fn json_line(serial: &Serial, event: &Event) -> String {
    let event = JsonEvent {
        at: SystemClock.now(),
        serial,
        event,
    };
    serde_json::to_string(&event).unwrap_or_default()
}

/// An event in words; `None` for what isn't worth a line.
fn told(event: &Event) -> Option<String> {
    Some(match event {
        Event::Connected {
            session_present: true,
            ..
        } => "connected, the server kept the session".to_owned(),
        Event::Connected { .. } => "connected".to_owned(),
        Event::Subscribed | Event::TelemetryAcknowledged { .. } => return None,
        Event::SubscriptionRefused => "the server refused a subscription".to_owned(),
        Event::Settings {
            version,
            settings,
            refused,
            ..
        } => {
            let mut text = format!("settings v{version}  {}", pairs(settings));
            for (key, refusal) in refused {
                let _ = write!(text, "\n         refused {key}: {}", refusal.message);
            }
            text
        }
        Event::StaleSettings { version, current } => {
            format!("ignored settings v{version}, it runs v{current}")
        }
        Event::Unreadable { topic, reason } => format!("ignored a message on {topic}: {reason}"),
        Event::Acknowledged { version, took } => format!("acknowledged v{version} in {}", brief(*took)),
        Event::TelemetrySent { sample } => {
            let readings = sample
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, _)| *key != "at");
            let readings: Vec<_> = readings.map(|(key, value)| pair(key, value)).collect();
            format!("telemetry  {}", readings.join(" "))
        }
        Event::TelemetryDropped => "dropped a sample: the server takes none".to_owned(),
        Event::Command { name, code, .. } => format!("command {name}: answered {code}"),
        Event::Firmware { status } => {
            let state = match status.state {
                FirmwareState::Downloading => "downloading",
                FirmwareState::Installing => "installing",
                FirmwareState::Installed => "installed",
            };
            let progress = status
                .progress
                .map(|percent| format!(" {percent}%"))
                .unwrap_or_default();
            format!("firmware {}: {state}{progress}", status.version)
        }
        Event::PublishRefused { reason } => format!("the server refused a message: {reason}"),
        Event::Disconnected {
            reason,
            retry_in,
            was_connected,
        } => {
            let what = if *was_connected {
                "disconnected"
            } else {
                "cannot connect"
            };
            format!("{what}: {reason}; again in {}", brief(*retry_in))
        }
        Event::NotAuthorized => "not authorized".to_owned(),
        Event::Stopped { .. } => "stopped".to_owned(),
    })
}

fn pairs(settings: &Settings) -> String {
    let pairs: Vec<_> = settings.iter().map(|(key, value)| pair(key, value)).collect();
    pairs.join(" ")
}

/// `key=value`; a text stands without quotes where it can.
fn pair(key: &str, value: &Value) -> String {
    match value.as_str() {
        Some(text) if !text.is_empty() && !text.contains(char::is_whitespace) => format!("{key}={text}"),
        _ => format!("{key}={value}"),
    }
}

fn brief(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

/// The live summary of a fleet: one line that renews itself on a terminal, and a line now and then elsewhere.
pub(crate) struct Summaries {
    json: bool,
    terminal: bool,
    devices: usize,
    last: Counts,
}

#[derive(Serialize)]
struct JsonSummary<'a> {
    event: &'static str,
    at: DateTime<chrono::Utc>,
    devices: usize,
    telemetry_per_second: f64,
    #[serde(flatten)]
    counts: &'a Counts,
}

impl Summaries {
    pub(crate) fn new(devices: usize, json: bool) -> Self {
        Self {
            json,
            terminal: io::stdout().is_terminal(),
            devices,
            last: Counts::default(),
        }
    }

    /// How often to show one.
    pub(crate) fn every(&self) -> Duration {
        Duration::from_secs(if self.terminal && !self.json { 1 } else { 5 })
    }

    /// Shows how the fleet stands, `elapsed` after the last time.
    pub(crate) fn show(&mut self, counts: Counts, elapsed: Duration) {
        let sent = u32::try_from(counts.telemetry_sent - self.last.telemetry_sent).unwrap_or(u32::MAX);
        let rate = f64::from(sent) / elapsed.as_secs_f64().max(0.001);
        self.last = counts;
        if self.json {
            let summary = JsonSummary {
                event: "summary",
                at: SystemClock.now(),
                devices: self.devices,
                telemetry_per_second: rate,
                counts: &counts,
            };
            line(&serde_json::to_string(&summary).unwrap_or_default());
        } else if self.terminal {
            let _ = write!(
                io::stdout().lock(),
                "\r\x1b[2K{}",
                summary(self.devices, &counts, rate)
            );
            let _ = io::stdout().flush();
        } else {
            line(&summary(self.devices, &counts, rate));
        }
    }

    /// Leaves the last summary standing.
    pub(crate) fn finish(&self) {
        if self.terminal && !self.json {
            line("");
        }
    }
}

fn summary(devices: usize, counts: &Counts, rate: f64) -> String {
    let mut text = format!(
        "{} of {devices} connected  settings {} {}  acks {}  telemetry {rate:.1}/s {}",
        counts.connected,
        counts.settings,
        // What is worth knowing first: a change's way to the device, or else the first document's.
        quantiles(if counts.changes.count > 0 {
            &counts.changes
        } else {
            &counts.first_settings
        }),
        counts.acknowledged,
        quantiles(&counts.telemetry_puback),
    );
    for (count, what) in [
        (counts.refused, "refused"),
        (counts.disconnects, "disconnects"),
        (counts.failed_dials, "failed dials"),
        (counts.not_authorized, "not authorized"),
        (counts.telemetry_dropped, "samples dropped"),
        (counts.unreadable, "unreadable"),
    ] {
        if count > 0 {
            let _ = write!(text, "  {what} {count}");
        }
    }
    text
}

fn quantiles(quantiles: &Quantiles) -> String {
    if quantiles.count == 0 {
        return "(-)".to_owned();
    }
    format!("(p50 {:.1} p99 {:.1} ms)", quantiles.p50_ms, quantiles.p99_ms)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn settings(value: Value) -> Event {
        let Value::Object(settings) = value else { panic!() };
        Event::Settings {
            version: 3,
            settings: Arc::new(settings),
            refused: Default::default(),
            after_subscribe: None,
        }
    }

    #[test]
    fn settings_are_told_in_one_line() {
        let event = settings(json!({"privacyMode": true, "reportInterval": 60, "label": "in the hall"}));
        let text = told(&event).unwrap();
        assert_eq!(
            text,
            r#"settings v3  label="in the hall" privacyMode=true reportInterval=60"#
        );
    }

    #[test]
    fn json_lines_hold_time_serial_and_event() {
        let line = json_line(&"HOME-1".parse().unwrap(), &settings(json!({"a": 1})));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&value["serial"], &value["event"]),
            (&json!("HOME-1"), &json!("settings"))
        );
        assert_eq!(
            (&value["version"], &value["settings"]),
            (&json!(3), &json!({"a": 1}))
        );
        assert!(value["at"].is_string());
    }

    #[test]
    fn a_summary_names_trouble_only_when_there_is_some() {
        let mut counts = Counts {
            connected: 9,
            ..Counts::default()
        };
        assert_eq!(
            summary(10, &counts, 1.25),
            "9 of 10 connected  settings 0 (-)  acks 0  telemetry 1.2/s (-)"
        );
        counts.failed_dials = 2;
        assert!(summary(10, &counts, 0.0).ends_with("  failed dials 2"));
    }
}
