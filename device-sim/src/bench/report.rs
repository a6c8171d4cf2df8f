//! Results, for people as a table and for programs as JSON.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Map, Value, json};

use super::{cpu::CpuTime, memory::resident_kib};
use crate::summary::Quantiles;

/// What a figure is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Things a second.
    PerSecond,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// 1,024 bytes; the table shows larger amounts in MiB.
    KiB,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Its name in JSON, with the unit.
    pub key: String,
    /// Its name in the table.
    pub label: String,
    /// The figure.
    pub value: f64,
    /// What it is counted in.
    pub unit: Unit,
}

/// The figures of one bench on one target.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The bench.
    pub bench: &'static str,
    /// What was measured.
    pub target: String,
    /// In the order they are shown.
    pub figures: Vec<Figure>,
}

impl Report {
    /// A report without figures.
    pub fn new(bench: &'static str, target: &str) -> Self {
        Self {
            bench,
            target: target.to_owned(),
            figures: Vec::new(),
        }
    }

    fn push(&mut self, key: String, label: String, value: f64, unit: Unit) {
        self.figures.push(Figure {
            key,
            label,
            value,
            unit,
        });
    }

    /// Adds a count.
    #[expect(clippy::cast_precision_loss, reason = "no bench counts to 2^52")]
    pub fn count(&mut self, key: &str, label: &str, count: u64) {
        self.push(key.to_owned(), label.to_owned(), count as f64, Unit::Count);
    }

    /// Adds a rate: `count` in `time`.
    #[expect(clippy::cast_precision_loss, reason = "no bench counts to 2^52")]
    pub fn rate(&mut self, key: &str, label: &str, count: u64, time: Duration) {
        let rate = count as f64 / time.as_secs_f64().max(1e-6);
        self.push(
            format!("{key}_per_second"),
            label.to_owned(),
            rate,
            Unit::PerSecond,
        );
    }

    /// Adds a time in seconds.
    pub fn seconds(&mut self, key: &str, label: &str, time: Duration) {
        self.push(
            format!("{key}_seconds"),
            label.to_owned(),
            time.as_secs_f64(),
            Unit::Seconds,
        );
    }

    /// Adds a time in milliseconds.
    pub fn milliseconds(&mut self, key: &str, label: &str, value: f64) {
        self.push(format!("{key}_ms"), label.to_owned(), value, Unit::Milliseconds);
    }

    /// Adds median, 99th percentile and maximum, if anything was measured.
    pub fn latencies(&mut self, key: &str, label: &str, quantiles: Quantiles) {
        if quantiles.count == 0 {
            return;
        }
        for (name, value) in [
            ("p50", quantiles.p50_ms),
            ("p99", quantiles.p99_ms),
            ("max", quantiles.max_ms),
        ] {
            self.push(
                format!("{key}_{name}_ms"),
                format!("{label} {name}"),
                value,
                Unit::Milliseconds,
            );
        }
    }

    /// Adds an amount of memory, given in KiB.
    pub fn memory(&mut self, key: &str, label: &str, kib: f64) {
        self.push(format!("{key}_kib"), label.to_owned(), kib, Unit::KiB);
    }

    /// Adds what the server holds, if it is a process of this machine.
    pub fn resident(&mut self, server: Option<u32>) {
        if let Some(kib) = server.and_then(resident_kib) {
            let kib = u32::try_from(kib).map_or(f64::MAX, f64::from);
            self.memory("memory", "memory held", kib);
        }
    }

    /// Adds the processor time of one of `count` operations that took `used` together: the server's own, and its
    /// database's if that runs under it.
    #[expect(clippy::cast_precision_loss, reason = "no bench counts to 2^52")]
    pub fn cpu(&mut self, key: &str, label: &str, count: u64, used: CpuTime) {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count.max(1) as f64;
        let (own, under) = (each(used.own), each(used.under));
        self.push(
            format!("{key}_cpu_us"),
            format!("{label} CPU"),
            own,
            Unit::Microseconds,
        );
        if !used.under.is_zero() {
            self.push(
                format!("{key}_database_cpu_us"),
                format!("{label} CPU of database"),
                under,
                Unit::Microseconds,
            );
        }
    }

    /// One flat JSON object.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("bench".to_owned(), json!(self.bench));
        object.insert("target".to_owned(), json!(self.target));
        for figure in &self.figures {
            let value = match figure.unit {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "it was a u64"
                )]
                Unit::Count => json!(figure.value as u64),
                _ => json!((figure.value * 1000.0).round() / 1000.0),
            };
            object.insert(figure.key.clone(), value);
        }
        Value::Object(object)
    }
}

/// A table: a line for each figure, a column for each target. All reports are of one bench.
pub fn table(reports: &[Report]) -> String {
    let mut labels: Vec<&str> = Vec::new();
    for figure in reports.iter().flat_map(|report| &report.figures) {
        if !labels.contains(&figure.label.as_str()) {
            labels.push(&figure.label);
        }
    }
    let left = labels
        .iter()
        .map(|label| label.chars().count())
        .max()
        .unwrap_or_default()
        .max(16)
        + 2;
    let mut text = format!("{:left$}", reports.first().map_or("", |report| report.bench));
    let width = |report: &Report| report.target.chars().count().max(14) + 2;
    for report in reports {
        let _ = write!(text, "{:>1$}", report.target, width(report));
    }
    for label in labels {
        let _ = write!(text, "\n{label:left$}");
        for report in reports {
            let cell = report
                .figures
                .iter()
                .find(|figure| figure.label == label)
                .map_or("-".to_owned(), cell);
            let _ = write!(text, "{cell:>0$}", width(report));
        }
    }
    text
}

fn cell(figure: &Figure) -> String {
    match figure.unit {
        Unit::Count => thousands(figure.value),
        Unit::PerSecond => format!("{}/s", thousands(figure.value)),
        Unit::Microseconds => format!("{:.1} us", figure.value),
        Unit::Milliseconds => format!("{:.2} ms", figure.value),
        Unit::Seconds => format!("{:.2} s", figure.value),
        Unit::KiB if figure.value < 1024.0 => format!("{:.1} KiB", figure.value),
        Unit::KiB => format!("{:.1} MiB", figure.value / 1024.0),
    }
}

/// `12,345`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(target: &str) -> Report {
        let mut report = Report::new("settings", target);
        report.count("devices", "devices", 12_345);
        report.rate("delivered", "delivered", 100, Duration::from_secs(2));
        report
    }

    #[test]
    fn numbers_are_grouped() {
        for (value, text) in [
            (0.0, "0"),
            (999.4, "999"),
            (1000.0, "1,000"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(thousands(value), text);
        }
    }

    #[test]
    fn a_table_has_a_column_for_each_target_and_a_dash_where_there_is_nothing() {
        let mut ours = report("setpoint");
        ours.memory("memory", "memory", 2048.0);
        let text = table(&[ours, report("mosquitto")]);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0], ["settings", "setpoint", "mosquitto"]);
        assert_eq!(lines[1], ["devices", "12,345", "12,345"]);
        assert_eq!(lines[2], ["delivered", "50/s", "50/s"]);
        assert_eq!(lines[3], ["memory", "2.0", "MiB", "-"]);
    }

    #[test]
    fn json_is_flat_and_its_keys_name_the_unit() {
        let json = report("setpoint").to_json();
        assert_eq!(
            json,
            json!({"bench": "settings", "target": "setpoint", "devices": 12345, "delivered_per_second": 50.0})
        );
    }
}
