//! A boundary is applied once, whoever is there to do it: by the machine's clock, with real servers.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use setpoint_model::{Clock as _, SystemClock, clock::ManualClock};
use setpoint_store::testing::{TestDatabase, database};
use setpoint_tests::{Api, Child, Device, Harness, Options, Version, eventually};

use crate::PROGRAM;

const DEVICES: usize = 20;

fn period(starts_at: DateTime<Utc>, ends_at: DateTime<Utc>) -> Value {
    json!({"starts_at": starts_at, "ends_at": ends_at, "settings": {"privacyMode": true}})
}

async fn schedule(device: &Device, body: &Value) {
    let put = device.api.put(&device.path("/schedules/once"));
    let answer = put.json(body).await;
    assert!(answer.status.is_success(), "{}", answer.text);
}

/// The versions of a device's settings that a schedule made, oldest first: what `privacyMode` became.
async fn by_schedule(api: &Api, device: &Device) -> Vec<Value> {
    let list = api.get(&device.path("/settings/versions")).await.expect(200);
    let mut made: Vec<Value> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|version| version["source"] == "schedule")
        .map(|version| version["diff"]["privacyMode"]["to"].clone())
        .collect();
    made.reverse();
    made
}

async fn two_servers(database: &TestDatabase) -> (Child, Child, Vec<Device>) {
    let options = Options::new(PROGRAM)
        .env("SETPOINT_DATABASE__URL", &database.url())
        .env("SETPOINT_SETTINGS__RECONCILE_EVERY", "200ms");
    let (one, other) = (options.start().await, options.start().await);
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        devices.push(one.device(&format!("HOME-{number}")).await);
    }
    (one, other, devices)
}

#[tokio::test]
async fn two_servers_apply_a_boundary_once() {
    let database = database().await;
    let (one, other, devices) = two_servers(&database).await;
    let (start, later) = (SystemClock.now() + TimeDelta::seconds(3), TimeDelta::hours(1));
    for device in &devices {
        schedule(device, &period(start, start + later)).await;
    }
    for device in &devices {
        eventually!(by_schedule(&other.api, device).await.len() == 1);
    }
    // The end is only set now: a busy machine may need longer for the beginning than a period lasts.
    let end = SystemClock.now() + TimeDelta::seconds(3);
    for device in &devices {
        schedule(device, &period(start, end)).await;
    }
    for device in &devices {
        eventually!(by_schedule(&other.api, device).await.len() == 2);
    }
    for device in &devices {
        assert_eq!(by_schedule(&one.api, device).await, [json!(true), json!(false)]);
        assert_eq!(
            one.api.get(&device.path("/settings")).await.expect(200)["version"],
            3
        );
    }
}

#[tokio::test]
async fn a_server_that_is_killed_at_a_boundary_loses_and_doubles_nothing() {
    let database = database().await;
    let (mut one, other, devices) = two_servers(&database).await;
    let start = SystemClock.now() + TimeDelta::seconds(3);
    for device in &devices {
        schedule(device, &period(start, start + TimeDelta::hours(1))).await;
    }
    // The first sign of the boundary is in the middle of it for the others.
    eventually!(!by_schedule(&one.api, &devices[0]).await.is_empty());
    one.kill().await;
    for device in &devices {
        eventually!(!by_schedule(&other.api, device).await.is_empty());
    }
    one.start_again().await;
    for device in &devices {
        assert_eq!(by_schedule(&one.api, device).await, [json!(true)]);
        assert_eq!(
            other.api.get(&device.path("/settings")).await.expect(200)["version"],
            2
        );
    }
}

#[tokio::test]
async fn a_boundary_that_no_server_saw_is_caught_up_with() {
    let mut child = Options::new(PROGRAM).start().await;
    let (late, over) = (child.device("HOME-1").await, child.device("HOME-2").await);
    let now = SystemClock.now();
    let start = now + TimeDelta::seconds(4);
    schedule(&late, &period(start, now + TimeDelta::hours(1))).await;
    schedule(&over, &period(start, start + TimeDelta::milliseconds(1))).await;
    child.kill().await;
    eventually!(SystemClock.now() > start + TimeDelta::milliseconds(1));
    child.start_again().await;
    let late = child.again(&late);
    let mut session = late.mqtt(Version::V3).connect().await;
    eventually!(by_schedule(&child.api, &late).await.len() == 1);
    session.subscribe(&[&late.topic("settings")]).await;
    // The version is committed; it may still be on its way to the broker when the device subscribes.
    let document = loop {
        let document = session.next(&late.topic("settings")).await;
        let document: Value = serde_json::from_slice(&document.payload).unwrap();
        if document["version"] != json!(1) {
            break document;
        }
    };
    assert_eq!(
        (&document["version"], &document["settings"]["privacyMode"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(
        by_schedule(&child.api, &over).await,
        Vec::<Value>::new(),
        "it came and went unseen"
    );
}

#[tokio::test]
async fn a_long_rest_is_one_change() {
    let clock = ManualClock::new("2026-01-15T12:00:00Z".parse().unwrap());
    let setup = Harness::setup()
        .at(&clock)
        .with("settings.reconcile_every", "50ms");
    let mut server = setup.start().await;
    let device = server.device("HOME-1").await;
    let nightly = json!({
        "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "22:00", "to": "06:00",
        "settings": {"privacyMode": true}
    });
    schedule(&device, &nightly).await;
    // Ten nights later, at midnight.
    clock.advance(TimeDelta::days(10) + TimeDelta::hours(12));
    server.restart().await;
    eventually!(by_schedule(server.api(), &device).await == [json!(true)]);
}
