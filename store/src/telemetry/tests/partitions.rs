use chrono::{Days, TimeDelta};
use setpoint_model::{Clock, SystemClock};

use super::{
    super::{History, Lease},
    at, device, history, metrics, number, rollups, rows, today, told,
};
use crate::{Error, testing::database};

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
async fn a_purge_takes_one_devices_rows_out_of_every_partition() {
    let database = database().await;
    let store = database.store();
    rollups::at_midnight(&database).await;
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
    let lease = |settled: TimeDelta| Lease {
        now,
        until: now + TimeDelta::minutes(1),
        settled: now + settled,
    };
    let before = lease(TimeDelta::hours(-1));
    assert_eq!(store.due_purges(before).await.unwrap(), [(gone, false)]);
    assert_eq!(store.due_purges(before).await.unwrap(), [], "somebody is at it");
    store.release_purges(&[gone], now).await.unwrap();
    let after = lease(TimeDelta::hours(1));
    assert_eq!(store.due_purges(after).await.unwrap(), [(gone, true)]);
    let mut removed = 0;
    for (table, _) in store.all_telemetry_tables().await.unwrap() {
        let mut step = 1;
        while step > 0 {
            step = store
                .delete_telemetry_rows(&table, &[gone], None, 1)
                .await
                .unwrap();
            assert!(step <= 1);
            removed += step;
        }
    }
    assert_eq!(removed, 4, "three samples and a note of one that was late");
    store.finish_purge(gone).await.unwrap();
    store.release_purges(&[gone], now).await.unwrap();
    assert_eq!(store.due_purges(after).await.unwrap(), []);
    let all = History {
        to: at(3 * 1440),
        ..history(stays)
    };
    assert_eq!(store.telemetry(&all).await.unwrap().len(), 3);
}
