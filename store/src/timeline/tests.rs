use chrono::TimeDelta;
use setpoint_model::{
    Clock, Serial, SystemClock,
    timeline::{Facts, UnknownKind},
};

use super::*;
use crate::testing::database;

fn entry(serial: &str, at: DateTime<Utc>, version: i64) -> Entry {
    Entry {
        serial: serial.parse().unwrap(),
        at,
        facts: Facts::SettingsApplied { version },
    }
}

async fn store(serials: &[&str]) -> (crate::testing::TestDatabase, Store, Vec<DeviceId>, DateTime<Utc>) {
    let database = database().await;
    let store = database.store();
    let mut ids = Vec::new();
    for serial in serials {
        database
            .execute(&format!(
                "INSERT INTO devices (serial, model, created_at) VALUES ('{serial}', 'home', 'epoch')"
            ))
            .await;
        ids.push(
            store
                .device_id(&serial.parse::<Serial>().unwrap())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    (database, store, ids, SystemClock.now())
}

fn versions(entries: &[StoredEntry]) -> Vec<i64> {
    entries
        .iter()
        .filter_map(|entry| entry.data["version"].as_i64())
        .collect()
}

#[tokio::test]
async fn entries_are_read_newest_first_in_pages_and_by_kind() {
    let (_database, store, ids, now) = store(&["A", "B"]).await;
    let mut entries: Vec<Entry> = (1..=5).map(|version| entry("A", now, version)).collect();
    entries.push(entry("B", now, 9));
    entries.push(entry("gone", now, 9));
    entries.push(Entry {
        facts: Facts::AckRejected {
            reason: "stale".into(),
        },
        ..entry("A", now, 0)
    });
    store.write_timeline(&entries).await.unwrap();

    let page = store.timeline(ids[0], &[], None, 3).await.unwrap();
    assert_eq!(
        (page[0].kind.as_str(), versions(&page)),
        (Kind::AckRejected.as_str(), vec![5, 4])
    );
    let after = EntryPosition {
        at: page[2].at,
        id: page[2].id,
    };
    let page = store.timeline(ids[0], &[], Some(after), 10).await.unwrap();
    assert_eq!(versions(&page), [3, 2, 1]);
    store
        .write_timeline(&[entry("A", now - TimeDelta::seconds(1), 0)])
        .await
        .unwrap();
    let page = store.timeline(ids[0], &[], None, 10).await.unwrap();
    assert_eq!(
        versions(&page),
        [5, 4, 3, 2, 1, 0],
        "by time, whenever it was written"
    );

    let rejected = store
        .timeline(ids[0], &[Kind::AckRejected], None, 10)
        .await
        .unwrap();
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].data, serde_json::json!({"reason": "stale"}));
    assert_eq!(rejected[0].kind.parse(), Ok::<_, UnknownKind>(Kind::AckRejected));
}

#[tokio::test]
async fn old_entries_and_those_beyond_a_devices_bound_are_deleted() {
    let (_database, store, ids, now) = store(&["A", "B"]).await;
    let old = now - TimeDelta::days(100);
    let mut entries = vec![entry("A", old, 1), entry("A", old, 2)];
    entries.extend((3..=9).map(|version| entry("A", now, version)));
    entries.extend((1..=3).map(|version| entry("B", now, version)));
    store.write_timeline(&entries).await.unwrap();

    let keep_from = now - TimeDelta::days(90);
    assert_eq!(store.expire_timeline(keep_from, 1).await.unwrap(), 1);
    assert_eq!(store.expire_timeline(keep_from, 10).await.unwrap(), 1);
    assert_eq!(store.trim_timelines(4).await.unwrap(), 3);
    assert_eq!(store.trim_timelines(4).await.unwrap(), 0);
    assert_eq!(
        versions(&store.timeline(ids[0], &[], None, 10).await.unwrap()),
        [9, 8, 7, 6]
    );
    assert_eq!(
        versions(&store.timeline(ids[1], &[], None, 10).await.unwrap()),
        [3, 2, 1]
    );
}

#[tokio::test]
async fn what_happened_to_an_earlier_device_of_the_serial_is_not_told_of_the_new_one() {
    let (database, store, ids, now) = store(&["A"]).await;
    database.execute("UPDATE devices SET created_at = now()").await;
    let earlier = now - TimeDelta::days(1);
    let later = now + TimeDelta::days(1);
    store
        .write_timeline(&[entry("A", earlier, 1), entry("A", later, 2)])
        .await
        .unwrap();
    assert_eq!(
        versions(&store.timeline(ids[0], &[], None, 10).await.unwrap()),
        [2]
    );
}

#[tokio::test]
async fn what_comes_after_a_deletion_goes_with_what_else_is_left_of_the_device() {
    let (database, store, ids, now) = store(&["A", "B"]).await;
    store
        .write_timeline(&[entry("A", now, 1), entry("A", now, 2), entry("B", now, 3)])
        .await
        .unwrap();
    database.execute("DELETE FROM devices WHERE serial = 'A'").await;
    assert_eq!(store.purge_timeline(ids[0]).await.unwrap(), 2);
    assert_eq!(store.purge_timeline(ids[1]).await.unwrap(), 0, "it is there");
    assert_eq!(
        versions(&store.timeline(ids[1], &[], None, 10).await.unwrap()),
        [3]
    );
}
