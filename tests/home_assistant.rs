//! Home Assistant finds devices by itself, shows what they measure, and changes their settings.

mod jinja;

use serde_json::{Value, json};
use setpoint_tests::{
    Harness, Mqtt, Version, eventually, harness::mqtt::VERSIONS, harness::operator_login, mosquitto,
};

use crate::{sessions::person, two_servers::both};
use jinja::{command, render};

const DOCUMENT: &str = "homeassistant/device/HOME-1/config";

/// Has Home Assistant told of the devices of the model `home`.
async fn switch_on(server: &Harness) {
    let patch = json!({
        "home_assistant": true,
        "telemetry": {"door": {"type": "boolean", "title": "Door"}, "mode": {"type": "string"}},
    });
    server.api().patch("/models/home").json(&patch).await.expect(200);
}

/// The next document that has what is wanted.
async fn document(session: &mut Mqtt, topic: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let message = session.next(topic).await;
        let document = if message.payload.is_empty() {
            Value::Null
        } else {
            message.json()
        };
        if wanted(&document) {
            return document;
        }
    }
}

#[tokio::test]
async fn a_device_is_found_shown_and_switched() {
    let server = Harness::start().await;
    switch_on(&server).await;
    let device = server.device("HOME-1").await;
    server
        .api()
        .patch("/devices/HOME-1")
        .json(&json!({"name": "Hall"}))
        .await
        .expect(200);
    for version in VERSIONS {
        let mut home = server
            .operator(version, server.api().token(), "home-assistant")
            .connect()
            .await;
        assert_eq!(home.publish("homeassistant/status", "online").await, 0);
        assert_eq!(home.subscribe(&["homeassistant/device/+/config"]).await, [1]);
        let found = document(&mut home, DOCUMENT, |found| found["dev"]["name"] == "Hall").await;
        assert_eq!(found["dev"]["ids"], json!(["setpoint_HOME-1"]));
        assert_eq!(found["o"]["name"], "Setpoint");
        let components = found["cmps"].as_object().unwrap();
        let platforms: Vec<_> = components
            .iter()
            .map(|(key, one)| (key.as_str(), &one["p"]))
            .collect();
        assert_eq!(
            json!(platforms),
            json!([
                ["settings_label", "text"],
                ["settings_privacyMode", "switch"],
                ["settings_reportInterval", "number"],
                ["settings_temperatureUnit", "select"],
                ["telemetry_door", "binary_sensor"],
                ["telemetry_humidity", "sensor"],
                ["telemetry_mode", "sensor"],
                ["telemetry_temperature", "sensor"],
            ])
        );
        assert!(
            components
                .iter()
                .all(|(key, one)| one["unique_id"] == format!("setpoint_HOME-1_{key}"))
        );

        // It listens to whatever the document names.
        let presence = found["availability_topic"].as_str().unwrap();
        let (settings, telemetry) = (device.topic("settings"), device.topic("telemetry"));
        assert_eq!(
            home.subscribe(&[presence, &settings, &telemetry]).await,
            [1, 1, 1]
        );
        let mut session = device.mqtt(version).connect().await;
        eventually!({
            let seen = home.next(presence).await.json();
            render(&found["availability_template"], &seen, "") == "online"
        });
        assert_eq!(session.subscribe(&[&settings]).await, [1]);
        session.next(&settings).await;
        home.next(&settings).await;

        // What it measures: an object, an array, and nothing of some.
        let sensor = |metric: &str, payload: &Value, before: &str| {
            render(
                &components[&format!("telemetry_{metric}")]["value_template"],
                payload,
                before,
            )
        };
        for (sent, temperature, door, mode) in [
            (
                json!({"temperature": 21.5, "door": true, "mode": "eco"}),
                "21.5",
                "ON",
                "eco",
            ),
            (
                json!([{"temperature": 20}, {"door": true}, {"temperature": 22}, {"door": false}]),
                "22",
                "OFF",
                "kept",
            ),
            (json!({"humidity": 40}), "", "", "kept"),
            (json!([]), "", "", "kept"),
        ] {
            session.send(&telemetry, 1, sent.to_string()).await;
            let heard = home.next(&telemetry).await.json();
            assert_eq!(heard, sent);
            assert_eq!(sensor("temperature", &heard, "21"), temperature, "{sent}");
            assert_eq!(sensor("door", &heard, "on"), door, "{sent}");
            assert_eq!(sensor("mode", &heard, "kept"), mode, "{sent}");
        }

        // What somebody sets: the device has it, and the control shows it.
        let label = "say \"hi\" {{ 1 }}";
        for (key, payload, value, shown) in [
            (
                "privacyMode",
                components["settings_privacyMode"]["payload_on"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
                json!(true),
                "ON",
            ),
            (
                "privacyMode",
                components["settings_privacyMode"]["payload_off"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
                json!(false),
                "OFF",
            ),
            (
                "reportInterval",
                command(&components["settings_reportInterval"], json!(120)),
                json!(120),
                "120",
            ),
            (
                "temperatureUnit",
                command(&components["settings_temperatureUnit"], json!("fahrenheit")),
                json!("fahrenheit"),
                "fahrenheit",
            ),
            (
                "label",
                command(&components["settings_label"], json!(label)),
                json!(label),
                label,
            ),
            (
                "label",
                command(&components["settings_label"], json!("")),
                json!(""),
                "",
            ),
            (
                "temperatureUnit",
                command(&components["settings_temperatureUnit"], json!("celsius")),
                json!("celsius"),
                "celsius",
            ),
            (
                "reportInterval",
                command(&components["settings_reportInterval"], json!(60)),
                json!(60),
                "60",
            ),
        ] {
            let control = &components[&format!("settings_{key}")];
            let topic = control["command_topic"].as_str().unwrap();
            assert_eq!(home.publish(topic, payload.clone()).await, 0, "{payload}");
            assert_eq!(
                session.next(&settings).await.json()["settings"][key],
                value,
                "{payload}"
            );
            let heard = home.next(&settings).await.json();
            assert_eq!(render(&control["value_template"], &heard, ""), shown, "{payload}");
        }
        session.disconnect().await;
        eventually!({
            let seen = home.next(presence).await.json();
            render(&found["availability_template"], &seen, "") == "offline"
        });
        home.disconnect().await;
    }
}

#[tokio::test]
async fn what_it_is_told_follows_the_device_and_its_model() {
    let (mut first, second) = both().await;
    let device = first.device("HOME-1").await;
    first.device("HOME.2").await;
    let mut home = first.watcher().await;
    let mut other = second.watcher().await;
    for session in [&mut home, &mut other] {
        assert_eq!(session.subscribe(&["homeassistant/#"]).await, [1]);
    }
    // Not before the model asks for it.
    switch_on(&first).await;
    for session in [&mut home, &mut other] {
        document(session, DOCUMENT, |found| found["dev"]["name"] == "HOME-1").await;
        document(session, "homeassistant/device/HOME_2E2/config", |found| {
            found["dev"]["sn"] == "HOME.2"
        })
        .await;
    }
    second
        .api()
        .patch("/devices/HOME-1")
        .json(&json!({"name": "Hall"}))
        .await
        .expect(200);
    let patch = json!({"telemetry": {"co2": {"unit": "ppm"}}, "settings": {"label": {"title": "Sign"}}});
    first.api().patch("/models/home").json(&patch).await.expect(200);
    let made = second.device("HOME-3").await;
    for session in [&mut home, &mut other] {
        let found = document(session, DOCUMENT, |found| {
            found["dev"]["name"] == "Hall" && found["cmps"]["settings_label"]["name"] == "Sign"
        });
        let found = found.await;
        assert_eq!(found["cmps"]["telemetry_co2"]["unit_of_measurement"], "ppm");
        document(session, "homeassistant/device/HOME-3/config", |found| {
            found["dev"]["sn"] == "HOME-3"
        })
        .await;
    }
    // One that goes is taken away, by an empty message and for who comes later.
    first.api().delete(&made.path("")).await.expect(204);
    let plain =
        json!({"name": "plain", "settings": first.api().get("/models/home").await.expect(200)["settings"]});
    first.api().post("/models").json(&plain).await.expect(201);
    first
        .api()
        .patch("/devices/HOME.2")
        .json(&json!({"model": "plain"}))
        .await
        .expect(200);
    for session in [&mut home, &mut other] {
        document(session, "homeassistant/device/HOME-3/config", Value::is_null).await;
        document(session, "homeassistant/device/HOME_2E2/config", Value::is_null).await;
    }
    let mut late = second
        .operator(Version::V3, second.api().token(), "late")
        .connect()
        .await;
    assert_eq!(late.subscribe(&["homeassistant/#"]).await, [1]);
    assert_eq!(late.next_of_any().await.topic, DOCUMENT, "the others are gone");
    // After a start everything is there again.
    first.restart().await;
    let mut home = first.watcher().await;
    assert_eq!(home.subscribe(&["homeassistant/#"]).await, [1]);
    document(&mut home, DOCUMENT, |found| found["dev"]["name"] == "Hall").await;
    first
        .api()
        .patch("/models/home")
        .json(&json!({"home_assistant": false}))
        .await
        .expect(200);
    for session in [&mut home, &mut other, &mut late] {
        document(session, DOCUMENT, Value::is_null).await;
    }
    drop(device);
}

#[tokio::test]
async fn nobody_but_the_server_speaks_there_and_everybody_hears_their_own() {
    let server = Harness::start().await;
    switch_on(&server).await;
    let (device, other) = (server.device("HOME-1").await, server.device("HOME-2").await);
    let mut session = device.mqtt_v5().await;
    assert_eq!(session.subscribe(&["homeassistant/#"]).await, [0x87]);
    assert_eq!(session.publish("homeassistant/status", "online").await, 0x87);
    let mut watcher = server.watcher().await;
    assert_eq!(watcher.publish(DOCUMENT, "{}").await, 0x87);
    assert_eq!(watcher.publish("homeassistant/sensor/x/config", "{}").await, 0x87);
    // Home Assistant says that it comes with a message, and that it goes with its will: neither is refused.
    let login = operator_login(server.api().token(), "home");
    for version in VERSIONS {
        let will = [
            "--will-topic",
            "homeassistant/status",
            "--will-payload",
            "offline",
            "-C",
            "1",
        ];
        let mut sub = mosquitto::sub(server.mqtt_port(), version, &login, DOCUMENT, &will);
        assert_eq!(sub.next_on(DOCUMENT).await["dev"]["sn"], "HOME-1");
        assert_eq!(sub.ended().await.0, Some(0));
    }
    let mut older = server
        .operator(Version::V3, server.api().token(), "older")
        .connect()
        .await;
    for _ in 0..5 {
        assert_eq!(older.publish("homeassistant/status", "online").await, 0);
        older.send("homeassistant/status", 0, "online").await;
    }
    assert_eq!(
        older.subscribe(&["homeassistant/#"]).await,
        [1],
        "the session goes on"
    );

    // An owner's Home Assistant finds what is theirs.
    let anna = person(&server, "anna", "owner").await;
    server.api().put("/devices/HOME-2/owners/anna").await.expect(204);
    let body = json!({"name": "home", "scopes": ["mqtt"]});
    let token = anna.post("/tokens").json(&body).await.expect(201);
    let token = token["token"].as_str().unwrap();
    let mut theirs = server.operator(Version::V5, token, "theirs").connect().await;
    assert_eq!(theirs.subscribe(&["homeassistant/#"]).await, [1]);
    assert_eq!(theirs.next_of_any().await.json()["dev"]["sn"], "HOME-2");
    for name in ["One", "Two"] {
        for device in [&device, &other] {
            server
                .api()
                .patch(&device.path(""))
                .json(&json!({"name": name}))
                .await
                .expect(200);
        }
    }
    loop {
        let found = theirs.next_of_any().await.json();
        assert_eq!(found["dev"]["sn"], "HOME-2");
        if found["dev"]["name"] == "Two" {
            break;
        }
    }
}

#[tokio::test]
async fn the_prefix_is_configured_and_many_devices_are_listened_to() {
    let server = Harness::setup()
        .with("home_assistant.prefix", "ha/found")
        .start()
        .await;
    switch_on(&server).await;
    server.device("HOME-1").await;
    let mut home = server.watcher().await;
    assert_eq!(
        home.subscribe(&["homeassistant/#", "ha/found/#"]).await,
        [0x87, 1]
    );
    document(&mut home, "ha/found/device/HOME-1/config", |found| {
        found["dev"]["sn"] == "HOME-1"
    })
    .await;
    // More than a device may have.
    for number in 0..60 {
        let device = |channel: &str| format!("devices/D-{number}/{channel}");
        let filters = [device("presence"), device("settings"), device("telemetry")];
        assert_eq!(
            home.subscribe(&filters.each_ref().map(String::as_str)).await,
            [1, 1, 1]
        );
    }
}
