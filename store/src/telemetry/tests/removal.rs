use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use setpoint_model::{
    Clock, DeviceId, SystemClock,
    telemetry::{Aggregate, Kind, Value},
};

use super::{
    super::{Lease, Removal, Series, Turn},
    at, device, metrics, number, of,
    rollups::{at_midnight, buckets, sweep},
    rows,
};
use crate::{
    Store,
    audit::NewEntry,
    testing::{TestDatabase, database},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn entry(at: DateTime<Utc>) -> NewEntry {
    NewEntry {
        at,
        actor: "user:anna".into(),
        user_id: None,
        action: "telemetry.delete",
        object: "device:A".into(),
        address: None,
        refused: false,
        before: None,
        after: Some(json!({"metric": "a"})),
    }
}

fn lease(now: DateTime<Utc>) -> Lease {
    Lease {
        now,
        until: now + TimeDelta::minutes(1),
        settled: now - TimeDelta::minutes(15),
    }
}

fn series(device_id: DeviceId, metric_id: i32) -> Series {
    Series {
        device_id,
        serial: "A".parse().unwrap(),
        metric_id,
    }
}

/// Deletes all rows of a series in steps of one. Returns how many.
async fn delete(store: &Store, series: &Series) -> u64 {
    let mut deleted = 0;
    for (table, _) in store.all_telemetry_tables().await.unwrap() {
        let mut step = 1;
        while step > 0 {
            let devices = [series.device_id];
            let metric = Some(series.metric_id);
            step = store
                .delete_telemetry_rows(&table, &devices, metric, 1)
                .await
                .unwrap();
            assert!(step <= 1);
            deleted += step;
        }
    }
    deleted
}

async fn left(database: &TestDatabase) -> Vec<(i64, i32)> {
    let sql = "SELECT device_id, metric_id FROM telemetry UNION ALL SELECT device_id, metric_id FROM telemetry_minutes
               UNION ALL SELECT device_id, metric_id FROM telemetry_hours
               UNION ALL SELECT device_id, metric_id FROM telemetry_late ORDER BY 1, 2";
    sqlx::query_as(sql).fetch_all(database.pool()).await.unwrap()
}

#[tokio::test]
async fn one_at_a_time_works_on_a_removal_until_it_is_done() {
    let database = database().await;
    let store = database.store();
    let device = device(&database, "A").await;
    let metric = metrics(&store, device, &["a"]).await[0];
    let (series, now) = (series(device, metric), SystemClock.now());
    let begin = async |at| store.begin_removal(&series, lease(at), &entry(at)).await.unwrap();
    assert_eq!(begin(now).await, Turn::Ours);
    assert_eq!(begin(now).await, Turn::Theirs);
    assert_eq!(store.due_removals(lease(now), 10).await.unwrap(), []);
    // Whoever had it was killed.
    let later = now + TimeDelta::minutes(2);
    let due = async |at| store.due_removals(lease(at), 10).await.unwrap();
    let removal = |done| {
        let series = series.clone();
        [Removal { series, done }]
    };
    assert_eq!(due(later).await, removal(false));
    assert_eq!(begin(later).await, Turn::Theirs);
    store.release_removal(&series, later).await.unwrap();
    assert_eq!(begin(later).await, Turn::Ours);
    assert!(store.finish_removal(&series, later, PATIENCE).await.unwrap());
    assert_eq!(begin(later).await, Turn::Done);
    let entries: i64 = sqlx::query_scalar("SELECT count(*) FROM audit WHERE action = 'telemetry.delete'")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(entries, 1, "one removal, however often it was asked for");
    assert_eq!(due(later + TimeDelta::minutes(14)).await, []);
    assert_eq!(due(later + TimeDelta::minutes(16)).await, removal(true));
    store.forget_removal(&series).await.unwrap();
    assert_eq!(store.device_metric(device, "a").await.unwrap(), None);
}

#[tokio::test]
async fn a_removal_leaves_the_other_series() {
    let database = database().await;
    at_midnight(&database).await;
    let store = database.store();
    let (one, other) = (device(&database, "A").await, device(&database, "B").await);
    let ids = metrics(&store, one, &["a", "b"]).await;
    metrics(&store, other, &["a"]).await;
    for (device, metric) in [(one, ids[0]), (one, ids[1]), (other, ids[0])] {
        let samples = [(at(1), number(1.0)), (at(-5), number(1.0))];
        store
            .append_telemetry(&rows(device, metric, &samples))
            .await
            .unwrap();
    }
    sweep(&store, 60).await;
    let five = |device: DeviceId, metric| vec![(device.0, metric); 5];
    let gone = series(one, ids[1]);
    assert_eq!(
        delete(&store, &gone).await,
        5,
        "samples, a minute, its hour, a note"
    );
    assert!(store.finish_removal(&gone, at(60), PATIENCE).await.unwrap());
    assert_eq!(
        left(&database).await,
        [five(one, ids[0]), five(other, ids[0])].concat()
    );
    store.finish_purge(one).await.unwrap();
    assert_eq!(
        left(&database).await,
        [vec![(one.0, ids[0]); 2], five(other, ids[0])].concat(),
        "its roll-ups and notes are gone"
    );
}

#[tokio::test]
async fn what_was_on_its_way_is_there_as_a_whole_or_not_at_all() {
    let database = database().await;
    at_midnight(&database).await;
    let store = database.store();
    let device = device(&database, "A").await;
    let metric = metrics(&store, device, &["a"]).await[0];
    let gone = series(device, metric);
    let send = async |minute, value: Value<'_>| {
        let sample = rows(device, metric, &[(at(minute), value)]);
        store.append_telemetry(&sample).await.unwrap();
    };
    let sums = async || {
        let devices = [device];
        let hours = buckets(&devices, "1h", Aggregate::Sum);
        let rolled = store.telemetry_in_buckets(&hours).await.unwrap();
        let samples = store.telemetry_in_buckets_of_samples(&hours).await.unwrap();
        assert_eq!(rolled, samples);
        rolled
            .into_iter()
            .map(|reading| reading.value)
            .collect::<Vec<_>>()
    };
    let settle = async || while store.settle_late_telemetry(10).await.unwrap() != Some(0) {};
    let strays = async || {
        let mut removed = 0;
        for (table, samples) in store.all_telemetry_tables().await.unwrap() {
            if samples {
                removed += store.remove_strays(&table, &gone, 10).await.unwrap();
            }
        }
        removed
    };
    send(10, number(1.0)).await;
    send(70, number(2.0)).await;
    sweep(&store, 180).await;
    delete(&store, &gone).await;
    // Two come before the end of it, one after, and another one of a new type once it goes on.
    send(11, number(4.0)).await;
    assert!(store.finish_removal(&gone, at(180), PATIENCE).await.unwrap());
    send(12, number(8.0)).await;
    assert_eq!(sums().await, [], "the device never sent it");
    let again = store
        .add_device_metrics(device, &[of(metric, Kind::Boolean)])
        .await;
    assert_eq!(again.unwrap(), [(metric, Kind::Boolean)]);
    send(13, Value::Flag(true)).await;
    send(71, number(16.0)).await;
    settle().await;
    assert_eq!(sums().await, [number(13.0), number(16.0)]);
    assert_eq!(strays().await, 3, "those that are no booleans");
    assert_eq!(sums().await, [number(1.0)]);
    settle().await;
    assert_eq!(sums().await, [number(1.0)]);
    assert_eq!(strays().await, 0);
}

#[tokio::test]
async fn a_removal_waits_for_the_roll_ups_and_not_for_ever() {
    let database = database().await;
    let store = database.store();
    let device = device(&database, "A").await;
    let gone = series(device, metrics(&store, device, &["a"]).await[0]);
    let mut sweeping = database.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM telemetry_rollup FOR UPDATE")
        .execute(&mut *sweeping)
        .await
        .unwrap();
    let brief = Duration::from_millis(1);
    assert!(!store.finish_removal(&gone, at(0), brief).await.unwrap());
    sweeping.rollback().await.unwrap();
    assert!(store.finish_removal(&gone, at(0), PATIENCE).await.unwrap());
}
