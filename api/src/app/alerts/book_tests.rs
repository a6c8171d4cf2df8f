//! What is compared in memory, and what is looked at.

use std::time::Duration;

use chrono::TimeDelta;
use setpoint_model::{alert::Definition, telemetry::Value};

use super::{
    super::watch::{Belief, SeenSample},
    *,
};

const DEVICE: DeviceId = DeviceId(7);

fn at(second: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(second)
}

fn rule(id: i64, condition: &str) -> Rule {
    let fields = serde_json::json!({ "condition": condition });
    let serde_json::Value::Object(fields) = fields else {
        unreachable!("an object")
    };
    Rule {
        id,
        name: format!("rule-{id}"),
        definition: Definition::parse(fields).unwrap(),
        version: id,
        era: id,
        begun_at: at(0),
        deleted: false,
        settling: false,
        created_at: at(0),
        updated_at: at(0),
    }
}

fn alerts(conditions: &[&str], max_waiting: usize) -> Alerts {
    let config = config::Alerts {
        max_rules: 10,
        keep_resolved: Duration::from_secs(60),
        sweep_every: Duration::from_secs(60),
        max_watched: 1_000,
        max_waiting,
        max_samples: 10,
    };
    let alerts = Alerts::new(config, &mut Registry::default());
    let rules = conditions
        .iter()
        .zip(1..)
        .map(|(condition, id)| rule(id, condition));
    alerts.rewatch((1, 1), rules.collect());
    alerts
}

/// A device sends a number; the samples are committed.
fn send(alerts: &Alerts, device: DeviceId, metric: &str, second: i64, number: f64) {
    let mut seen = alerts.watch(device).unwrap();
    seen.note(metric, at(second), &Value::Number(number));
    seen.stored();
}

/// What waits, and from when on.
fn taken(alerts: &Alerts) -> Vec<(DeviceId, DateTime<Utc>)> {
    let mut devices: Vec<_> = alerts.work(100).devices.into_iter().collect();
    devices.sort_unstable();
    devices
}

/// The device was looked at: by its first rule the condition holds or not, and its newest sample is this.
fn looked(alerts: &Alerts, holds: bool, firing: bool, second: i64, number: f64) {
    let known = Known {
        values: vec![SeenSample {
            metric: 0,
            at: at(second),
            value: Value::Number(number),
        }],
        beliefs: vec![Belief {
            rule: 0,
            holds,
            firing,
        }],
        silences: Vec::new(),
    };
    let watch = alerts.watched();
    alerts.finish(DEVICE, &watch, Some(known));
}

#[test]
fn nothing_is_noted_while_no_rule_waits_for_samples() {
    assert!(alerts(&["offline for 5m"], 10).watch(DEVICE).is_none());
    let alerts = alerts(&["temperature > 30"], 10);
    let mut seen = alerts.watch(DEVICE).unwrap();
    seen.note("humidity", at(1), &Value::Number(1.0));
    assert!(seen.is_empty());
}

#[test]
fn a_device_is_looked_at_when_it_is_new_and_when_a_state_may_change() {
    let alerts = alerts(&["temperature > 30 clear 28"], 10);
    send(&alerts, DEVICE, "temperature", 10, 20.0);
    assert_eq!(taken(&alerts), [(DEVICE, at(10))]);
    looked(&alerts, false, false, 10, 20.0);
    send(&alerts, DEVICE, "temperature", 11, 30.0);
    send(&alerts, DEVICE, "humidity", 12, 31.0);
    assert_eq!(taken(&alerts), []);
    send(&alerts, DEVICE, "temperature", 13, 30.1);
    assert_eq!(taken(&alerts), [(DEVICE, at(13))]);
    looked(&alerts, true, true, 13, 30.1);
    send(&alerts, DEVICE, "temperature", 12, 1.0);
    send(&alerts, DEVICE, "temperature", 14, 29.0);
    assert_eq!(taken(&alerts), [], "late, and not back to 28");
    send(&alerts, DEVICE, "temperature", 15, 28.0);
    assert_eq!(taken(&alerts), [(DEVICE, at(15))]);
}

#[test]
fn what_comes_while_a_device_is_looked_at_is_compared_afterwards() {
    let alerts = alerts(&["temperature > 30"], 10);
    send(&alerts, DEVICE, "temperature", 10, 20.0);
    assert_eq!(taken(&alerts).len(), 1);
    send(&alerts, DEVICE, "temperature", 11, 31.0);
    send(&alerts, DEVICE, "temperature", 12, 20.0);
    assert_eq!(taken(&alerts), [], "it is being looked at");
    looked(&alerts, false, false, 10, 20.0);
    assert_eq!(taken(&alerts), [(DEVICE, at(11))]);
    looked(&alerts, false, false, 12, 20.0);
    for second in 0..100 {
        send(&alerts, DEVICE, "temperature", 13 + second, 20.0);
    }
    assert_eq!(taken(&alerts), []);
    send(&alerts, DEVICE, "temperature", 200, 31.0);
    assert_eq!(taken(&alerts).len(), 1);
    for second in 0..100 {
        send(&alerts, DEVICE, "temperature", 201 + second, 31.0);
    }
    looked(&alerts, true, true, 200, 31.0);
    assert_eq!(taken(&alerts), [(DEVICE, at(265))], "more than there is room for");
}

#[test]
fn other_rules_and_what_other_servers_do_make_a_device_unknown() {
    let alerts = alerts(&["temperature > 30"], 10);
    send(&alerts, DEVICE, "temperature", 10, 20.0);
    taken(&alerts);
    looked(&alerts, false, false, 10, 20.0);
    alerts.forget(&[DEVICE]);
    send(&alerts, DEVICE, "temperature", 11, 20.0);
    assert_eq!(taken(&alerts), [(DEVICE, at(11))]);
    looked(&alerts, false, false, 11, 20.0);
    alerts.rewatch((2, 1), vec![rule(2, "temperature > 40")]);
    send(&alerts, DEVICE, "temperature", 12, 20.0);
    assert_eq!(taken(&alerts), [(DEVICE, at(12))]);
}

#[test]
fn a_device_without_room_to_wait_has_everything_looked_at() {
    let alerts = alerts(&["temperature > 30"], 2);
    for device in 1..=3 {
        send(&alerts, DeviceId(device), "temperature", 10, 20.0);
    }
    let work = alerts.work(100);
    assert_eq!((work.devices.len(), work.everything), (2, true));
    assert_eq!(alerts.metrics().overflowed.get(), 1);
    send(&alerts, DeviceId(3), "temperature", 11, 20.0);
    assert_eq!(taken(&alerts), [(DeviceId(3), at(11))]);
}
