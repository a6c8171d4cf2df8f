use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use setpoint_model::{
    DeviceId, Serial,
    credential::SecretHash,
    device::NewDevice,
    settings::{Document, Source, Status, ack::Errors, diff::diff},
};

use super::*;
use crate::{Error, devices::FirstSettings, testing};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn document(value: Value) -> Document {
    match value {
        Value::Object(document) => document,
        other => panic!("{other} is no object"),
    }
}

fn serial(text: &str) -> Serial {
    text.parse().unwrap()
}

async fn create(store: &Store, name: &str) -> (DeviceId, i64) {
    let device = NewDevice::parse(document(json!({"serial": name}))).unwrap();
    let unsettled = store.begin_device(&device, at(0)).await.unwrap();
    let (id, version) = (unsettled.id, unsettled.first_version);
    let wanted = document(json!({"count": 0}));
    let changes = diff(&Document::new(), &wanted);
    let settings = FirstSettings {
        status: Status::default().changed(&changes, version, at(0)),
        origins: BTreeMap::from([("count".to_owned(), "model".to_owned())]),
        document: wanted,
        diff: changes,
    };
    unsettled
        .commit(&settings, Some(&SecretHash::of(b"token")), "test")
        .await
        .unwrap();
    (id, version)
}

fn next(settings: &Settings, wanted: Document, time: DateTime<Utc>) -> NewVersion {
    let changes = diff(&settings.document, &wanted);
    let version = settings.version + 1;
    NewVersion {
        device_id: settings.device_id,
        version,
        overrides: wanted.clone(),
        origins: BTreeMap::from([("count".to_owned(), "device".to_owned())]),
        status: settings.status.changed(&changes, version, time),
        document: wanted,
        diff: changes,
        actor: "test".to_owned(),
        source: Source::Rest,
        at: time,
        expected_by: None,
    }
}

async fn set(store: &Store, name: &str, wanted: Value, time: DateTime<Utc>) -> i64 {
    let mut locked = store.lock_settings(&[name]).await.unwrap();
    let change = next(&locked.devices()[0], document(wanted), time);
    locked
        .write_versions(std::slice::from_ref(&change))
        .await
        .unwrap();
    locked.commit().await.unwrap();
    change.version
}

async fn delete(store: &Store, name: &str) {
    let mut locked = store.lock_settings(&[name]).await.unwrap();
    let id = locked.devices()[0].device_id;
    locked.delete_device(id, at(9)).await.unwrap();
    locked.commit().await.unwrap();
}

#[tokio::test]
async fn concurrent_writers_make_versions_without_gap_or_loss() {
    let database = testing::database().await;
    let store = database.store();
    create(&store, "A").await;
    let writers = (0..8).map(|_| async {
        for _ in 0..10 {
            let mut locked = store.lock_settings(&["A"]).await.unwrap();
            let settings = &locked.devices()[0];
            let count = settings.document["count"].as_i64().unwrap();
            let change = next(settings, document(json!({"count": count + 1})), at(count));
            locked.write_versions(&[change]).await.unwrap();
            locked.commit().await.unwrap();
        }
    });
    futures_util::future::join_all(writers).await;
    let settings = store.settings(&serial("A")).await.unwrap().unwrap();
    assert_eq!((settings.version, &settings.document["count"]), (81, &json!(80)));
    let versions = store
        .settings_versions(settings.device_id, None, 1_000)
        .await
        .unwrap();
    let numbers: Vec<i64> = versions.iter().map(|version| version.version).collect();
    assert_eq!(numbers, (1..=81).rev().collect::<Vec<_>>());
    assert!(
        versions[1..]
            .iter()
            .all(|version| version.timeline.superseded.is_some())
    );
    assert_eq!(versions[0].timeline.superseded, None);
}

#[tokio::test]
async fn locks_on_many_devices_never_wait_in_a_circle() {
    let database = testing::database().await;
    let store = database.store();
    let names: Vec<String> = (0..20).map(|n| format!("D{n}")).collect();
    for name in &names {
        create(&store, name).await;
    }
    let writers = (0..6_usize).map(|writer| {
        let (store, names) = (&store, &names);
        async move {
            for round in 0..5 {
                let mut order: Vec<&str> = names.iter().map(String::as_str).collect();
                order.rotate_left(writer * 3 + round);
                if writer % 2 == 0 {
                    order.reverse();
                }
                let mut locked = store.lock_settings(&order).await.unwrap();
                assert_eq!(locked.devices().len(), 20);
                let changes: Vec<NewVersion> = locked
                    .devices()
                    .iter()
                    .map(|s| next(s, document(json!({"count": s.version})), at(1)))
                    .collect();
                locked.write_versions(&changes).await.unwrap();
                locked.commit().await.unwrap();
                let due = store.claim_any_due_settings(7).await.unwrap();
                let marks: Vec<DeliveryMark> = due.iter().rev().map(published).collect();
                store.mark_settings(&marks).await.unwrap();
            }
        }
    });
    futures_util::future::join_all(writers).await;
    for name in &names {
        assert_eq!(store.settings(&serial(name)).await.unwrap().unwrap().version, 31);
    }
}

fn published(due: &DueSettings) -> DeliveryMark {
    DeliveryMark {
        serial: due.serial.clone(),
        version: due.version,
        published: Some(at(2)),
        delivered: None,
    }
}

#[tokio::test]
async fn a_serial_made_again_goes_on_where_it_ended() {
    let database = testing::database().await;
    let store = database.store();
    let (first, version) = create(&store, "A").await;
    assert_eq!(version, 1);
    assert_eq!(set(&store, "A", json!({"count": 1}), at(1)).await, 2);
    let twice = NewDevice::parse(document(json!({"serial": "A"}))).unwrap();
    let conflict = store.begin_device(&twice, at(1)).await.unwrap_err();
    assert_eq!(conflict.constraint(), Some("devices_serial_key"));
    delete(&store, "A").await;
    assert_eq!(store.settings(&serial("A")).await.unwrap(), None);
    let (second, version) = create(&store, "A").await;
    assert_eq!(version, 3);
    assert_ne!(first, second);
    delete(&store, "A").await;
    assert_eq!(create(&store, "A").await.1, 4);
    assert_eq!(store.settings_versions(second, None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_serial_made_again_while_it_is_deleted_goes_on_too() {
    let database = testing::database().await;
    let store = database.store();
    create(&store, "A").await;
    let mut locked = store.lock_settings(&["A"]).await.unwrap();
    let id = locked.devices()[0].device_id;
    locked.delete_device(id, at(1)).await.unwrap();
    let device = NewDevice::parse(document(json!({"serial": "A"}))).unwrap();
    let mut creation = std::pin::pin!(store.begin_device(&device, at(2)));
    // The insert waits for the deletion's fate.
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut creation)
            .await
            .is_err()
    );
    locked.commit().await.unwrap();
    assert_eq!(creation.await.unwrap().first_version, 2);
}

#[tokio::test]
async fn a_model_that_does_not_exist_is_told_by_its_constraint() {
    let database = testing::database().await;
    let device = NewDevice::parse(document(json!({"serial": "A", "model": "toaster"}))).unwrap();
    let error = database.store().begin_device(&device, at(0)).await.unwrap_err();
    assert!(matches!(&error, Error::Reference { .. }), "{error:?}");
    assert_eq!(error.constraint(), Some("devices_model_fkey"));
}

#[tokio::test]
async fn what_is_due_is_claimed_once_and_marked() {
    let database = testing::database().await;
    let store = database.store();
    let (a, _) = create(&store, "A").await;
    let (b, _) = create(&store, "B").await;
    let due = store.claim_due_settings(&[a.0, b.0, 999]).await.unwrap();
    assert_eq!(due.len(), 2);
    assert_eq!(due[0].document, document(json!({"count": 0})));
    assert_eq!(store.claim_due_settings(&[a.0, b.0]).await.unwrap(), []);
    set(&store, "A", json!({"count": 1}), at(1)).await;
    let again = store.claim_any_due_settings(10).await.unwrap();
    assert_eq!(
        again
            .iter()
            .map(|due| (due.device_id, due.version))
            .collect::<Vec<_>>(),
        [(a, 2)]
    );
    assert_eq!(store.claim_any_due_settings(10).await.unwrap(), []);

    store.mark_settings(&[published(&again[0])]).await.unwrap();
    let delivered = |time| DeliveryMark {
        serial: serial("A"),
        version: 2,
        published: None,
        delivered: Some(at(time)),
    };
    store.mark_settings(&[delivered(3)]).await.unwrap();
    store.mark_settings(&[delivered(4)]).await.unwrap();
    let timeline = store.settings_version(a, 2).await.unwrap().unwrap().timeline;
    assert_eq!(
        (timeline.published, timeline.delivered),
        (Some(at(2)), Some(at(3)))
    );

    assert_eq!(store.republish_settings(&serial("A")).await.unwrap(), Some(a));
    assert_eq!(store.claim_any_due_settings(10).await.unwrap().len(), 1);
    let page = store.settings_page(DeviceId(0), 10).await.unwrap();
    assert_eq!(page.iter().map(|due| due.device_id).collect::<Vec<_>>(), [a, b]);
    assert_eq!(store.settings_page(b, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_claim_that_waits_for_a_writer_takes_what_was_written() {
    let database = testing::database().await;
    let store = database.store();
    let (a, _) = create(&store, "A").await;
    let mut locked = store.lock_settings(&["A"]).await.unwrap();
    let change = next(&locked.devices()[0], document(json!({"count": 7})), at(1));
    locked.write_versions(&[change]).await.unwrap();
    let ids = [a.0];
    let mut claim = std::pin::pin!(store.claim_due_settings(&ids));
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut claim)
            .await
            .is_err()
    );
    assert_eq!(store.claim_any_due_settings(10).await.unwrap(), []);
    locked.commit().await.unwrap();
    let due = claim.await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].version, &due[0].document["count"]), (2, &json!(7)));
}

#[tokio::test]
async fn acknowledgements_are_kept_with_their_version() {
    let database = testing::database().await;
    let store = database.store();
    let (a, _) = create(&store, "A").await;
    set(&store, "A", json!({"count": 1}), at(1)).await;
    let acknowledge = async |version: i64, outcome: Outcome, time: i64| {
        let mut locked = store.lock_settings(&["A"]).await.unwrap();
        let reported = Reported {
            device_id: a,
            version,
            settings: document(json!({"count": 1})),
            status: locked.devices()[0].status.clone(),
            at: at(time),
        };
        let acked = AckedVersion {
            device_id: a,
            version,
            outcome,
            at: at(time),
        };
        locked.write_acks(&[reported], &[acked]).await.unwrap();
        locked.commit().await.unwrap();
        store.settings_version(a, version).await.unwrap().unwrap()
    };
    let errors = Errors::from([("count".to_owned(), Default::default())]);
    let refused = acknowledge(2, Outcome::Refused(errors.clone()), 5).await;
    assert_eq!(refused.timeline.refused, Some(at(5)));
    assert_eq!(refused.timeline.delivered, Some(at(5)));
    assert_eq!((refused.timeline.applied, &refused.errors), (None, &errors));
    let heard = acknowledge(2, Outcome::Heard, 6).await;
    assert_eq!(heard, refused);
    let applied = acknowledge(2, Outcome::Applied, 7).await;
    assert_eq!(
        (applied.timeline.refused, applied.timeline.applied),
        (None, Some(at(7)))
    );
    assert_eq!(applied.errors, Errors::new());
    let settings = store.settings(&serial("A")).await.unwrap().unwrap();
    assert_eq!(settings.reported_version, Some(2));
    assert_eq!(settings.reported, Some(document(json!({"count": 1}))));
    // What the device answered is not superseded; what it did not, is.
    set(&store, "A", json!({"count": 2}), at(8)).await;
    set(&store, "A", json!({"count": 3}), at(9)).await;
    let superseded = async |n| {
        store
            .settings_version(a, n)
            .await
            .unwrap()
            .unwrap()
            .timeline
            .superseded
    };
    assert_eq!(
        (superseded(1).await, superseded(2).await, superseded(3).await),
        (Some(at(1)), None, Some(at(9)))
    );
}
