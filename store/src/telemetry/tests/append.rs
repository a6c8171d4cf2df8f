use chrono::TimeDelta;
use setpoint_model::{
    Serial,
    telemetry::{Kind, Value},
};

use super::{at, device, history, metrics, number, of, rows, told};
use crate::{Error, testing::database};

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
async fn metrics_are_named_once_and_belong_to_devices_that_are_there() {
    let database = database().await;
    let store = database.store();
    let id = device(&database, "A").await;
    let serial: Serial = "A".parse().unwrap();
    let first = metrics(&store, id, &["a", "b"]).await;
    let second = metrics(&store, id, &["b", "c", "a"]).await;
    assert_eq!((first[0], first[1]), (second[2], second[0]));
    let known = store.telemetry_device(&serial).await.unwrap().unwrap();
    let mut expected = second.clone();
    expected.sort_unstable();
    let expected: Vec<_> = expected
        .into_iter()
        .map(|metric| (metric, Some(Kind::Number)))
        .collect();
    assert_eq!((known.id, known.metrics), (id, expected));

    database.execute("DELETE FROM devices").await;
    let gone = store.add_device_metrics(id, &[of(first[0], Kind::Number)]).await;
    assert!(matches!(gone, Err(Error::Reference { .. })), "{gone:?}");
    assert_eq!(store.telemetry_device(&serial).await.unwrap(), None);
}
