//! Two servers on one database: what one does, the other follows.

use serde_json::json;
use setpoint_tests::{Device, Harness, Version, eventually, harness::mqtt::Connect};

use crate::sessions::{PASSWORD, person, sign_in};

/// The device as it connects to another server.
pub(crate) fn at(server: &Harness, device: &Device) -> Connect {
    Connect::new(server.mqtt_port(), Version::V5, device.login())
}

/// Two servers that know of each other.
pub(crate) async fn both() -> (Harness, Harness) {
    let first = Harness::start().await;
    let second = first.beside().await;
    (first, second)
}

#[tokio::test]
async fn a_change_made_at_one_reaches_a_device_at_the_other() {
    let (first, second) = both().await;
    let device = first.device("A").await;
    let mut session = at(&second, &device).connect().await;
    assert_eq!(session.subscribe(&["devices/A/#"]).await, [1]);
    let mut version = 0;
    for label in ["one", "two", "three"] {
        version = device.change(json!({"label": label})).await;
        loop {
            let document = session.next("devices/A/settings").await.json();
            if document["version"] == version {
                assert_eq!(document["settings"]["label"], label);
                break;
            }
        }
    }
    // The device's own PUBACK, at the other, is its delivery.
    eventually!(device.version(version).await["timeline"]["delivered"].is_string());
    // Who connects to the other later finds the same there.
    let mut late = at(&second, &device).client_id("A:late").connect().await;
    late.subscribe(&["devices/A/settings"]).await;
    assert_eq!(late.next("devices/A/settings").await.json()["version"], version);
    // And a device that was made at the other one, here.
    let made = second.device("B").await;
    let mut session = at(&first, &made).connect().await;
    session.subscribe(&["devices/B/#"]).await;
    let version = made.change(json!({"label": "b"})).await;
    loop {
        if session.next("devices/B/settings").await.json()["version"] == version {
            break;
        }
    }
}

#[tokio::test]
async fn what_a_server_publishes_as_soon_as_it_runs_reaches_all_others() {
    let (first, second) = both().await;
    let mut sessions = Vec::new();
    for (server, serial) in [(&first, "A"), (&second, "B")] {
        let device = server.device(serial).await;
        let mut session = at(server, &device).connect().await;
        session.subscribe(&[&device.topic("settings")]).await;
        sessions.push((session, device.topic("settings")));
    }
    // The others can't have answered its greeting yet.
    let third = first.beside().await;
    for (session, topic) in &mut sessions {
        let serial = topic.split('/').nth(1).unwrap();
        let path = format!("/devices/{serial}/settings");
        let changed = third.api().patch(&path).json(&json!({"label": "third"}));
        let version = changed.await.expect(200)["version"].clone();
        while session.next(topic).await.json()["version"] != version {}
    }
}

#[tokio::test]
async fn a_credential_that_ends_at_one_ends_at_the_other() {
    let (first, second) = both().await;
    let device = first.device("A").await;
    let mut session = at(&second, &device).connect().await;
    let rotated = first.api().post("/devices/A/credential").await.expect(201);
    session.ended().await;
    assert_eq!(at(&second, &device).refused().await, 0x87);
    let fresh = rotated["token"].as_str().unwrap();
    let mut session = at(&second, &device).password(fresh).connect().await;
    // One's own word does not end what it brought.
    let own = Connect::new(first.mqtt_port(), Version::V5, device.login());
    let mut here = own.password(fresh).client_id("A:here").connect().await;
    let stolen = json!({"stolen": true});
    first.api().patch("/devices/A").json(&stolen).await.expect(200);
    session.ended().await;
    here.ended().await;
    first
        .api()
        .patch("/devices/A")
        .json(&json!({"stolen": false}))
        .await
        .expect(200);
    let mut session = eventually!({
        let connect = at(&second, &device).password(fresh);
        connect.attempt().await.ok()
    });
    first.api().delete("/devices/A").await.expect(204);
    session.ended().await;
    assert_eq!(at(&second, &device).password(fresh).refused().await, 0x87);
    let marker = first.device("B").await.topic("settings");
    eventually!(
        {
            let mut watcher = second.watcher().await;
            watcher.subscribe(&["devices/A/#"]).await;
            watcher.subscribe(&[&marker]).await;
            watcher.next_of_any().await.topic == marker
        },
        "nothing of A is left"
    );
}

#[tokio::test]
async fn a_right_that_ends_at_one_ends_at_the_other() {
    let (first, second) = both().await;
    let anna = person(&first, "anna", "owner").await;
    let device = first.device("A").await;
    first.api().put("/devices/A/owners/anna").await.expect(204);
    let body = json!({"name": "phone", "scopes": ["mqtt"]});
    let made = anna.post("/tokens").json(&body).await.expect(201);
    let (id, secret) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let mut session = second.operator(Version::V5, secret, "phone").connect().await;
    assert_eq!(session.subscribe(&["devices/A/#"]).await, [1]);
    first.api().delete("/devices/A/owners/anna").await.expect(204);
    eventually!(session.publish("devices/A/settings/set", "{}").await == 0x87);
    anna.delete(&format!("/tokens/{id}")).await.expect(204);
    session.ended().await;
    assert_eq!(
        second.operator(Version::V5, secret, "phone").refused().await,
        0x87
    );

    let made = anna.post("/tokens").json(&body).await.expect(201);
    let mut session = second
        .operator(Version::V5, made["token"].as_str().unwrap(), "phone")
        .connect()
        .await;
    let disabled = json!({"disabled": true});
    first.api().patch("/users/anna").json(&disabled).await.expect(200);
    session.ended().await;
    drop(device);
    let elsewhere = person(&first, "ben", "owner").await;
    sign_in(&second, "ben", PASSWORD).await;
    elsewhere.get("/devices").await.expect(200);
}

#[tokio::test]
async fn a_second_server_leaves_alone_what_is_online_at_the_first() {
    let first = Harness::start().await;
    let device = first.device("A").await;
    let _session = device.mqtt_v5().await;
    eventually!(device.get().await["online"] == true);
    let second = first.beside().await;
    let seen = second.api().get("/devices/A").await.expect(200);
    assert_eq!(seen["online"], true);
}
