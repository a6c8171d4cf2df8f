//! Answers to `settings/set` on a response topic (MQTT 5).

use serde_json::json;
use setpoint_tests::{Harness, Mqtt, Version, eventually};

async fn operator(server: &Harness, client_id: &str) -> Mqtt {
    let connect = server.operator(Version::V5, server.api().token(), client_id);
    connect.connect().await
}

#[tokio::test]
async fn the_session_that_asks_hears_the_version_and_nobody_else_does() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let (mut asking, mut other) = (
        operator(&server, "asking").await,
        operator(&server, "other").await,
    );
    assert_eq!(asking.subscribe(&["responses/asking/+"]).await, [1]);
    assert_eq!(
        other
            .subscribe(&["responses/#", "devices/HOME-1/settings/set"])
            .await,
        [1, 1]
    );
    let topic = device.topic("settings/set");
    asking
        .request(&topic, r#"{"label":"a"}"#, "responses/asking/1", "one")
        .await;
    let answer = asking.next("responses/asking/1").await;
    assert_eq!(answer.json(), json!({"version": 2}));
    assert_eq!(answer.correlation.as_deref(), Some("one".as_bytes()));
    assert!(!answer.retain);
    // What changes nothing is accepted as well.
    asking
        .request(&topic, r#"{"label":"a"}"#, "responses/asking/2", "two")
        .await;
    assert_eq!(
        asking.next("responses/asking/2").await.json(),
        json!({"version": 2})
    );
    let entries = eventually!({
        let entries = device.timeline("settings_set_accepted").await;
        (entries.len() == 2).then_some(entries)
    });
    assert_eq!(
        entries[0]["data"],
        json!({"actor": "token:admin-token", "version": 2})
    );
    // The other heard both requests, and neither answer.
    other
        .request("devices/NOBODY/settings/set", "{}", "responses/other", "three")
        .await;
    assert_eq!(other.next(&topic).await.json(), json!({"label": "a"}));
    assert_eq!(other.next(&topic).await.json(), json!({"label": "a"}));
    let answer = other.next_of_any().await;
    assert_eq!(answer.topic, "responses/other");
    assert_eq!(answer.json()["code"], "not_found");
}

#[tokio::test]
async fn an_answer_goes_to_response_topics_alone() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut ops = operator(&server, "ops").await;
    assert_eq!(ops.subscribe(&["responses/#", "devices/#"]).await, [1, 1]);
    let topic = device.topic("settings/set");
    for elsewhere in ["devices/HOME-1/telemetry", "answers/1", "responses/"] {
        ops.request(&topic, r#"{"label":"a"}"#, elsewhere, "x").await;
    }
    ops.request(&topic, r#"{"label":"b"}"#, "responses/1", "y").await;
    assert_eq!(ops.next("responses/1").await.json()["version"], 3);
    let telemetry = server
        .api()
        .get("/devices/HOME-1/telemetry/latest")
        .await
        .expect(200);
    assert_eq!(telemetry["items"], json!([]));
    // Nobody publishes there, and a device hears nothing there.
    let mut other = operator(&server, "other").await;
    assert_eq!(other.publish("responses/1", "{}").await, 0x87);
    let mut session = device.mqtt_v5().await;
    assert_eq!(session.subscribe(&["responses/#"]).await, [0x87]);
    assert_eq!(session.publish("responses/1", "{}").await, 0x87);
}
