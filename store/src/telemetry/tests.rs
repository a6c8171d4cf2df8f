use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use setpoint_model::{
    Clock, DeviceId, Serial, SystemClock,
    telemetry::{Aggregate, Value},
};

use super::*;
use crate::{
    Error, Store,
    testing::{TestDatabase, database},
};

async fn device(database: &TestDatabase, serial: &str) -> DeviceId {
    database
        .execute(&format!(
            "INSERT INTO devices (serial, model) VALUES ('{serial}', 'home')"
        ))
        .await;
    database
        .store()
        .device_id(&serial.parse().unwrap())
        .await
        .unwrap()
        .unwrap()
}

/// The ids of these metrics, recorded for the device.
async fn metrics(store: &Store, device: DeviceId, names: &[&str]) -> Vec<i32> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let found = store.metric_ids(&names).await.unwrap();
    let id_of = |name: &String| found.iter().find(|(known, _)| known == name).unwrap().1;
    let ids: Vec<i32> = names.iter().map(id_of).collect();
    store.add_device_metrics(device, &ids).await.unwrap();
    ids
}

fn today() -> NaiveDate {
    SystemClock.now().date_naive()
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

#[tokio::test]
async fn every_type_is_read_back_as_written() {
    let database = database().await;
    let store = database.store();
    let device = device(&database, "A").await;
    let metric = metrics(&store, device, &["m"]).await[0];
    let samples = [
        (at(1), number(-1.5)),
        (at(2), Value::Flag(true)),
        (at(3), Value::Flag(false)),
        (at(4), Value::Text("grün".into())),
        (at(5), Value::Text("".into())),
        (at(6) + TimeDelta::microseconds(123_456), number(f64::MAX)),
    ];
    assert_eq!(
        store
            .append_telemetry(&rows(device, metric, &samples))
            .await
            .unwrap(),
        6
    );
    let read = store.telemetry(&history(device)).await.unwrap();
    let read: Vec<_> = read
        .into_iter()
        .map(|reading| (reading.at, reading.value))
        .collect();
    assert_eq!(read, samples);
}

#[tokio::test]
async fn a_duplicate_refuses_an_append_and_is_merged_into_one() {
    let database = database().await;
    let store = database.store();
    let device = device(&database, "A").await;
    let metric = metrics(&store, device, &["m"]).await[0];
    let batch = rows(device, metric, &[(at(1), number(1.0)), (at(2), number(2.0))]);
    store.append_telemetry(&batch).await.unwrap();

    let again = rows(device, metric, &[(at(2), number(9.0)), (at(3), number(3.0))]);
    let refused = store.append_telemetry(&again).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    assert_eq!(
        store.telemetry(&history(device)).await.unwrap().len(),
        2,
        "all or none"
    );

    let twice = rows(
        device,
        metric,
        &[(at(2), number(9.0)), (at(3), number(3.0)), (at(3), number(4.0))],
    );
    assert_eq!(store.merge_telemetry(&twice).await.unwrap(), 1);
    assert_eq!(store.merge_telemetry(&twice).await.unwrap(), 0);
    let read = told(&store.telemetry(&history(device)).await.unwrap());
    let m = |minute, value| ("m".to_owned(), minute, number(value));
    assert_eq!(read, [m(1, 1.0), m(2, 2.0), m(3, 3.0)], "the first copy stays");
}

#[tokio::test]
async fn a_batch_may_cross_partitions_and_reach_into_the_past() {
    let database = database().await;
    let store = database.store();
    let device = device(&database, "A").await;
    let metric = metrics(&store, device, &["m"]).await[0];
    let day = 1440;
    let samples = [
        (at(-400 * day), number(0.0)),
        (at(1), number(1.0)),
        (at(day + 1), number(2.0)),
    ];

    let early = store.append_telemetry(&rows(device, metric, &samples)).await;
    assert!(
        matches!(early, Err(Error::Invalid { .. })),
        "tomorrow has no partition yet: {early:?}"
    );

    let tomorrow = today() + Days::new(1);
    store.make_telemetry_partitions(today(), tomorrow).await.unwrap();
    assert_eq!(
        store.make_telemetry_partitions(today(), tomorrow).await.unwrap(),
        0
    );
    store
        .append_telemetry(&rows(device, metric, &samples))
        .await
        .unwrap();
    let all = History {
        from: at(-500 * day),
        to: at(2 * day),
        ..history(device)
    };
    assert_eq!(store.telemetry(&all).await.unwrap().len(), 3);
}

#[tokio::test]
async fn old_partitions_go_and_no_gap_opens() {
    let database = database().await;
    let store = database.store();
    let device = device(&database, "A").await;
    let metric = metrics(&store, device, &["m"]).await[0];
    store
        .make_telemetry_partitions(today(), today() + Days::new(3))
        .await
        .unwrap();
    let samples: Vec<_> = (-2..4).map(|day| (at(day * 1440 + 1), number(1.0))).collect();
    store
        .append_telemetry(&rows(device, metric, &samples))
        .await
        .unwrap();

    let keep_from = today() + Days::new(2);
    assert!(store.drop_telemetry_partitions(keep_from).await.unwrap() >= 2);
    assert_eq!(store.expire_past_telemetry(keep_from, 100).await.unwrap(), 2);
    let all = History {
        to: at(10 * 1440),
        ..history(device)
    };
    let read = told(&store.telemetry(&all).await.unwrap());
    assert_eq!(
        read.iter().map(|(_, minute, _)| *minute).collect::<Vec<_>>(),
        [2 * 1440 + 1, 3 * 1440 + 1]
    );

    // After a standstill of days the gap is filled first.
    let later = today() + Days::new(6);
    assert_eq!(store.make_telemetry_partitions(later, later).await.unwrap(), 3);
    let days: Vec<_> = store
        .telemetry_partitions()
        .await
        .unwrap()
        .into_iter()
        .filter_map(|p| p.day)
        .collect();
    assert_eq!(days, keep_from.iter_days().take(5).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_interrupted_drop_is_completed() {
    let database = database().await;
    let store = database.store();
    store
        .make_telemetry_partitions(today(), today() + Days::new(1))
        .await
        .unwrap();
    let name = format!("telemetry_{}", today().format("%Y%m%d"));
    database
        .execute(&format!("ALTER TABLE telemetry DETACH PARTITION {name}"))
        .await;
    store
        .drop_telemetry_partitions(today() + Days::new(1))
        .await
        .unwrap();
    let left = sqlx::query_scalar::<_, bool>("SELECT to_regclass($1) IS NOT NULL").bind(&name);
    assert!(!left.fetch_one(database.pool()).await.unwrap());
}

#[tokio::test]
async fn history_is_paged_across_metrics_in_order() {
    let database = database().await;
    let store = database.store();
    let device = device(&database, "A").await;
    let ids = metrics(&store, device, &["a", "b", "c"]).await;
    for (index, id) in ids.iter().enumerate() {
        let step = i64::try_from(index).unwrap() + 1;
        let samples: Vec<_> = (0..20).map(|minute| (at(minute * step), number(1.0))).collect();
        store
            .append_telemetry(&rows(device, *id, &samples))
            .await
            .unwrap();
    }
    let whole = store.telemetry(&history(device)).await.unwrap();
    assert_eq!(whole.len(), 60);
    assert!(whole.is_sorted_by_key(|reading| (reading.at, reading.metric_id)));

    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .telemetry(&History {
                after,
                limit: 7,
                ..history(device)
            })
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some(Position {
            at: last.at,
            metric_id: last.metric_id,
        });
        paged.extend(page);
    }
    assert_eq!(paged, whole);

    let some = ["b".to_owned(), "nothing".to_owned()];
    let one = History {
        metrics: Some(&some),
        from: at(4),
        to: at(9),
        ..history(device)
    };
    let minutes: Vec<i64> = told(&store.telemetry(&one).await.unwrap())
        .iter()
        .map(|(_, m, _)| *m)
        .collect();
    assert_eq!(minutes, [4, 6, 8]);
}

#[tokio::test]
async fn buckets_by_every_aggregate() {
    let database = database().await;
    let store = database.store();
    let device = device(&database, "A").await;
    let ids = metrics(&store, device, &["n", "on", "mode"]).await;
    let n: Vec<_> = [(1, 4.0), (2, 2.0), (6, 10.0)]
        .map(|(minute, value)| (at(minute), number(value)))
        .into();
    store.append_telemetry(&rows(device, ids[0], &n)).await.unwrap();
    let on: Vec<_> = [(1, true), (2, false), (6, true)]
        .map(|(m, flag)| (at(m), Value::Flag(flag)))
        .into();
    store.append_telemetry(&rows(device, ids[1], &on)).await.unwrap();
    let mode = [
        (at(1), Value::Text("eco".into())),
        (at(2), Value::Text("off".into())),
    ];
    store
        .append_telemetry(&rows(device, ids[2], &mode))
        .await
        .unwrap();

    let read = async |aggregate| {
        let wanted = history(device);
        let buckets = store
            .telemetry_buckets(&wanted, "5m".parse().unwrap(), aggregate)
            .await
            .unwrap();
        let mut paged = Vec::new();
        let mut after = None;
        loop {
            let page = History {
                after,
                limit: 1,
                ..wanted.clone()
            };
            let page = store
                .telemetry_buckets(&page, "5m".parse().unwrap(), aggregate)
                .await
                .unwrap();
            let Some(last) = page.last() else { break };
            after = Some(Position {
                at: last.at,
                metric_id: last.metric_id,
            });
            paged.extend(page);
        }
        assert_eq!(paged, buckets, "{aggregate}: pages");
        told(&buckets)
    };
    let is = |metric: &str, minute, value: f64| (metric.to_owned(), minute, number(value));
    assert_eq!(
        read(Aggregate::Avg).await,
        [
            is("n", 0, 3.0),
            is("on", 0, 0.5),
            is("n", 5, 10.0),
            is("on", 5, 1.0)
        ]
    );
    assert_eq!(
        read(Aggregate::Min).await,
        [
            is("n", 0, 2.0),
            is("on", 0, 0.0),
            is("n", 5, 10.0),
            is("on", 5, 1.0)
        ]
    );
    assert_eq!(
        read(Aggregate::Max).await,
        [
            is("n", 0, 4.0),
            is("on", 0, 1.0),
            is("n", 5, 10.0),
            is("on", 5, 1.0)
        ]
    );
    assert_eq!(
        read(Aggregate::Sum).await,
        [
            is("n", 0, 6.0),
            is("on", 0, 1.0),
            is("n", 5, 10.0),
            is("on", 5, 1.0)
        ]
    );
    assert_eq!(
        read(Aggregate::Count).await,
        [
            is("mode", 0, 2.0),
            is("n", 0, 2.0),
            is("on", 0, 2.0),
            is("n", 5, 1.0),
            is("on", 5, 1.0)
        ]
    );
    assert_eq!(
        read(Aggregate::Last).await,
        [
            ("mode".to_owned(), 0, Value::Text("off".into())),
            is("n", 0, 2.0),
            ("on".to_owned(), 0, Value::Flag(false)),
            is("n", 5, 10.0),
            ("on".to_owned(), 5, Value::Flag(true)),
        ]
    );
}

#[tokio::test]
async fn latest_is_the_newest_of_each_metric_however_old() {
    let database = database().await;
    let store = database.store();
    let (one, other) = (device(&database, "A").await, device(&database, "B").await);
    let ids = metrics(&store, one, &["fresh", "silent", "never"]).await;
    metrics(&store, other, &["fresh"]).await;
    let fresh = [(at(1), number(1.0)), (at(2), number(2.0))];
    store.append_telemetry(&rows(one, ids[0], &fresh)).await.unwrap();
    store
        .append_telemetry(&rows(other, ids[0], &[(at(3), number(9.0))]))
        .await
        .unwrap();
    let silent = [(at(-90 * 1440), number(5.0)), (at(-80 * 1440), Value::Flag(true))];
    store.append_telemetry(&rows(one, ids[1], &silent)).await.unwrap();

    let latest = store
        .latest_telemetry(Latest {
            device_id: one,
            now: at(5),
        })
        .await
        .unwrap();
    assert_eq!(
        told(&latest),
        [
            ("fresh".to_owned(), 2, number(2.0)),
            ("silent".to_owned(), -80 * 1440, Value::Flag(true))
        ]
    );
}

#[tokio::test]
async fn metrics_are_named_once_and_belong_to_devices_that_are_there() {
    let database = database().await;
    let store = database.store();
    let id = device(&database, "A").await;
    let serial: Serial = "A".parse().unwrap();
    let first = metrics(&store, id, &["a", "b"]).await;
    let second = metrics(&store, id, &["b", "c", "a"]).await;
    assert_eq!((first[0], first[1]), (second[2], second[0]));
    let mut known = store.telemetry_device(&serial).await.unwrap().unwrap();
    known.metrics.sort_unstable();
    let mut expected = second.clone();
    expected.sort_unstable();
    assert_eq!((known.id, known.metrics), (id, expected));

    database.execute("DELETE FROM devices").await;
    let gone = store.add_device_metrics(id, &[first[0]]).await;
    assert!(matches!(gone, Err(Error::Reference { .. })), "{gone:?}");
    assert_eq!(store.telemetry_device(&serial).await.unwrap(), None);
}

#[tokio::test]
async fn a_purge_takes_one_devices_rows_out_of_every_partition() {
    let database = database().await;
    let store = database.store();
    let (gone, stays) = (device(&database, "A").await, device(&database, "B").await);
    let metric = metrics(&store, stays, &["m"]).await[0];
    store
        .make_telemetry_partitions(today(), today() + Days::new(1))
        .await
        .unwrap();
    let samples = [
        (at(-5 * 1440), number(1.0)),
        (at(1), number(1.0)),
        (at(1441), number(1.0)),
    ];
    for device in [gone, stays] {
        store
            .append_telemetry(&rows(device, metric, &samples))
            .await
            .unwrap();
    }
    database
        .execute(&format!("INSERT INTO purges (device_id) VALUES ({gone})"))
        .await;

    let now = SystemClock.now();
    assert_eq!(
        store.purges(now - TimeDelta::hours(1)).await.unwrap(),
        [(gone, false)]
    );
    assert_eq!(
        store.purges(now + TimeDelta::hours(1)).await.unwrap(),
        [(gone, true)]
    );
    let mut removed = 0;
    for partition in store.telemetry_partitions().await.unwrap() {
        removed += store.purge_partition(&partition, gone).await.unwrap();
    }
    assert_eq!(removed, 3);
    store.finish_purge(gone).await.unwrap();
    assert_eq!(store.purges(now).await.unwrap(), []);
    let all = History {
        to: at(3 * 1440),
        ..history(stays)
    };
    assert_eq!(store.telemetry(&all).await.unwrap().len(), 3);
}
