use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::{Value, json};
use setpoint_model::{
    DeviceId,
    device::NewDevice,
    settings::{Diff, Document, Source, Status},
};

use super::*;
use crate::{devices::FirstSettings, settings::LockedSettings, testing};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn document(value: Value) -> Document {
    match value {
        Value::Object(document) => document,
        other => panic!("{other} is no object"),
    }
}

fn group(selector: &str, settings: Value) -> GroupDescription {
    GroupDescription {
        selector: selector.parse().unwrap(),
        priority: 0,
        settings: document(settings),
    }
}

async fn make(store: &Store, name: &str, group: &GroupDescription) {
    let mut locked = store.lock_group(name).await.unwrap();
    let made = locked.create(name, group, 10, "test", at(0)).await.unwrap();
    assert_eq!(made, Some(true));
    locked.commit().await.unwrap();
}

async fn device(store: &Store, serial: &str, tags: Value) -> DeviceId {
    let new = NewDevice::parse(document(json!({"serial": serial, "tags": tags}))).unwrap();
    let device = store.begin_device(&new, at(0)).await.unwrap();
    let id = device.id;
    let first = FirstSettings {
        document: Document::new(),
        origins: BTreeMap::new(),
        status: Status::default(),
        diff: Diff::new(),
    };
    device.commit(&first, None, "test").await.unwrap();
    id
}

async fn lock(store: &Store, serial: &str) -> LockedSettings {
    store.lock_settings(&[serial]).await.unwrap()
}

/// The names of the groups of a device, lowest first, and whether its row says that it may have some.
async fn groups_of(store: &Store, serial: &str) -> (Vec<String>, bool) {
    let mut locked = lock(store, serial).await;
    let (id, layered) = (locked.devices()[0].device_id, locked.devices()[0].layered);
    let layers = locked.group_layers(&[id]).await.unwrap();
    // Whoever looks for devices that are due passes over one that is still locked.
    locked.release().await.unwrap();
    (layers.into_iter().map(|layer| layer.name).collect(), layered)
}

/// Settles in pages of `page`; the devices that became due.
async fn settle(store: &Store, page: i64) -> Vec<DeviceId> {
    let mut steps = Vec::new();
    while let Settled::Some(due) = store.settle_groups(page, at(5)).await.unwrap() {
        assert!(i64::try_from(due).unwrap() <= page);
        steps.push(due);
    }
    let (mut locked, due) = store.claim_settings_due(at(5), 1_000).await.unwrap();
    let through: Vec<_> = due.iter().map(|due| (due.device_id, None)).collect();
    assert!(
        due.iter()
            .all(|due| due.source == Source::Group && due.actor == "test")
    );
    locked.finish_due(&through).await.unwrap();
    locked.commit().await.unwrap();
    let mut devices: Vec<DeviceId> = due.into_iter().map(|due| due.device_id).collect();
    devices.sort_unstable();
    devices
}

#[tokio::test]
async fn a_group_finds_its_members_and_lets_them_go() {
    let database = testing::database().await;
    let store = database.store();
    let mut ids = Vec::new();
    for n in 0_i64..7 {
        ids.push(device(&store, &format!("D-{n}"), json!({"floor": n})).await);
    }
    make(&store, "low", &group("floor in (1,2,3,4)", json!({"a": 1}))).await;
    assert!(store.group("low", at(5)).await.unwrap().unwrap().settling);
    assert_eq!(settle(&store, 2).await, ids[1..5]);
    let settled = store.group("low", at(5)).await.unwrap().unwrap();
    assert_eq!(
        (settled.members, settled.settling, settled.version),
        (4, false, 1)
    );
    assert_eq!(groups_of(&store, "D-1").await, (vec!["low".to_owned()], true));
    assert_eq!(groups_of(&store, "D-0").await, (vec![], false));

    // Another selector: who leaves, who stays, who comes.
    let mut locked = store.lock_group("low").await.unwrap();
    let wanted = group("floor in (3,4,5)", json!({"a": 1}));
    assert!(!locked.write("low", 7, &wanted, "test", at(1)).await.unwrap());
    assert!(locked.write("low", 1, &wanted, "test", at(1)).await.unwrap());
    locked.commit().await.unwrap();
    assert_eq!(settle(&store, 3).await, [ids[1], ids[2], ids[5]]);

    // Other settings: all members.
    let mut locked = store.lock_group("low").await.unwrap();
    let wanted = group("floor in (3,4,5)", json!({"a": 2}));
    assert!(locked.write("low", 2, &wanted, "test", at(1)).await.unwrap());
    locked.commit().await.unwrap();
    assert_eq!(settle(&store, 2).await, ids[3..6]);

    // Deleted: gone at once for everybody who asks, and from its members one by one.
    let mut locked = store.lock_group("low").await.unwrap();
    assert!(!locked.delete("low", 2, "test", at(1)).await.unwrap());
    assert!(locked.delete("low", 3, "test", at(1)).await.unwrap());
    locked.commit().await.unwrap();
    assert_eq!(store.group("low", at(5)).await.unwrap(), None);
    assert_eq!(store.groups("", 10, at(5)).await.unwrap(), []);
    assert_eq!(groups_of(&store, "D-3").await, (vec![], true));
    assert_eq!(settle(&store, 2).await, ids[3..6]);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM groups")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_group_made_again_before_all_have_left_keeps_those_it_means() {
    let database = testing::database().await;
    let store = database.store();
    let mut ids = Vec::new();
    for n in 0_i64..4 {
        ids.push(device(&store, &format!("D-{n}"), json!({"floor": n})).await);
    }
    make(&store, "g", &group("floor in (0,1,2)", json!({"a": 1}))).await;
    settle(&store, 10).await;
    let mut locked = store.lock_group("g").await.unwrap();
    assert!(locked.delete("g", 1, "test", at(1)).await.unwrap());
    locked.commit().await.unwrap();
    assert_eq!(store.settle_groups(1, at(5)).await.unwrap(), Settled::Some(1));
    make(&store, "g", &group("floor in (1,2,3)", json!({"a": 2}))).await;
    assert_eq!(settle(&store, 10).await, ids);
    let again = store.group("g", at(5)).await.unwrap().unwrap();
    assert_eq!((again.members, again.version), (3, 2));
}

#[tokio::test]
async fn a_group_is_settled_once_its_members_have_what_they_inherit() {
    let database = testing::database().await;
    let store = database.store();
    let member = device(&store, "D-1", json!({"floor": 1})).await;
    let other = device(&store, "D-2", json!({"floor": 2})).await;
    make(&store, "g", &group("floor=1", json!({"a": 1}))).await;
    make(&store, "other", &group("floor=2", json!({}))).await;
    while store.settle_groups(10, at(5)).await.unwrap() != Settled::All {}
    let settling = async |seconds: i64| {
        let one = async |name: &str| store.group(name, at(seconds)).await.unwrap().unwrap().settling;
        let each = [one("g").await, one("other").await];
        let all = store.groups("", 10, at(seconds)).await.unwrap();
        let all: Vec<bool> = all.iter().map(|group| group.settling).collect();
        assert_eq!(all, each);
        each
    };
    // Everybody is marked, and nobody's document was computed yet.
    assert_eq!(settling(5).await, [true, true]);
    let (mut locked, _) = store.claim_settings_due(at(5), 10).await.unwrap();
    locked
        .finish_due(&[(member, Some(at(9))), (other, None)])
        .await
        .unwrap();
    locked.commit().await.unwrap();
    assert_eq!(
        settling(8).await,
        [false, false],
        "a schedule's boundary that is to come"
    );
    assert_eq!(settling(9).await, [true, false]);
}

#[tokio::test]
async fn tags_decide_at_once() {
    let database = testing::database().await;
    let store = database.store();
    make(&store, "b", &group("site=oslo", json!({}))).await;
    make(&store, "a", &group("floor=1", json!({}))).await;
    device(&store, "D", json!({"site": "oslo", "floor": 1})).await;
    let both = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(groups_of(&store, "D").await, (both, true));
    let mut locked = lock(&store, "D").await;
    let id = locked.devices()[0].device_id;
    let tags = setpoint_model::device::Tags::parse(json!({"floor": 1})).unwrap();
    locked.join_groups(id, &tags).await.unwrap();
    locked.commit().await.unwrap();
    assert_eq!(groups_of(&store, "D").await.0, ["a"]);
}

#[tokio::test]
async fn devices_and_groups_that_change_together_agree_in_the_end() {
    let database = testing::database().await;
    let store = database.store();
    for n in 0_i64..12 {
        device(&store, &format!("D-{n}"), json!({"floor": n % 3})).await;
    }
    make(&store, "g", &group("floor=0", json!({}))).await;
    let devices = (0..12).map(|n| {
        let store = store.clone();
        async move {
            for round in 0..6 {
                let mut locked = store.lock_settings(&[&format!("D-{n}")]).await.unwrap();
                let id = locked.devices()[0].device_id;
                let mut description = locked.description(id).await.unwrap().unwrap();
                description.tags =
                    setpoint_model::device::Tags::parse(json!({"floor": (n + round) % 3})).unwrap();
                locked.write_description(id, &description, at(1)).await.unwrap();
                locked.join_groups(id, &description.tags).await.unwrap();
                locked.commit().await.unwrap();
            }
        }
    });
    let changes = async {
        for round in 1..10 {
            let mut locked = store.lock_group("g").await.unwrap();
            let wanted = group(&format!("floor={}", round % 3), json!({}));
            assert!(locked.write("g", round, &wanted, "test", at(1)).await.unwrap());
            locked.commit().await.unwrap();
            store.settle_groups(5, at(2)).await.unwrap();
        }
    };
    tokio::join!(futures_util::future::join_all(devices), changes);
    settle(&store, 5).await;
    for n in 0..12 {
        let serial = format!("D-{n}");
        let mut locked = lock(&store, &serial).await;
        let id = locked.devices()[0].device_id;
        let tags = locked.description(id).await.unwrap().unwrap().tags;
        drop(locked);
        let wanted = store
            .group("g", at(5))
            .await
            .unwrap()
            .unwrap()
            .description
            .selector
            .matches(&tags);
        let joined = !groups_of(&store, &serial).await.0.is_empty();
        assert_eq!(joined, wanted, "{serial}");
    }
}

#[tokio::test]
async fn a_device_that_is_locked_stays_due_for_the_next_look() {
    let database = testing::database().await;
    let store = database.store();
    let (a, b) = (
        device(&store, "A", json!({})).await,
        device(&store, "B", json!({})).await,
    );
    make(&store, "all", &group("*", json!({}))).await;
    while store.settle_groups(10, at(5)).await.unwrap() != Settled::All {}
    assert_eq!(store.next_settings_due().await.unwrap(), Some(at(5)));
    let held = lock(&store, "A").await;
    let (mut locked, due) = store.claim_settings_due(at(5), 10).await.unwrap();
    assert_eq!(due.iter().map(|due| due.device_id).collect::<Vec<_>>(), [b]);
    // Another server finds nothing meanwhile.
    assert_eq!(store.claim_settings_due(at(5), 10).await.unwrap().1, []);
    locked.finish_due(&[(b, Some(at(9)))]).await.unwrap();
    locked.commit().await.unwrap();
    held.release().await.unwrap();
    let (locked, due) = store.claim_settings_due(at(5), 10).await.unwrap();
    assert_eq!(due.iter().map(|due| due.device_id).collect::<Vec<_>>(), [a]);
    // A transaction that is only dropped is rolled back at some later time.
    locked.release().await.unwrap();
    assert_eq!(store.claim_settings_due(at(9), 10).await.unwrap().1.len(), 2);
}
