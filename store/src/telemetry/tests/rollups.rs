use chrono::{DateTime, Days, TimeDelta, Utc};
use setpoint_model::{
    DeviceId,
    telemetry::{Aggregate, Value},
};

use super::{
    super::{Buckets, Latest, Rollup, Rows, Step},
    at, device, metrics, number, rows, today, told,
};
use crate::{Store, testing::database};

/// Moves the watermark to minute `minute` of today and makes all that there is to make.
async fn roll(store: &Store, minute: i64) {
    sweep(store, minute).await;
    while store.settle_late_telemetry(3).await.unwrap() != Some(0) {}
}

pub(super) async fn sweep(store: &Store, minute: i64) {
    sweep_by(store, minute, TimeDelta::minutes(97), 100_000).await;
}

/// The same in steps of this width, with at most so many minutes of series at once.
pub(super) async fn sweep_by(store: &Store, minute: i64, width: TimeDelta, most: usize) {
    assert!(store.announce_rollups(at(minute)).await.unwrap());
    store.summarize_telemetry(at(minute)).await.unwrap();
    while let Some(mut sweep) = store.begin_sweep_of(most).await.unwrap() {
        let from = sweep.from();
        while sweep.step(width).await.unwrap() != Step::Complete {}
        let (rolled, more) = sweep.commit().await.unwrap();
        assert!(rolled > from && more == (rolled < at(minute)));
    }
}

/// A database whose watermark is at the beginning of today, as if it had been installed then.
pub(super) async fn at_midnight(database: &crate::testing::TestDatabase) {
    let midnight = at(0).to_rfc3339();
    database
        .execute(&format!(
            "UPDATE telemetry_rollup SET rolled = '{midnight}', announced = '{midnight}'"
        ))
        .await;
}

pub(super) fn buckets<'a>(devices: &'a [DeviceId], bucket: &str, aggregate: Aggregate) -> Buckets<'a> {
    Buckets {
        devices,
        by_device: false,
        metrics: None,
        from: at(-5 * 1440),
        to: at(2 * 1440),
        bucket: bucket.parse().unwrap(),
        aggregate,
        after: None,
        limit: 1_000,
    }
}

#[tokio::test]
async fn roll_ups_hold_what_the_samples_say() {
    let database = database().await;
    at_midnight(&database).await;
    let store = database.store();
    let device = device(&database, "A").await;
    let ids = metrics(&store, device, &["n", "text"]).await;
    let mut batch = Rows::default();
    for (second, value) in [
        (0, 4.0),
        (59, 2.5),
        (60, -1.0),
        (3_600, f64::MAX),
        (3_601, f64::MAX),
    ] {
        batch.push(device, ids[0], at(0) + TimeDelta::seconds(second), &number(value));
    }
    batch.push(device, ids[1], at(1), &Value::Flag(true));
    batch.push(device, ids[1], at(2), &Value::Text("eco".into()));
    store.append_telemetry(&batch).await.unwrap();
    roll(&store, 119).await;
    type Row = (
        i64,
        i32,
        i32,
        Option<f64>,
        Option<f64>,
        Option<f64>,
        Option<f64>,
        Option<bool>,
        Option<String>,
    );
    let read = async |table: &str| -> Vec<Row> {
        let sql = format!(
            "SELECT (extract(epoch FROM at - '{}') / 60)::bigint, samples, numbers, min, max, sum, last_number, last_flag,
                    last_text FROM {table} ORDER BY metric_id, at",
            at(0).to_rfc3339()
        );
        let rows = sqlx::query_as(sqlx::AssertSqlSafe(sql));
        rows.fetch_all(database.pool()).await.unwrap()
    };
    let number = |minute, count, min, max, sum, last| {
        (
            minute,
            count,
            count,
            Some(min),
            Some(max),
            Some(sum),
            Some(last),
            None,
            None,
        )
    };
    assert_eq!(
        read("telemetry_minutes").await,
        [
            number(0, 2, 2.5, 4.0, 6.5, 2.5),
            number(1, 1, -1.0, -1.0, -1.0, -1.0),
            number(60, 2, f64::MAX, f64::MAX, 2e290, f64::MAX),
            (1, 1, 1, Some(1.0), Some(1.0), Some(1.0), None, Some(true), None),
            (2, 1, 0, None, None, None, None, None, Some("eco".to_owned())),
        ]
    );
    // The hour that isn't over yet is not there.
    assert_eq!(
        read("telemetry_hours").await,
        [
            number(0, 3, -1.0, 4.0, 5.5, -1.0),
            (
                0,
                2,
                1,
                Some(1.0),
                Some(1.0),
                Some(1.0),
                None,
                None,
                Some("eco".to_owned())
            ),
        ]
    );
}

#[tokio::test]
async fn a_late_sample_is_seen_at_once_and_rolled_up_after() {
    let database = database().await;
    at_midnight(&database).await;
    let store = database.store();
    let device = device(&database, "A").await;
    let metric = metrics(&store, device, &["m"]).await[0];
    let send = async |minute: i64, value: f64| {
        let batch = rows(device, metric, &[(at(minute), number(value))]);
        store.append_telemetry(&batch).await.unwrap();
    };
    send(10, 1.0).await;
    send(130, 2.0).await;
    roll(&store, 180).await;
    let waiting = async || store.rollup_marks().await.unwrap().1;
    assert_eq!(waiting().await, 0, "nothing was late");
    let read = async || {
        let devices = [device];
        let hours = buckets(&devices, "1h", Aggregate::Sum);
        let read = store.telemetry_in_buckets(&hours).await.unwrap();
        read.into_iter().map(|reading| reading.value).collect::<Vec<_>>()
    };
    assert_eq!(read().await, [number(1.0), number(2.0)]);
    send(11, 5.0).await;
    send(-70, 7.0).await;
    // A duplicate comes by way of the staging table.
    let again = rows(device, metric, &[(at(11), number(9.0)), (at(12), number(3.0))]);
    assert_eq!(store.merge_telemetry(&again).await.unwrap(), 1);
    assert_eq!(waiting().await, 3);
    let expected = [number(7.0), number(9.0), number(2.0)];
    assert_eq!(read().await, expected, "before the notes are worked off");
    while store.settle_late_telemetry(1).await.unwrap() != Some(0) {}
    assert_eq!(waiting().await, 0);
    database.execute("DELETE FROM telemetry").await;
    assert_eq!(read().await, expected, "by the roll-ups alone");
}

#[tokio::test]
async fn a_writer_that_is_under_way_is_waited_for() {
    let database = database().await;
    at_midnight(&database).await;
    let store = database.store();
    let mut writer = database.pool().begin().await.unwrap();
    let watermark: DateTime<Utc> = sqlx::query_scalar("SELECT telemetry_hold()")
        .fetch_one(&mut *writer)
        .await
        .unwrap();
    assert_eq!(watermark, at(0));
    let refused = store.announce_rollups(at(10)).await;
    assert!(refused.unwrap_err().is_unavailable(), "after two seconds");
    writer.rollback().await.unwrap();
    assert!(store.announce_rollups(at(10)).await.unwrap());
}

#[tokio::test]
async fn one_server_at_a_time_rolls_up() {
    let database = database().await;
    at_midnight(&database).await;
    let store = database.store();
    assert!(store.announce_rollups(at(10)).await.unwrap());
    let mut other = database.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM telemetry_rollup FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    assert!(!store.announce_rollups(at(20)).await.unwrap());
    assert!(store.begin_sweep().await.unwrap().is_none());
    assert_eq!(store.settle_late_telemetry(10).await.unwrap(), None);
    other.rollback().await.unwrap();
    assert_eq!(
        store.settle_late_telemetry(10).await.unwrap(),
        None,
        "the sweep comes first"
    );
    sweep(&store, 10).await;
    assert_eq!(store.rollup_marks().await.unwrap().0.rolled, at(10));
}

#[tokio::test]
async fn old_roll_ups_go_and_the_samples_answer_for_them() {
    let database = database().await;
    let store = database.store();
    let device = device(&database, "A").await;
    let metric = metrics(&store, device, &["m"]).await[0];
    let days = [-800, -70, -35, 0];
    let samples: Vec<_> = days.iter().map(|day| (at(day * 1440), number(1.0))).collect();
    store
        .append_telemetry(&rows(device, metric, &samples))
        .await
        .unwrap();
    store
        .make_rollup_partitions(today() + Days::new(70))
        .await
        .unwrap();
    roll(&store, 1440).await;
    let read = async |bucket: &str| {
        let devices = [device];
        let wanted = Buckets {
            from: at(-900 * 1440),
            ..buckets(&devices, bucket, Aggregate::Count)
        };
        let both = (
            store.telemetry_in_buckets(&wanted).await.unwrap(),
            store.telemetry_in_buckets_of_samples(&wanted).await.unwrap(),
        );
        assert_eq!(both.0, both.1, "{bucket}");
        both.0.len()
    };
    assert_eq!((read("1h").await, read("1m").await), (4, 4));
    let keep_from = today() - Days::new(60);
    for rollup in [Rollup::Minutes, Rollup::Hours] {
        assert_eq!(store.drop_rollup_partitions(rollup, keep_from).await.unwrap(), 0);
        assert_eq!(store.expire_past_rollups(rollup, keep_from, 1).await.unwrap(), 1);
        assert_eq!(store.expire_past_rollups(rollup, keep_from, 1).await.unwrap(), 1);
        assert_eq!(store.expire_past_rollups(rollup, keep_from, 1).await.unwrap(), 0);
    }
    assert_eq!((read("1h").await, read("1m").await), (4, 4));
    // A whole month: that of today, from the month after next on.
    let keep_from = today() + Days::new(62);
    assert!(
        store
            .drop_rollup_partitions(Rollup::Minutes, keep_from)
            .await
            .unwrap()
            >= 1
    );
    assert_eq!((read("1h").await, read("1m").await), (4, 4));
}

#[tokio::test]
async fn hours_tell_the_newest_of_a_silent_metric() {
    let database = database().await;
    let store = database.store();
    let device = device(&database, "A").await;
    let ids = metrics(&store, device, &["a", "b"]).await;
    for (id, day) in [(ids[0], -80), (ids[1], -9)] {
        let samples = [
            (at(day * 1440), number(5.0)),
            (at(day * 1440 + 7), Value::Text("x".into())),
        ];
        store.append_telemetry(&rows(device, id, &samples)).await.unwrap();
    }
    roll(&store, 0).await;
    let latest = async || {
        let now = at(5);
        told(
            &store
                .latest_telemetry(Latest {
                    device_id: device,
                    now,
                })
                .await
                .unwrap(),
        )
    };
    let is = |name: &str, minute, text: &'static str| (name.to_owned(), minute, Value::Text(text.into()));
    let rolled = latest().await;
    assert_eq!(
        rolled,
        [is("a", -80 * 1440 + 7, "x"), is("b", -9 * 1440 + 7, "x")]
    );
    // One that comes late is newer, though the roll-ups don't know it yet.
    let late = rows(device, ids[0], &[(at(-70 * 1440), Value::Text("late".into()))]);
    store.append_telemetry(&late).await.unwrap();
    assert_eq!(latest().await[0], is("a", -70 * 1440, "late"));
    database.execute("DELETE FROM telemetry").await;
    assert_eq!(
        latest().await,
        [is("b", -9 * 1440 + 7, "x")],
        "its note still waits"
    );
}
