use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use setpoint_model::{
    DeviceId,
    change::{Abort, Canary, Outcome, Stage, State},
};

use super::*;
use crate::{audit::NewEntry, testing};

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn entry() -> NewEntry {
    NewEntry {
        at: at(0),
        actor: "test".to_owned(),
        user_id: None,
        action: "change.begin",
        object: String::new(),
        address: None,
        refused: false,
        before: None,
        after: None,
    }
}

fn new(id: Uuid) -> NewChange {
    NewChange {
        id,
        patch: Document::from_iter([("label".to_owned(), json!("hall"))]),
        selection: json!({"serials": 5}),
        canary: Some("2".to_owned()),
        rate_per_minute: None,
        abort: Abort {
            refused_percent: 10.0,
            pending_percent: 100.0,
            after: Duration::from_secs(60),
        },
        actor: "test".to_owned(),
        at: at(0),
    }
}

fn device(number: i64, outcome: Outcome) -> SelectedDevice {
    SelectedDevice {
        device_id: DeviceId(number),
        serial: format!("D-{number}").parse().unwrap(),
        outcome,
        message: None,
    }
}

/// Begins a change of five devices, the second of which is invalid.
async fn begun(store: &Store, id: Uuid) -> Option<State> {
    let mut draft = store.draft_change(&new(id)).await.unwrap();
    draft
        .add(&[device(1, Outcome::Waiting), device(2, Outcome::Invalid)])
        .await
        .unwrap();
    let rest: Vec<SelectedDevice> = (3..=5).map(|number| device(number, Outcome::Waiting)).collect();
    draft.add(&rest).await.unwrap();
    draft
        .begin(Some(Canary::Count(2)), 2, at(0), &entry())
        .await
        .unwrap()
}

#[tokio::test]
async fn the_canary_ends_with_its_last_device_that_waits() {
    let database = testing::database().await;
    let store = database.store();
    let id = Uuid::now_v7();
    assert_eq!(begun(&store, id).await, Some(State::Running(Stage::Canary)));
    let change = store.change(id).await.unwrap().unwrap();
    assert_eq!((change.selected, change.canary_end), (5, Some(2)));
    let mut claimed = store.claim_change(at(1)).await.unwrap().unwrap();
    let waiting = claimed.waiting(change.canary_end, 10).await.unwrap();
    let places: Vec<i32> = waiting.iter().map(|device| device.place).collect();
    assert_eq!(places, [0, 2]);
    let all = claimed.waiting(None, 3).await.unwrap();
    let places: Vec<i32> = all.iter().map(|device| device.place).collect();
    assert_eq!(places, [0, 2, 3]);
}

#[tokio::test]
async fn a_change_has_one_worker_and_waits_until_it_is_due() {
    let database = testing::database().await;
    let store = database.store();
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    begun(&store, first).await.unwrap();
    begun(&store, second).await.unwrap();
    assert_eq!(begun(&store, Uuid::now_v7()).await, None, "two are open already");
    assert_eq!(store.changes(None, 10).await.unwrap().len(), 2);
    assert!(store.claim_change(at(-1)).await.unwrap().is_none());

    let one = store.claim_change(at(1)).await.unwrap().unwrap();
    let mut other = store.claim_change(at(1)).await.unwrap().unwrap();
    assert_ne!(one.change.id, other.change.id);
    assert!(store.claim_change(at(1)).await.unwrap().is_none());
    drop(one);
    other.save(Some(at(5))).await.unwrap();
    other.commit().await.unwrap();
    // A transaction that is only dropped is rolled back at some later time.
    let free = async {
        loop {
            match store.claim_change(at(1)).await.unwrap() {
                Some(left) => return left,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let left = tokio::time::timeout(Duration::from_secs(20), free)
        .await
        .expect("the claim ends with its transaction");
    assert!(store.claim_change(at(1)).await.unwrap().is_none());
    left.commit().await.unwrap();
    assert_eq!(store.next_change_due().await.unwrap(), Some(at(0)));
}

#[tokio::test]
async fn what_ended_long_ago_goes_and_the_rest_stays() {
    let database = testing::database().await;
    let store = database.store();
    let (old, open) = (Uuid::now_v7(), Uuid::now_v7());
    begun(&store, old).await.unwrap();
    begun(&store, open).await.unwrap();
    let mut claimed = store.lock_change(old).await.unwrap().unwrap();
    claimed.turn(State::Cancelled, at(1));
    claimed.save(None).await.unwrap();
    claimed.commit().await.unwrap();
    assert!(!store.expire_change(at(1)).await.unwrap());
    assert!(store.expire_change(at(1) + TimeDelta::seconds(1)).await.unwrap());
    assert!(!store.expire_change(at(1_000)).await.unwrap());
    assert!(store.change(old).await.unwrap().is_none());
    let counts = store.change_counts(open).await.unwrap();
    assert_eq!((counts.of(Outcome::Waiting), counts.of(Outcome::Invalid)), (4, 1));
}
