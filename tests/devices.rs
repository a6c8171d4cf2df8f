//! Devices over REST.

use serde_json::{Value, json};
use setpoint_tests::Harness;

fn serials(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["serial"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_device_is_created_with_a_credential_that_is_shown_once() {
    let server = Harness::start().await;
    let body = json!({
        "serial": "HOME-1", "name": "Kitchen", "model": "home", "tags": {"site": "oslo", "floor": 2},
        "time_zone": "Europe/Oslo", "location": {"latitude": 59.9, "longitude": 10.7}
    });
    let answer = server.api().post("/devices").json(&body).await;
    let made = answer.expect(201);
    assert_eq!(answer.header("location"), "/api/v1/devices/HOME-1");
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(&made[field], value, "{field}");
    }
    assert_eq!(made["credential"]["username"], "HOME-1");
    let token = made["credential"]["token"].as_str().unwrap();
    assert!(token.starts_with("spd_"), "{token}");

    let got = server.api().get("/devices/HOME-1").await;
    let read = got.expect(200);
    assert!(
        !got.text.contains(token),
        "the token is never shown again: {read}"
    );
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(&read[field], value, "{field}");
    }
    assert_eq!(read["online"], false);
    let list = server.api().get("/devices").await;
    assert!(!list.text.contains(token), "nor in a list");
}

#[tokio::test]
async fn only_the_serial_is_needed() {
    let server = Harness::start().await;
    let made = server
        .api()
        .post("/devices")
        .json(&json!({"serial": "A"}))
        .await
        .expect(201);
    assert_eq!(made["model"], "home");
    assert_eq!(made["name"], "");
    assert_eq!(made["tags"], json!({}));
    assert_eq!(made["time_zone"], "UTC");
    assert_eq!(made["location"], Value::Null);
}

#[tokio::test]
async fn a_serial_is_taken_once() {
    let server = Harness::start().await;
    server.device("TWICE").await;
    let again = server
        .api()
        .post("/devices")
        .json(&json!({"serial": "TWICE"}))
        .await;
    let problem = again.problem(409, "device_exists");
    assert!(problem["detail"].as_str().unwrap().contains("TWICE"), "{problem}");
}

#[tokio::test]
async fn each_wrong_field_is_named_with_its_rule() {
    let server = Harness::start().await;
    let body = json!({
        "serial": "-no", "name": 1, "model": "no-such-model", "tags": {"a b": 1}, "time_zone": "Mars/Olympus",
        "location": 5, "colour": "red"
    });
    let errors = server.api().post("/devices").json(&body).await.invalid();
    assert_eq!(
        errors["serial"],
        "a serial is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit"
    );
    assert_eq!(errors["name"], "must be a text");
    assert_eq!(errors["tags"], "a tag's name is 1 to 64 of A-Z a-z 0-9 . _ -");
    assert_eq!(
        errors["time_zone"],
        "must be an IANA time zone such as \"Europe/Oslo\""
    );
    assert_eq!(
        errors["location"],
        "must be a text, or an object with latitude and longitude"
    );
    assert_eq!(errors["colour"], "unknown field");

    let missing = server.api().post("/devices").json(&json!({})).await.invalid();
    assert_eq!(missing, json!({"serial": "is needed"}));
    let model = server
        .api()
        .post("/devices")
        .json(&json!({"serial": "A", "model": "no-such-model"}))
        .await;
    let errors = model.invalid();
    assert_eq!(
        errors.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["model"],
        "{errors}"
    );
    server.api().get("/devices/A").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_device_that_is_not_there_is_404_everywhere() {
    let server = Harness::start().await;
    let api = server.api();
    for path in [
        "",
        "/settings",
        "/settings/versions",
        "/telemetry",
        "/telemetry/latest",
        "/timeline",
    ] {
        api.get(&format!("/devices/NOBODY{path}"))
            .await
            .problem(404, "not_found");
    }
    api.patch("/devices/NOBODY")
        .json(&json!({"name": "x"}))
        .await
        .problem(404, "not_found");
    api.patch("/devices/NOBODY/settings")
        .json(&json!({}))
        .await
        .problem(404, "not_found");
    api.put("/devices/NOBODY/settings")
        .json(&json!({}))
        .await
        .problem(404, "not_found");
    api.post("/devices/NOBODY/credential")
        .await
        .problem(404, "not_found");
    api.delete("/devices/NOBODY/credential")
        .await
        .problem(404, "not_found");
    api.delete("/devices/NOBODY").await.problem(404, "not_found");
    // What can't be a serial is no device either.
    api.get("/devices/%20").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let server = Harness::start().await;
    let body = json!({"serial": "HOME-1", "name": "Kitchen", "tags": {"site": "oslo", "floor": 2}});
    server.api().post("/devices").json(&body).await.expect(201);
    let api = server.api();
    let patch = json!({"name": "Hall", "tags": {"floor": null, "side": "north"}, "location": "by the door"});
    let patched = api.patch("/devices/HOME-1").json(&patch).await.expect(200);
    assert_eq!(patched["name"], "Hall");
    assert_eq!(
        patched["tags"],
        json!({"site": "oslo", "side": "north"}),
        "a merge patch, within tags too"
    );
    assert_eq!(patched["location"], "by the door");
    let patched = api
        .patch("/devices/HOME-1")
        .json(&json!({"name": null}))
        .await
        .expect(200);
    assert_eq!(patched["name"], "", "null brings the default back");

    let refused = api
        .patch("/devices/HOME-1")
        .json(&json!({"serial": "B", "nmae": "x", "name": 2}))
        .await;
    assert_eq!(
        refused.invalid(),
        json!({"serial": "can't be changed", "nmae": "unknown field", "name": "must be a text"})
    );
    let read = api.get("/devices/HOME-1").await.expect(200);
    assert_eq!(
        read["tags"],
        json!({"site": "oslo", "side": "north"}),
        "a refused patch changes nothing"
    );
}

#[tokio::test]
async fn lists_go_on_by_cursor_and_are_whole() {
    let server = Harness::start().await;
    let all: Vec<String> = (1..=7).map(|number| format!("D-{number}")).collect();
    for serial in all.iter().rev() {
        server.device(serial).await;
    }
    let api = server.api();
    let (mut seen, mut path) = (Vec::new(), "/devices?limit=3".to_owned());
    loop {
        let page = api.get(&path).await.expect(200);
        seen.extend(serials(&page).into_iter().map(str::to_owned));
        match page["next"].as_str() {
            Some(cursor) => path = format!("/devices?limit=3&cursor={cursor}"),
            None => break,
        }
        assert!(seen.len() < 20, "the cursor goes in circles: {seen:?}");
    }
    assert_eq!(seen, all, "by serial, each once");
    let page = api.get("/devices?sort=-serial&limit=2").await.expect(200);
    assert_eq!(serials(&page), ["D-7", "D-6"]);
    let cursor = page["next"].as_str().unwrap();
    let page = api
        .get(&format!("/devices?sort=-serial&limit=2&cursor={cursor}"))
        .await
        .expect(200);
    assert_eq!(serials(&page), ["D-5", "D-4"]);
    let whole = api.get("/devices?limit=7").await.expect(200);
    assert_eq!(whole["next"], Value::Null, "nothing follows the last");

    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("sort=colour", "sort"),
        ("cursor=%7B", "cursor"),
    ] {
        let errors = api.get(&format!("/devices?{query}")).await.invalid();
        assert!(errors[field].is_string(), "{query}: {errors}");
    }
}

#[tokio::test]
async fn lists_are_filtered_by_field_and_text() {
    let server = Harness::start().await;
    let api = server.api();
    for body in [
        json!({"serial": "HOME-1", "name": "Kitchen lamp"}),
        json!({"serial": "HOME-2", "name": "Hall lamp"}),
        json!({"serial": "SHOP-1", "name": "Till"}),
    ] {
        api.post("/devices").json(&body).await.expect(201);
    }
    for (query, expected) in [
        ("serial=HOME-2", vec!["HOME-2"]),
        ("serial=NOBODY", vec![]),
        ("q=lamp", vec!["HOME-1", "HOME-2"]),
        ("q=KITCHEN", vec!["HOME-1"]),
        ("q=shop", vec!["SHOP-1"]),
        ("q=%25", vec![]),
        ("model=home", vec!["HOME-1", "HOME-2", "SHOP-1"]),
        ("model=other", vec![]),
        ("online=true", vec![]),
        ("online=false&q=till", vec!["SHOP-1"]),
    ] {
        let page = api.get(&format!("/devices?{query}")).await.expect(200);
        assert_eq!(serials(&page), expected, "{query}");
    }
    let errors = api.get("/devices?colour=red").await.invalid();
    assert!(
        errors["colour"].is_string(),
        "a filter that isn't one is told, not ignored: {errors}"
    );
}

#[tokio::test]
async fn online_devices_can_be_listed() {
    let server = Harness::start().await;
    let (home, _away) = (server.device("HERE").await, server.device("AWAY").await);
    let _session = home.mqtt_v3().await;
    setpoint_tests::eventually!({
        let page = server.api().get("/devices?online=true").await.expect(200);
        serials(&page) == ["HERE"]
    });
    let page = server.api().get("/devices?online=false").await.expect(200);
    assert_eq!(serials(&page), ["AWAY"]);
}

#[tokio::test]
async fn deleting_ends_the_device_and_all_it_had() {
    let server = Harness::start().await;
    let device = server.device("GONE").await;
    let mut session = device.listening(setpoint_tests::Version::V5).await;
    server.api().delete("/devices/GONE").await.expect(204);
    session.ended().await;
    server.api().get("/devices/GONE").await.problem(404, "not_found");
    server
        .api()
        .delete("/devices/GONE")
        .await
        .problem(404, "not_found");
    assert_eq!(
        device.mqtt(setpoint_tests::Version::V3).refused().await,
        5,
        "its token is dead"
    );

    let mut watcher = server.watcher().await;
    let marker = server.device("MARKER").await;
    assert_eq!(watcher.subscribe(&["devices/#"]).await, [1]);
    loop {
        let message = watcher.next_of_any().await;
        assert!(
            !message.topic.starts_with("devices/GONE/"),
            "{message:?} is still retained"
        );
        if message.topic == marker.topic("settings") {
            break;
        }
    }
}

#[tokio::test]
async fn a_serial_made_again_is_another_device_whose_versions_go_on() {
    let server = Harness::start().await;
    let device = server.device("AGAIN").await;
    let last = device.change(json!({"label": "the first owner's"})).await;
    assert_eq!(
        device
            .mqtt_v3()
            .await
            .publish("devices/AGAIN/telemetry", r#"{"t":1}"#)
            .await,
        0
    );
    server.api().delete("/devices/AGAIN").await.expect(204);

    let again = server.device("AGAIN").await;
    assert_ne!(again.token, device.token);
    assert_eq!(
        device.mqtt(setpoint_tests::Version::V3).refused().await,
        5,
        "the old token stays dead"
    );
    let settings = again.settings().await;
    assert!(
        settings["version"].as_i64().unwrap() > last,
        "{settings} after {last}"
    );
    assert_eq!(
        settings["settings"]["label"], "",
        "nothing of the former device shows"
    );
    assert_eq!(again.telemetry("metric=t").await, Vec::<Value>::new());
    let history = server
        .api()
        .get("/devices/AGAIN/settings/versions")
        .await
        .expect(200);
    assert_eq!(history["items"].as_array().unwrap().len(), 1, "{history}");
    let kinds: Vec<Value> = server.api().get("/devices/AGAIN/timeline").await.expect(200)["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["kind"].clone())
        .collect();
    assert!(!kinds.contains(&json!("connected")), "{kinds:?}");
}

#[tokio::test]
async fn bodies_are_json_whatever_their_content_type() {
    let server = Harness::start().await;
    // What `curl -d` sends.
    let form = "application/x-www-form-urlencoded";
    let api = server.api();
    let made = api
        .post("/devices")
        .header("content-type", form)
        .body(r#"{"serial":"CURL-1"}"#)
        .await;
    made.expect(201);
    let patched = api
        .patch("/devices/CURL-1")
        .header("content-type", form)
        .body(r#"{"name":"x"}"#)
        .await;
    assert_eq!(patched.expect(200)["name"], "x");
    for content_type in [form, "text/plain", "application/merge-patch+json"] {
        let changed = api
            .patch("/devices/CURL-1/settings")
            .header("content-type", content_type);
        let changed = changed.body(r#"{"privacyMode":true}"#).await.expect(200);
        assert_eq!(changed["settings"]["privacyMode"], true, "{content_type}");
    }
    let put = api
        .put("/devices/CURL-1/settings")
        .header("content-type", form)
        .body("{}")
        .await;
    assert_eq!(put.expect(200)["settings"]["privacyMode"], false);
    let sample = api.post("/devices/CURL-1/telemetry").header("content-type", form);
    assert!(sample.body(r#"{"t":1}"#).await.status.is_success());
    let token = api
        .post("/tokens")
        .header("content-type", form)
        .body(r#"{"name":"c","scopes":["mqtt"]}"#)
        .await;
    token.expect(201);
}
