//! Webhooks: what is told, and how it is signed.

use chrono::TimeDelta;
use serde_json::{Value, json};
use setpoint_model::clock::ManualClock;
use setpoint_tests::{
    Harness, Version, eventually,
    harness::{Setup, receiver::Receiver},
};

/// A server whose webhooks may reach this machine.
pub(crate) fn setup() -> Setup {
    Harness::setup()
        .with("webhooks.allow_private", r#"["127.0.0.0/8", "::1/128"]"#)
        .with("settings.reconcile_every", "50ms")
}

/// Makes a webhook: its secret.
pub(crate) async fn hook(server: &Harness, name: &str, url: &str, further: Value) -> String {
    let mut body = json!({"name": name, "url": url});
    body.as_object_mut()
        .unwrap()
        .extend(further.as_object().unwrap().clone());
    let made = server.api().post("/webhooks").json(&body).await.expect(201);
    made["secret"].as_str().expect("its secret").to_owned()
}

#[tokio::test]
async fn what_happens_is_told_signed_and_in_order() {
    let server = setup().start().await;
    let device = server.device("HOME-1").await;
    let mut receiver = Receiver::start().await;
    let further = json!({"events": ["settings", "presence"], "headers": {"X-Key": "a key of mine"}});
    let secret = hook(&server, "ops", &receiver.url(), further).await;
    let mut session = device.listening(Version::V5).await;
    let online = receiver.next().await;
    assert!(online.is_signed_by(&secret));
    assert!(!online.is_signed_by("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    assert_eq!(online.path, "/hook");
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-key", "a key of mine"),
        ("webhook-id", online.body["id"].as_str().unwrap()),
    ] {
        assert_eq!(online.header(name), value, "{name}");
    }
    assert!(online.header("user-agent").starts_with("Setpoint/"));
    let Value::Object(fields) = &online.body else {
        panic!("{online:?}")
    };
    assert_eq!(
        fields.keys().collect::<Vec<_>>(),
        ["at", "data", "id", "serial", "type"]
    );
    assert_eq!(
        (&online.body["type"], &online.body["serial"]),
        (&json!("presence"), &json!("HOME-1"))
    );
    let said = device.get().await;
    assert_eq!(online.body["data"]["online"], true);
    assert_eq!(online.body["data"]["reason"], Value::Null);
    assert!(online.body["data"]["session"].is_string(), "{said}");

    assert_eq!(device.change(json!({"privacyMode": true})).await, 2);
    let requested = receiver.next().await;
    assert!(requested.is_signed_by(&secret));
    let data = &requested.body["data"];
    assert_eq!(requested.body["type"], "settings");
    assert_eq!(
        (&data["version"], &data["stage"]),
        (&json!(2), &json!("requested"))
    );
    assert_eq!(
        (&data["source"], &data["settings"]["privacyMode"]),
        (&json!("rest"), &json!(true))
    );
    session.next("devices/HOME-1/settings").await;
    session
        .publish("devices/HOME-1/settings/ack", json!({"version": 2}).to_string())
        .await;
    let applied = receiver.next().await;
    assert_eq!(applied.body["data"], json!({"version": 2, "stage": "applied"}));
    session.disconnect().await;
    let offline = receiver.next().await;
    assert_eq!(offline.body["data"]["online"], false);
    assert_eq!(offline.body["data"]["reason"], "client_disconnected");

    eventually!(server.api().get("/webhooks/ops").await.expect(200)["pending"] == 0);
    let list = server
        .api()
        .get("/webhooks/ops/deliveries?limit=3")
        .await
        .expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    assert_eq!(items[0]["id"], offline.body["id"]);
    assert_eq!(items[0]["state"], "delivered");
    assert_eq!(
        (&items[0]["attempts"], &items[0]["last_status"]),
        (&json!(1), &json!(204))
    );
    let next = format!(
        "/webhooks/ops/deliveries?limit=3&cursor={}",
        list["next"].as_str().unwrap()
    );
    let rest = server.api().get(&next).await.expect(200);
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert_eq!(rest["next"], Value::Null);
}

#[tokio::test]
async fn a_webhook_hears_of_its_own_devices() {
    let server = setup().start().await;
    let device = json!({"serial": "OSLO-1", "tags": {"site": "oslo"}});
    server.api().post("/devices").json(&device).await.expect(201);
    server.device("ROME-1").await;
    let mut receiver = Receiver::start().await;
    let selected = json!({"events": ["settings"], "selector": "site=oslo"});
    hook(&server, "oslo", &receiver.url(), selected).await;
    for serial in ["ROME-1", "OSLO-1"] {
        let path = format!("/devices/{serial}/settings");
        server
            .api()
            .patch(&path)
            .json(&json!({"privacyMode": true}))
            .await
            .expect(200);
    }
    assert_eq!(receiver.next().await.body["serial"], "OSLO-1");
    // It hears of another device once it is told so.
    let patch = json!({"serial": "ROME-1"});
    let patched = server
        .api()
        .patch("/webhooks/oslo")
        .json(&patch)
        .await
        .expect(200);
    assert_eq!(
        (&patched["serial"], &patched["selector"]),
        (&json!("ROME-1"), &Value::Null)
    );
    for serial in ["OSLO-1", "ROME-1"] {
        let path = format!("/devices/{serial}/settings");
        server
            .api()
            .patch(&path)
            .json(&json!({"privacyMode": false}))
            .await
            .expect(200);
    }
    assert_eq!(receiver.next().await.body["serial"], "ROME-1");
}

#[tokio::test]
async fn what_commands_and_firmware_answer_is_told() {
    let server = setup().start().await;
    let device = server.device("HOME-1").await;
    let mut receiver = Receiver::start().await;
    hook(
        &server,
        "ops",
        &receiver.url(),
        json!({"events": ["commands", "firmware"]}),
    )
    .await;
    let mut session = device.mqtt_v5().await;
    let id = "0190a5c8-0000-7000-8000-000000000001";
    let answer = json!({"code": 200, "body": {}});
    let topic = device.topic(&format!("commands/{id}/result"));
    session.publish(&topic, answer.to_string()).await;
    let status = json!({"version": "1.4.0", "state": "downloading", "progress": 40, "message": null});
    session
        .publish(&device.topic("firmware/status"), status.to_string())
        .await;
    let told = receiver.next().await;
    assert_eq!(told.body["type"], "commands");
    assert_eq!(told.body["data"], json!({"id": id, "result": answer}));
    let told = receiver.next().await;
    assert_eq!(
        (&told.body["type"], &told.body["data"]),
        (&json!("firmware"), &status)
    );
}

#[tokio::test]
async fn while_a_secret_changes_both_sign() {
    let clock = ManualClock::new("2026-01-15T12:00:00Z".parse().unwrap());
    let server = setup().at(&clock).start().await;
    let mut receiver = Receiver::start().await;
    let old = hook(&server, "ops", &receiver.url(), json!({"events": ["presence"]})).await;
    let rotate = json!({"grace": "1h"});
    let rotated = server
        .api()
        .post("/webhooks/ops/secret")
        .json(&rotate)
        .await
        .expect(200);
    let new = rotated["secret"].as_str().unwrap().to_owned();
    assert_eq!(rotated["previous_secret_until"], "2026-01-15T13:00:00Z");
    for (within, signs) in [(true, true), (false, false)] {
        server.api().post("/webhooks/ops/test").await.expect(202);
        let told = receiver.next().await;
        assert!(told.is_signed_by(&new));
        assert_eq!(told.is_signed_by(&old), signs, "within its grace: {within}");
        clock.advance(TimeDelta::hours(1));
    }
}

#[tokio::test]
async fn a_test_pings_even_what_is_disabled_and_says_what_came_of_it() {
    let server = setup().start().await;
    let mut receiver = Receiver::start().await;
    let disabled = json!({"events": ["presence"], "enabled": false});
    let secret = hook(&server, "ops", &receiver.url(), disabled).await;
    let sent = server.api().post("/webhooks/ops/test").await;
    let path = sent
        .header("location")
        .strip_prefix("/api/v1")
        .unwrap()
        .to_owned();
    let id = sent.expect(202)["id"].clone();
    let told = receiver.next().await;
    assert!(told.is_signed_by(&secret));
    assert_eq!((&told.body["type"], &told.body["id"]), (&json!("ping"), &id));
    assert_eq!(told.body["data"]["webhook"], "ops");
    eventually!(server.api().get(&path).await.expect(200)["state"] == "delivered");
    receiver.answer(&[302]);
    let sent = server.api().post("/webhooks/ops/test").await;
    let path = sent
        .header("location")
        .strip_prefix("/api/v1")
        .unwrap()
        .to_owned();
    let dead = eventually!({
        let delivery = server.api().get(&path).await.expect(200);
        (delivery["state"] == "dead").then_some(delivery)
    });
    assert_eq!(dead["last_error"], "answered 302; redirects are not followed");
    assert_eq!(
        (&dead["attempts"], &dead["last_status"]),
        (&json!(1), &json!(302))
    );
}
