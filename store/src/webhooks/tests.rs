mod outbox;

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::{Value, json};
use setpoint_model::{
    DeviceId, Serial,
    device::NewDevice,
    presence::Presence,
    settings::{Diff, Document, Source, Status},
    timeline::{Entry, Facts},
    webhook::{Limits, WebhookDescription},
};

use super::*;
use crate::{
    audit::NewEntry,
    devices::FirstSettings,
    presence::PresenceChange,
    settings::{AckedVersion, NewVersion, Outcome as Answer, Reported},
    testing,
};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(1_800_000_000 + seconds)
}

fn document(value: Value) -> Document {
    match value {
        Value::Object(document) => document,
        other => panic!("{other} is no object"),
    }
}

fn entry() -> NewEntry {
    NewEntry {
        at: at(0),
        actor: "user:anna".to_owned(),
        user_id: None,
        action: "webhook.write",
        object: "webhook:x".to_owned(),
        address: None,
        refused: false,
        before: None,
        after: None,
    }
}

fn description(fields: Value) -> WebhookDescription {
    let limits = Limits {
        url: 2_000,
        headers: 8,
    };
    let mut all = document(json!({"url": "https://example.com/"}));
    all.extend(document(fields));
    WebhookDescription::parse(all, limits).unwrap()
}

async fn hook(store: &Store, name: &str, fields: Value) -> Webhook {
    let name = name.parse().unwrap();
    let description = description(fields);
    let new = NewWebhook {
        id: Uuid::new_v4(),
        name: &name,
        description: &description,
        headers: None,
        secret: b"sealed",
    };
    let made = store.create_webhook(&new, 10, at(0), &entry()).await.unwrap();
    assert_eq!(made, Made::Made);
    store.webhook(&name).await.unwrap().unwrap()
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

async fn online(store: &Store, serial: &str, online: bool, second: i64) {
    let change = PresenceChange {
        serial: serial.parse().unwrap(),
        presence: Presence {
            online,
            since: at(second),
            session: Uuid::nil(),
            reason: None,
        },
        last_seen: at(second),
    };
    store.write_presence(Uuid::nil(), &[change]).await.unwrap();
}

/// What is due of a webhook now: type and serial.
async fn claim(store: &Store, hook: &Webhook, limit: i64) -> Vec<Due> {
    let (now, until) = (at(100), at(200));
    store.claim_deliveries(hook, now, until, limit).await.unwrap()
}

fn told(due: &[Due]) -> Vec<(&str, &str)> {
    let told = due.iter();
    told.map(|due| (due.kind.as_str(), due.serial.as_deref().unwrap_or_default()))
        .collect()
}

fn delivered(due: &Due) -> Outcome {
    Outcome {
        id: due.id,
        at: at(101),
        status: Some(200),
        error: None,
        again: None,
    }
}

fn failed(due: &Due, again: Option<i64>) -> Outcome {
    Outcome {
        status: Some(500),
        error: Some("answered 500".to_owned()),
        again: again.map(at),
        ..delivered(due)
    }
}

#[tokio::test]
async fn each_webhook_is_told_of_its_own_devices_alone() {
    let database = testing::database().await;
    let store = database.store();
    let oslo = device(&store, "OSLO-1", json!({"site": "oslo"})).await;
    device(&store, "ROME-1", json!({"site": 2})).await;
    sqlx::query("INSERT INTO groups (name, selector, actor, created_at, updated_at) VALUES ('north', '*', 't', now(), now())")
        .execute(database.pool())
        .await
        .unwrap();
    sqlx::query("INSERT INTO group_members VALUES ('north', $1)")
        .bind(oslo.0)
        .execute(database.pool())
        .await
        .unwrap();
    let all = hook(&store, "all", json!({"events": ["presence"]})).await;
    let group = hook(&store, "group", json!({"events": ["presence"], "group": "north"})).await;
    let serial = hook(
        &store,
        "serial",
        json!({"events": ["presence"], "serial": "ROME-1"}),
    )
    .await;
    let not = hook(
        &store,
        "not",
        json!({"events": ["presence"], "selector": "site!=oslo"}),
    )
    .await;
    let other = hook(&store, "other", json!({"events": ["settings"]})).await;
    let off = hook(&store, "off", json!({"events": ["presence"], "enabled": false})).await;
    online(&store, "OSLO-1", true, 1).await;
    online(&store, "ROME-1", true, 2).await;
    let (oslo, rome) = (("presence", "OSLO-1"), ("presence", "ROME-1"));
    assert_eq!(told(&claim(&store, &all, 9).await), [oslo, rome]);
    assert_eq!(told(&claim(&store, &group, 9).await), [oslo]);
    assert_eq!(told(&claim(&store, &serial, 9).await), [rome]);
    assert_eq!(told(&claim(&store, &not, 9).await), [rome]);
    assert_eq!(told(&claim(&store, &other, 9).await), []);
    assert_eq!(told(&claim(&store, &off, 9).await), []);
    assert_eq!(store.webhook_backlog().await.unwrap().waiting, 5);
}

#[tokio::test]
async fn presence_is_told_when_it_changes_and_not_when_a_device_is_heard_of() {
    let database = testing::database().await;
    let store = database.store();
    device(&store, "A", json!({})).await;
    let heard: Serial = "A".parse().unwrap();
    online(&store, "A", true, 1).await;
    let hook = hook(&store, "all", json!({"events": ["presence"]})).await;
    online(&store, "A", true, 1).await;
    store
        .write_last_seen(Uuid::nil(), &[(heard, at(50))])
        .await
        .unwrap();
    assert_eq!(claim(&store, &hook, 9).await, []);
    online(&store, "A", false, 60).await;
    let due = claim(&store, &hook, 9).await;
    assert_eq!(told(&due), [("presence", "A")]);
    assert_eq!((due[0].at, &due[0].data["online"]), (at(60), &json!(false)));
    assert_eq!(due[0].data["since"], "2027-01-15T08:01:00.000000Z");
}

#[tokio::test]
async fn settings_are_told_with_the_version_and_with_the_answer() {
    let database = testing::database().await;
    let store = database.store();
    let id = device(&store, "A", json!({})).await;
    let hook = hook(
        &store,
        "all",
        json!({"events": ["settings", "commands", "firmware"]}),
    )
    .await;
    let change = NewVersion {
        device_id: id,
        version: 2,
        overrides: document(json!({"x": 1})),
        document: document(json!({"x": 1})),
        origins: BTreeMap::new(),
        status: Status::default(),
        diff: Diff::new(),
        actor: "user:anna".to_owned(),
        source: Source::Rest,
        at: at(1),
        expected_by: None,
    };
    let mut locked = store.lock_settings(&["A"]).await.unwrap();
    locked.write_versions(&[change]).await.unwrap();
    locked.commit().await.unwrap();
    let reported = Reported {
        device_id: id,
        version: 2,
        settings: document(json!({"x": 1})),
        status: Status::default(),
        at: at(2),
    };
    let acked = AckedVersion {
        device_id: id,
        version: 2,
        outcome: Answer::Applied,
        at: at(2),
    };
    for _ in 0..2 {
        let mut locked = store.lock_settings(&["A"]).await.unwrap();
        locked
            .write_acks(std::slice::from_ref(&reported), std::slice::from_ref(&acked))
            .await
            .unwrap();
        locked.commit().await.unwrap();
    }
    let serial: Serial = "A".parse().unwrap();
    let facts = [
        Facts::SettingsPending {
            version: 2,
            verdict: "waits".to_owned(),
        },
        Facts::FirmwareStatus {
            status: json!({"state": "downloading"}),
        },
        Facts::SettingsApplied { version: 2 },
    ];
    let entries: Vec<Entry> = facts
        .map(|facts| Entry {
            serial: serial.clone(),
            at: at(3),
            facts,
        })
        .into();
    store.write_timeline(&entries).await.unwrap();
    let mut all = Vec::new();
    loop {
        let due = claim(&store, &hook, 9).await;
        let [due] = &*due else { break };
        store.settle_deliveries(&[delivered(due)]).await.unwrap();
        all.push(due.data.clone());
    }
    let requested = json!({
        "version": 2, "stage": "requested", "actor": "user:anna", "source": "rest", "diff": {}, "settings": {"x": 1}
    });
    let applied = json!({"version": 2, "stage": "applied"});
    let pending = json!({"version": 2, "stage": "pending", "verdict": "waits"});
    assert_eq!(
        all,
        [requested, applied, pending, json!({"state": "downloading"})]
    );
}

#[tokio::test]
async fn an_alert_in_the_timeline_is_told_with_its_state() {
    let database = testing::database().await;
    let store = database.store();
    let id = device(&store, "A", json!({})).await;
    let hook = hook(&store, "all", json!({"events": ["presence"]})).await;
    sqlx::query("UPDATE webhooks SET events = '{alert}'")
        .execute(database.pool())
        .await
        .unwrap();
    for kind in ["alert_firing", "alerted", "connected"] {
        sqlx::query("INSERT INTO device_events (device_id, at, kind, data) VALUES ($1, now(), $2, '{\"alert\": \"hot\"}')")
            .bind(id.0)
            .bind(kind)
            .execute(database.pool())
            .await
            .unwrap();
    }
    let due = claim(&store, &hook, 9).await;
    assert_eq!(told(&due), [("alert", "A")]);
    assert_eq!(due[0].data, json!({"alert": "hot", "state": "firing"}));
}
