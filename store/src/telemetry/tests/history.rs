use setpoint_model::telemetry::{Aggregate, Value};

use super::{
    super::{History, Latest, Position},
    at, device, history, metrics, number, rows, told,
};
use crate::testing::database;

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
