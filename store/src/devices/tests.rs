use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::json;
use setpoint_model::{
    credential::SecretHash,
    device::NewDevice,
    settings::{Diff, Document, Status},
};

use super::*;
use crate::{Store, audit::NewEntry, credentials::Replaced, testing};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

async fn create(store: &Store, fields: Value, time: DateTime<Utc>) -> DeviceId {
    let Value::Object(fields) = fields else {
        panic!("{fields} is no object")
    };
    let unsettled = store
        .begin_device(&NewDevice::parse(fields).unwrap(), time)
        .await
        .unwrap();
    let id = unsettled.id;
    let settings = FirstSettings {
        document: Document::new(),
        origins: BTreeMap::new(),
        status: Status::default(),
        diff: Diff::new(),
    };
    unsettled
        .commit(&settings, Some(&SecretHash::of(b"token")), "test")
        .await
        .unwrap();
    id
}

async fn serials(store: &Store, filter: &DeviceFilter) -> Vec<String> {
    let sort = DeviceSort {
        key: SortKey::Serial,
        descending: false,
    };
    let devices = store.devices(filter, sort, None, 100).await.unwrap();
    devices
        .iter()
        .map(|device| device.serial.as_str().to_owned())
        .collect()
}

#[tokio::test]
async fn every_order_leads_through_all_pages_once() {
    let database = testing::database().await;
    let store = database.store();
    for n in 0_i64..11 {
        // Names and times that several share, so that pages end among equals.
        let fields = json!({"serial": format!("D-{n}"), "name": format!("n{}", n % 3)});
        create(&store, fields, at(n / 4)).await;
    }
    database
        .execute(
            "insert into device_presence (device_id, online, last_seen, server)
             select id, id % 2 = 0, to_timestamp(id % 3), gen_random_uuid() from devices where id % 4 <> 0",
        )
        .await;
    let keys = [
        SortKey::Serial,
        SortKey::Name,
        SortKey::Model,
        SortKey::CreatedAt,
        SortKey::UpdatedAt,
        SortKey::LastSeen,
    ];
    for key in keys {
        for descending in [false, true] {
            let sort = DeviceSort { key, descending };
            let filter = DeviceFilter::default();
            let whole = store.devices(&filter, sort, None, 100).await.unwrap();
            assert_eq!(whole.len(), 11);
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = store.devices(&filter, sort, after.as_ref(), 2).await.unwrap();
                let Some(last) = page.last() else { break };
                after = Some(key.position(last));
                paged.extend(page);
            }
            assert_eq!(paged, whole, "{sort:?}");
            let places: Vec<_> = whole
                .iter()
                .map(|device| match key.position(device) {
                    Position::Text(text, serial) => (None, text, serial),
                    Position::Time(time, serial) => (time, String::new(), serial),
                })
                .collect();
            let sorted = if descending {
                places.iter().rev().is_sorted()
            } else {
                places.is_sorted()
            };
            assert!(sorted, "{sort:?}: {places:?}");
        }
    }
}

#[tokio::test]
async fn filters_must_all_hold() {
    let database = testing::database().await;
    let store = database.store();
    create(
        &store,
        json!({"serial": "A", "name": "50% off", "tags": {"floor": 2, "spare": true}}),
        at(0),
    )
    .await;
    create(
        &store,
        json!({"serial": "B", "name": "500 on", "tags": {"floor": "2"}, "time_zone": "Europe/Oslo"}),
        at(0),
    )
    .await;
    let c = create(
        &store,
        json!({"serial": "C", "name": "x_y", "tags": {"floor": 3}}),
        at(0),
    )
    .await;
    database
        .execute(&format!(
            "insert into device_presence (device_id, online, last_seen, server) values ({c}, true, now(), gen_random_uuid())"
        ))
        .await;
    let filter = DeviceFilter::default;
    let tag = |name: &str, values: Vec<Value>| DeviceFilter {
        tags: vec![(name.to_owned(), values)],
        ..filter()
    };
    let search = |text: &str| DeviceFilter {
        search: Some(text.to_owned()),
        ..filter()
    };
    for (filter, expected) in [
        (filter(), &["A", "B", "C"][..]),
        (tag("floor", vec![json!("2"), json!(2)]), &["A", "B"]),
        (tag("floor", vec![json!(2)]), &["A"]),
        (tag("spare", vec![json!("true"), json!(true)]), &["A"]),
        (tag("site", vec![json!("oslo")]), &[]),
        (search("0% o"), &["A"]),
        (search("_"), &["C"]),
        (search("X_Y"), &["C"]),
        (search("\\"), &[]),
        (
            DeviceFilter {
                time_zone: Some("Europe/Oslo".into()),
                ..filter()
            },
            &["B"],
        ),
        (
            DeviceFilter {
                online: Some(true),
                ..filter()
            },
            &["C"],
        ),
        (
            DeviceFilter {
                online: Some(false),
                name: Some("500 on".into()),
                ..filter()
            },
            &["B"],
        ),
    ] {
        assert_eq!(serials(&store, &filter).await, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn a_device_reads_back_as_it_was_made_and_changed() {
    let database = testing::database().await;
    let store = database.store();
    let serial: Serial = "A".parse().unwrap();
    let id = create(
        &store,
        json!({"serial": "A", "tags": {"n": 1.5}, "location": {"latitude": 1}}),
        at(1),
    )
    .await;
    let device = store.device(&serial).await.unwrap().unwrap();
    assert_eq!((device.id, device.created_at), (id, at(1)));
    assert_eq!(device.description.location, Some(json!({"latitude": 1})));
    assert_eq!(device.credential_created_at, Some(at(1)));

    let mut locked = store.lock_settings(&["A"]).await.unwrap();
    let before = locked.description(id).await.unwrap().unwrap();
    assert_eq!(before, device.description);
    let after = Description {
        name: "Hall".into(),
        location: None,
        ..before.clone()
    };
    locked.write_description(id, &after, at(2)).await.unwrap();
    locked.commit().await.unwrap();
    let changed = store.device(&serial).await.unwrap().unwrap();
    assert_eq!((changed.description, changed.updated_at), (after, at(2)));

    let mut locked = store.lock_settings(&["A"]).await.unwrap();
    let wrong = Description {
        model: "toaster".into(),
        ..before
    };
    let error = locked.write_description(id, &wrong, at(3)).await.unwrap_err();
    assert_eq!(error.constraint(), Some("devices_model_fkey"));
}

/// What the audit log is told.
fn entry(second: i64) -> NewEntry {
    NewEntry {
        at: at(second),
        actor: "test".to_owned(),
        user_id: None,
        action: "test",
        object: String::new(),
        address: None,
        refused: false,
        before: None,
        after: None,
    }
}

#[tokio::test]
async fn a_credential_is_replaced_and_revoked() {
    let database = testing::database().await;
    let store = database.store();
    let (a, nobody): (Serial, Serial) = ("A".parse().unwrap(), "B".parse().unwrap());
    let id = create(&store, json!({"serial": "A"}), at(0)).await;
    let (old, new) = (SecretHash::of(b"token"), SecretHash::of(b"new"));
    assert!(store.credential(&a).await.unwrap().unwrap().hash.matches(&old));
    assert_eq!(
        store.replace_credential(&a, &new, None, &entry(1)).await.unwrap(),
        Some(Replaced {
            device_id: id,
            stolen: false
        })
    );
    assert!(store.credential(&a).await.unwrap().unwrap().hash.matches(&new));
    assert_eq!(store.credentials_page(DeviceId(0), 10).await.unwrap().len(), 1);
    assert_eq!(store.revoke_credential(&a, &entry(2)).await.unwrap(), Some(id));
    assert_eq!(store.revoke_credential(&a, &entry(3)).await.unwrap(), Some(id));
    assert!(store.credential(&a).await.unwrap().is_none());
    assert_eq!(
        store
            .replace_credential(&nobody, &new, None, &entry(4))
            .await
            .unwrap(),
        None
    );
    let entries = store.timeline(id, &[], None, 10).await.unwrap();
    let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(kinds, ["credential_revoked", "credential_rotated", "created"]);
}
