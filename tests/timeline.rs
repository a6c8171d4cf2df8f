//! What happened to a device, newest first.

use serde_json::{Value, json};
use setpoint_tests::{Harness, Version, eventually};

fn kinds(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["kind"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_devices_story_is_told_newest_first() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.listening(Version::V5).await;
    let number = device.change(json!({"privacyMode": true})).await;
    let document = session.next("devices/HOME-1/settings").await.json();
    let ack = json!({"version": number, "settings": document["settings"]});
    session
        .publish("devices/HOME-1/settings/ack", ack.to_string())
        .await;
    eventually!(device.timeline("settings_applied").await.len() == 1);
    session.disconnect().await;
    let list = eventually!({
        let list = server.api().get("/devices/HOME-1/timeline").await.expect(200);
        kinds(&list).contains(&"disconnected").then_some(list)
    });
    assert_eq!(
        kinds(&list),
        [
            "disconnected",
            "settings_applied",
            "settings_changed",
            "connected",
            "created"
        ]
    );
    let items = list["items"].as_array().unwrap();
    let times: Vec<&str> = items.iter().map(|item| item["at"].as_str().unwrap()).collect();
    let mut sorted: Vec<chrono::DateTime<chrono::Utc>> = times.iter().map(|at| at.parse().unwrap()).collect();
    sorted.reverse();
    assert!(sorted.is_sorted(), "{times:?}");
    let told = |kind: &str| items[kinds(&list).iter().position(|k| *k == kind).unwrap()].to_string();
    assert!(
        told("connected").contains("5.0") && told("connected").contains("tcp"),
        "{}",
        told("connected")
    );
    assert!(
        told("disconnected").contains("client_disconnected"),
        "{}",
        told("disconnected")
    );
    assert!(
        told("settings_changed").contains("rest"),
        "{}",
        told("settings_changed")
    );
    assert!(
        told("created").contains("token:admin-token"),
        "{}",
        told("created")
    );
}

#[tokio::test]
async fn it_goes_on_by_cursor_and_is_filtered_by_kind() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for number in 0..5 {
        device.change(json!({"reportInterval": 100 + number})).await;
    }
    eventually!(device.timeline("settings_changed").await.len() == 5);
    let first = server
        .api()
        .get("/devices/HOME-1/timeline?limit=4")
        .await
        .expect(200);
    assert_eq!(kinds(&first).len(), 4);
    let next = first["next"].as_str().unwrap();
    let second = server
        .api()
        .get(&format!("/devices/HOME-1/timeline?limit=4&cursor={next}"))
        .await
        .expect(200);
    assert_eq!(kinds(&second), ["settings_changed", "created"]);
    assert_eq!(second["next"], Value::Null);
    let only = server
        .api()
        .get("/devices/HOME-1/timeline?kind=created")
        .await
        .expect(200);
    assert_eq!(kinds(&only), ["created"]);
    let errors = server
        .api()
        .get("/devices/HOME-1/timeline?kind=rebooted")
        .await
        .invalid();
    assert!(errors["kind"].is_string(), "{errors}");
}
