mod append;
mod history;
mod partitions;
mod removal;
mod rollups;
mod rollups_oracle;
mod views;

use std::sync::LazyLock;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use setpoint_model::{
    Clock, DeviceId, SystemClock,
    telemetry::{Kind, Value},
};

use super::*;
use crate::{Store, testing::TestDatabase};

async fn device(database: &TestDatabase, serial: &str) -> DeviceId {
    database
        .execute(&format!(
            "INSERT INTO devices (serial, model) VALUES ('{serial}', 'home')"
        ))
        .await;
    let store = database.store();
    // The database is a copy of one that may have been made yesterday, or last month.
    store.make_telemetry_partitions(today(), today()).await.unwrap();
    store.make_rollup_partitions(today()).await.unwrap();
    store.device_id(&serial.parse().unwrap()).await.unwrap().unwrap()
}

/// The ids of these metrics, recorded for the device.
async fn metrics(store: &Store, device: DeviceId, names: &[&str]) -> Vec<i32> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let found = store.metric_ids(&names).await.unwrap();
    let id_of = |name: &String| found.iter().find(|(known, _)| known == name).unwrap().1;
    let ids: Vec<i32> = names.iter().map(id_of).collect();
    let numbers: Vec<DeviceMetric> = ids.iter().map(|id| of(*id, Kind::Number)).collect();
    store.add_device_metrics(device, &numbers).await.unwrap();
    ids
}

fn of(id: i32, kind: Kind) -> DeviceMetric {
    DeviceMetric {
        id,
        kind,
        declared: false,
    }
}

/// The day on which these tests began: they may go on after midnight.
fn today() -> NaiveDate {
    static TODAY: LazyLock<NaiveDate> = LazyLock::new(|| SystemClock.now().date_naive());
    *TODAY
}

/// Midnight of today and `minutes` on.
fn at(minutes: i64) -> DateTime<Utc> {
    today().and_time(chrono::NaiveTime::MIN).and_utc() + TimeDelta::minutes(minutes)
}

fn rows(device: DeviceId, metric: i32, samples: &[(DateTime<Utc>, Value<'_>)]) -> Rows {
    let mut rows = Rows::default();
    for (at, value) in samples {
        rows.push(device, metric, *at, value);
    }
    rows
}

fn number(number: f64) -> Value<'static> {
    Value::Number(number)
}

fn history(device_id: DeviceId) -> History<'static> {
    History {
        device_id,
        metrics: None,
        from: at(-30 * 1440),
        to: at(1440),
        after: None,
        limit: 100,
    }
}

fn told(readings: &[Reading]) -> Vec<(String, i64, Value<'static>)> {
    let minute = |reading: &Reading| (reading.at - at(0)).num_minutes();
    readings
        .iter()
        .map(|reading| (reading.metric.clone(), minute(reading), reading.value.clone()))
        .collect()
}
