//! Taking a device back: unregistering, sharing, theft, and tokens that go on for a while.

use reqwest::Method;
use serde_json::json;
use setpoint_tests::{Harness, Version, eventually, harness::mqtt::Connect};

use crate::{
    claiming::{ask, claimed, login},
    sessions::person,
};

fn connect(server: &Harness, serial: &str, token: &str) -> Connect {
    Connect::new(server.mqtt_port(), Version::V5, login(serial, token))
}

#[tokio::test]
async fn nothing_of_the_former_owner_reaches_the_next() {
    let server = Harness::start().await;
    let (anna, ben) = (
        person(&server, "anna", "owner").await,
        person(&server, "ben", "owner").await,
    );
    let token = claimed(&server, &anna, "A").await;
    let mut session = connect(&server, "A", &token).connect().await;
    session
        .publish("devices/A/telemetry", r#"{"temperature":-98765.25}"#)
        .await;
    anna.patch("/devices/A")
        .json(&json!({"name": "Anna's", "location": "home"}))
        .await
        .expect(200);
    let changed = anna
        .patch("/devices/A/settings")
        .json(&json!({"label": "Anna's"}))
        .await
        .expect(200);
    ben.delete("/devices/A/registration")
        .await
        .problem(404, "not_found");

    let mut watcher = server.watcher().await;
    anna.delete("/devices/A/registration").await.expect(204);
    session.ended().await;
    assert_eq!(connect(&server, "A", &token).refused().await, 0x87);
    let basic = server
        .api()
        .anonymous()
        .post("/devices/A/telemetry")
        .basic("A", &token);
    basic
        .body(r#"{"temperature":1}"#)
        .await
        .problem(401, "unauthenticated");
    anna.get("/devices/A").await.problem(404, "not_found");
    watcher.subscribe(&["devices/A/#"]).await;
    assert_ne!(
        watcher.next("devices/A/settings").await.json()["settings"]["label"],
        "Anna's"
    );

    let second = claimed(&server, &ben, "A").await;
    let device = ben.get("/devices/A").await.expect(200);
    assert_eq!((&device["name"], &device["location"]), (&json!(""), &json!(null)));
    let settings = ben.get("/devices/A/settings").await.expect(200);
    assert!(
        settings["version"].as_i64() > changed["version"].as_i64(),
        "versions go on"
    );
    assert_eq!(settings["overrides"], json!({}));
    for path in [
        "/settings/versions",
        "/timeline",
        "/telemetry",
        "/telemetry/latest",
    ] {
        let list = ben.get(&format!("/devices/A{path}")).await;
        list.expect(200);
        assert!(
            !list.text.to_lowercase().contains("anna") && !list.text.contains("98765.25"),
            "{path}: {}",
            list.text
        );
    }
    let mut session = connect(&server, "A", &second).connect().await;
    session
        .publish("devices/A/telemetry", r#"{"temperature":3}"#)
        .await;
    let latest = ben.get("/devices/A/telemetry/latest").await.expect(200);
    assert_eq!(latest["items"][0]["value"], 3, "{latest}");
    assert_eq!(connect(&server, "A", &token).refused().await, 0x87);
}

#[tokio::test]
async fn a_share_lets_another_in_and_out() {
    let server = Harness::start().await;
    let (anna, ben) = (
        person(&server, "anna", "owner").await,
        person(&server, "ben", "owner").await,
    );
    let carl = person(&server, "carl", "owner").await;
    let token = claimed(&server, &anna, "A").await;
    ben.put("/devices/A/owners/ben").await.problem(404, "not_found");
    anna.put("/devices/A/owners/ben").await.expect(204);
    ben.get("/devices/A").await.expect(200);
    ben.patch("/devices/A/settings")
        .json(&json!({"label": "ours"}))
        .await
        .expect(200);
    ben.put("/devices/A/owners/carl").await.problem(403, "forbidden");
    anna.put("/devices/A/owners/carl").await.expect(204);
    ben.delete("/devices/A/owners/carl")
        .await
        .problem(403, "forbidden");
    ben.delete("/devices/A/owners/anna")
        .await
        .problem(403, "forbidden");
    // Who was let in can leave, and takes nothing from the others.
    ben.delete("/devices/A/registration").await.expect(204);
    ben.get("/devices/A").await.problem(404, "not_found");
    connect(&server, "A", &token).connect().await;
    anna.delete("/devices/A/owners/carl").await.expect(204);
    carl.get("/devices/A").await.problem(404, "not_found");
    anna.get("/devices/A").await.expect(200);
}

#[tokio::test]
async fn a_stolen_device_is_refused_and_every_attempt_is_told() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "owner").await;
    let token = claimed(&server, &anna, "A").await;
    let mut session = connect(&server, "A", &token).connect().await;
    let stolen = anna
        .patch("/devices/A")
        .json(&json!({"stolen": true}))
        .await
        .expect(200);
    assert_eq!(stolen["stolen"], true);
    session.ended().await;
    assert_eq!(connect(&server, "A", &token).refused().await, 0x87);
    let basic = server
        .api()
        .anonymous()
        .post("/devices/A/telemetry")
        .basic("A", &token);
    basic
        .body(r#"{"temperature":1}"#)
        .await
        .problem(401, "unauthenticated");
    let seen = eventually!({
        let list = anna.get("/devices/A/timeline?kind=stolen_seen").await.expect(200);
        let items = list["items"].as_array().unwrap().clone();
        (items.len() == 2).then_some(items)
    });
    for entry in &seen {
        assert!(
            entry["data"]["address"]
                .as_str()
                .unwrap()
                .starts_with("127.0.0.1"),
            "{entry}"
        );
    }
    let claim = server
        .api()
        .anonymous()
        .root(Method::POST, "/oauth/device_authorization");
    let claim = claim.header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(
        claim.body("client_id=device&serial=A").await.expect(401)["error"],
        "invalid_client"
    );
    anna.patch("/devices/A")
        .json(&json!({"stolen": false}))
        .await
        .expect(200);
    connect(&server, "A", &token).connect().await;
    ask(&server, "A").await;
}

#[tokio::test]
async fn a_former_token_goes_on_for_its_grace_alone() {
    let server = Harness::start().await;
    let device = server.device("A").await;
    let mut session = device.mqtt_v5().await;
    let rotate = |body: &str| server.api().post("/devices/A/credential").body(body.to_owned());
    let made = rotate(r#"{"grace":"1h"}"#).await.expect(201);
    let fresh = made["token"].as_str().unwrap();
    assert!(session.is_connected());
    connect(&server, "A", fresh).client_id("A:new").connect().await;
    connect(&server, "A", &device.token)
        .client_id("A:old")
        .connect()
        .await;
    server
        .sql("update device_credentials set previous_until = now() - interval '1 second'")
        .await;
    session.ended().await;
    assert_eq!(connect(&server, "A", &device.token).refused().await, 0x87);
    connect(&server, "A", fresh).connect().await;
    for (body, field) in [
        (r#"{"grace":"soon"}"#, "grace"),
        (r#"{"grace":"31days"}"#, "grace"),
        (r#"{"x":1}"#, "x"),
    ] {
        let errors = rotate(body).await.invalid();
        assert!(errors.get(field).is_some(), "{body}: {errors}");
    }
    rotate("").await.expect(201);
    assert_eq!(connect(&server, "A", fresh).refused().await, 0x87);
}
