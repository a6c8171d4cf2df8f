//! What people hear and say on MQTT with tokens of their own, and how a right that ends ends there.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use setpoint_model::{Clock as _, SystemClock};
use setpoint_tests::{Harness, Mqtt, Version, harness::mqtt::VERSIONS};

use crate::sessions::{Person, person};

/// A device of a serial that is registered to `owner`.
async fn owned(server: &Harness, serial: &str, owner: &str) -> setpoint_tests::Device {
    let device = server.device(serial).await;
    server
        .sql(&format!(
            "insert into device_owners (device_id, user_id, since)
             select d.id, u.id, now() from devices d, users u where d.serial = '{serial}' and u.username = '{owner}'"
        ))
        .await;
    device
}

/// A token of a person's own, made with their cookie: its id and secret.
async fn token(person: &Person, more: Value) -> (String, String) {
    let mut body = json!({"name": "phone", "scopes": ["mqtt"]});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let made = person.post("/tokens").json(&body).await.expect(201);
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    (text("id"), text("token"))
}

/// Waits for a message of one device, none of which may be of another but those `allowed`.
async fn next_of(session: &mut Mqtt, topic: &str, allowed: &[&str]) -> Value {
    loop {
        let message = session.next_of_any().await;
        let serial = message.topic.split('/').nth(1).unwrap().to_owned();
        assert!(allowed.contains(&&*serial), "{message:?}");
        if message.topic == topic {
            return message.json();
        }
    }
}

#[tokio::test]
async fn an_owner_hears_what_is_theirs_alone() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "owner").await;
    let (own, other) = (owned(&server, "A", "anna").await, server.device("B").await);
    let version = own.change(json!({"label": "mine"})).await;
    other.change(json!({"label": "a secret"})).await;
    let (_, secret) = token(&anna, json!({})).await;
    for (protocol, refused) in [(Version::V3, 0x80), (Version::V5, 0x87)] {
        let mut session = server.operator(protocol, &secret, "phone").connect().await;
        let filters = [
            "devices/A/#",
            "devices/B/#",
            "devices/+/settings",
            "devices/#",
            "devices/C/settings",
            "#",
        ];
        assert_eq!(
            session.subscribe(&filters).await,
            [1, refused, 1, 1, refused, refused],
            "{protocol:?}"
        );
        // Retained messages and live ones alike; the document before may still be in its place.
        let settings = loop {
            let settings = next_of(&mut session, "devices/A/settings", &["A"]).await;
            if settings["version"] == version {
                break settings;
            }
        };
        assert_eq!(settings["settings"]["label"], "mine");
        let (mut first, mut second) = (
            own.mqtt(protocol).connect().await,
            other.mqtt(protocol).connect().await,
        );
        second.publish("devices/B/telemetry", r#"{"t":1}"#).await;
        first.publish("devices/A/telemetry", r#"{"t":2}"#).await;
        assert_eq!(
            next_of(&mut session, "devices/A/telemetry", &["A"]).await,
            json!({"t": 2})
        );
    }
}

#[tokio::test]
async fn an_owner_sets_their_own_and_speaks_for_nobody() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "owner").await;
    let own = owned(&server, "A", "anna").await;
    let other = server.device("B").await;
    let (_, secret) = token(&anna, json!({})).await;
    let mut session = server.operator(Version::V5, &secret, "phone").connect().await;
    let patch = r#"{"label":"from the phone"}"#;
    assert_eq!(session.publish("devices/A/settings/set", patch).await, 0);
    assert_eq!(own.settings().await["settings"]["label"], "from the phone");
    for topic in [
        "devices/B/settings/set",
        "devices/A/telemetry",
        "devices/A/settings/ack",
        "devices/A/settings",
    ] {
        assert_eq!(session.publish(topic, patch).await, 0x87, "{topic}");
    }
    assert_ne!(other.settings().await["settings"]["label"], "from the phone");

    let vera = person(&server, "vera", "viewer").await;
    let (_, secret) = token(&vera, json!({})).await;
    let mut session = server.operator(Version::V5, &secret, "screen").connect().await;
    assert_eq!(session.subscribe(&["devices/#"]).await, [1]);
    for topic in ["devices/A/settings/set", "devices/A/telemetry"] {
        assert_eq!(session.publish(topic, patch).await, 0x87, "{topic}");
    }
}

#[tokio::test]
async fn a_share_begins_and_ends_in_an_open_session() {
    let server = Harness::start().await;
    let (anna, ben) = (
        person(&server, "anna", "owner").await,
        person(&server, "ben", "owner").await,
    );
    let (first, second) = (
        owned(&server, "A", "anna").await,
        owned(&server, "B", "ben").await,
    );
    let (mut a, mut b) = (first.mqtt_v5().await, second.mqtt_v5().await);
    let (_, secret) = token(&ben, json!({})).await;
    let mut session = server.operator(Version::V5, &secret, "phone").connect().await;
    session.subscribe(&["devices/+/telemetry"]).await;
    anna.put("/devices/A/owners/ben").await.expect(204);
    a.publish("devices/A/telemetry", r#"{"t":1}"#).await;
    assert_eq!(
        next_of(&mut session, "devices/A/telemetry", &["A"]).await,
        json!({"t": 1})
    );
    assert_eq!(
        session
            .publish("devices/A/settings/set", r#"{"label":"ours"}"#)
            .await,
        0
    );
    anna.delete("/devices/A/owners/ben").await.expect(204);
    assert_eq!(
        session
            .publish("devices/A/settings/set", r#"{"label":"mine"}"#)
            .await,
        0x87
    );
    a.publish("devices/A/telemetry", r#"{"t":2}"#).await;
    b.publish("devices/B/telemetry", r#"{"t":3}"#).await;
    assert_eq!(
        next_of(&mut session, "devices/B/telemetry", &["B"]).await,
        json!({"t": 3})
    );
    assert_eq!(session.subscribe(&["devices/A/#"]).await, [0x87]);
    // Taken back altogether: nothing of its next generation is heard either.
    ben.delete("/devices/B/registration").await.expect(204);
    anna.put("/devices/A/owners/ben").await.expect(204);
    let mut operator = server.watcher().await;
    operator.publish("devices/B/telemetry", r#"{"t":4}"#).await;
    operator.publish("devices/A/telemetry", r#"{"t":5}"#).await;
    assert_eq!(
        next_of(&mut session, "devices/A/telemetry", &["A"]).await,
        json!({"t": 5})
    );
}

#[tokio::test]
async fn nothing_that_waited_is_heard_after_the_right_ended() {
    let server = Harness::start().await;
    let (anna, ben) = (
        person(&server, "anna", "owner").await,
        person(&server, "ben", "owner").await,
    );
    let (first, second) = (
        owned(&server, "A", "anna").await,
        owned(&server, "B", "ben").await,
    );
    anna.put("/devices/A/owners/ben").await.expect(204);
    let (_, secret) = token(&ben, json!({})).await;
    let kept = || server.operator(Version::V5, &secret, "phone").persistent();
    let mut session = kept().connect().await;
    session.subscribe(&["devices/+/telemetry"]).await;
    session.disconnect().await;
    first
        .mqtt_v5()
        .await
        .publish("devices/A/telemetry", r#"{"t":1}"#)
        .await;
    second
        .mqtt_v5()
        .await
        .publish("devices/B/telemetry", r#"{"t":2}"#)
        .await;
    anna.delete("/devices/A/owners/ben").await.expect(204);
    let mut session = kept().connect().await;
    assert_eq!(
        next_of(&mut session, "devices/B/telemetry", &["B"]).await,
        json!({"t": 2})
    );
}

/// A session of a token that is about to expire, and when it does: as soon as this machine can be connected before.
async fn brief(server: &Harness, person: &Person, version: Version) -> (Mqtt, DateTime<Utc>) {
    for seconds in [1, 2, 4, 8] {
        let end = SystemClock.now() + TimeDelta::seconds(seconds);
        let body = json!({"name": "brief", "scopes": ["mqtt"], "expires_at": end});
        let made = person.post("/tokens").json(&body).await;
        if made.status == 201 {
            let secret = made.json()["token"].as_str().unwrap().to_owned();
            let connect = server.operator(version, &secret, "brief");
            if let Ok(session) = connect.attempt().await {
                return (session, end);
            }
        }
        assert!(SystemClock.now() >= end, "refused before its time: {}", made.text);
    }
    panic!("it takes longer than any time given");
}

#[tokio::test]
async fn whatever_ends_a_right_ends_its_session() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "owner").await;
    owned(&server, "A", "anna").await;
    for version in VERSIONS {
        let (id, secret) = token(&anna, json!({})).await;
        let mut session = server.operator(version, &secret, "phone").connect().await;
        anna.delete(&format!("/tokens/{id}")).await.expect(204);
        session.ended().await;

        let (_, secret) = token(&anna, json!({})).await;
        let mut session = server.operator(version, &secret, "phone").connect().await;
        let role = |role: &str| server.api().patch("/users/anna").json(&json!({"role": role}));
        role("viewer").await.expect(200);
        session.ended().await;
        // The token goes on with what the role may do now.
        let mut session = server.operator(version, &secret, "phone").connect().await;
        role("owner").await.expect(200);
        session.ended().await;

        let (mut session, end) = brief(&server, &anna, version).await;
        session.ended().await;
        assert!(SystemClock.now() >= end, "and not before its time");
    }
    let (_, secret) = token(&anna, json!({})).await;
    let mut session = server.operator(Version::V5, &secret, "phone").connect().await;
    server.api().delete("/users/anna").await.expect(204);
    session.ended().await;
    assert_eq!(
        server.operator(Version::V5, &secret, "phone").refused().await,
        0x87
    );
}
