//! How fast telemetry payloads are read: samples per second on one core.
//!
//! `cargo bench -p setpoint-model --bench telemetry`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark ends at the first fault and prints"
)]

use std::{hint::black_box, time::Instant};

use chrono::{DateTime, TimeDelta, Utc};
use setpoint_model::telemetry::{Limits, Window, parse};

fn main() {
    let now: DateTime<Utc> = "2026-03-01T12:00:00Z".parse().unwrap();
    let window = Window {
        oldest: now - TimeDelta::days(365),
        newest: now + TimeDelta::minutes(5),
    };
    let object = r#"{"temperature":21.5,"humidity":40,"at":"2026-01-01T12:00:00Z"}"#;
    let untimed = r#"{"temperature":21.5}"#;
    let wide: Vec<String> = (0..64)
        .map(|metric| format!(r#""metric_{metric}":{metric}.25"#))
        .collect();
    let payloads = [
        ("one object, two metrics and a time", object.to_owned()),
        ("one object, one metric", untimed.to_owned()),
        ("one object, 64 metrics", format!("{{{}}}", wide.join(","))),
        (
            "100 objects of two metrics",
            format!("[{}]", vec![object; 100].join(",")),
        ),
        (
            "100 objects, one unreadable",
            format!("[{},{{\"t\":1e999}}]", vec![object; 99].join(",")),
        ),
    ];
    for (name, payload) in payloads {
        let rounds = 20_000_000 / payload.len();
        let begun = Instant::now();
        let mut samples = 0_usize;
        for _ in 0..rounds {
            samples += parse(black_box(payload.as_bytes()), &Limits::default(), window)
                .unwrap()
                .samples
                .len();
        }
        let elapsed = begun.elapsed().as_secs_f64();
        let rate = f64::from(u32::try_from(samples).unwrap()) / elapsed;
        let bytes = f64::from(u32::try_from(rounds * payload.len()).unwrap()) / elapsed / 1e6;
        println!("{name:<36} {rate:>12.0} samples/s {bytes:>8.0} MB/s");
    }
}
