//! Schedules of groups, and schedules that devices are told of.

use serde_json::{Value, json};
use setpoint_model::clock::ManualClock;
use setpoint_tests::{Device, Harness, Version, eventually};

const GROUP: &str = "/groups/oslo/schedules";

fn noon(settings: Value) -> Value {
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    json!({"days": days, "from": "11:00", "to": "13:00", "settings": settings})
}

/// A server at noon UTC, with a group of the devices in Oslo.
async fn server() -> (Harness, ManualClock) {
    let clock = ManualClock::new("2026-01-15T12:00:00Z".parse().unwrap());
    let setup = Harness::setup()
        .at(&clock)
        .with("settings.reconcile_every", "50ms");
    let server = setup.start().await;
    let group = json!({"selector": "site=oslo"});
    server.api().put("/groups/oslo").json(&group).await.expect(201);
    (server, clock)
}

async fn describe(device: &Device, patch: Value) {
    device.api.patch(&device.path("")).json(&patch).await.expect(200);
}

async fn holds(device: &Device, key: &str, value: Value, origin: &str) {
    eventually!(
        {
            let settings = device.settings().await;
            settings["settings"][key] == value && settings["origins"][key] == origin
        },
        "{key} is {value} from {origin}: {}",
        device.settings().await
    );
}

#[tokio::test]
async fn a_groups_schedule_holds_for_its_members_in_their_zones() {
    let (server, clock) = server().await;
    let (inside, outside) = (server.device("HOME-1").await, server.device("HOME-2").await);
    describe(&inside, json!({"tags": {"site": "oslo"}})).await;
    let mut body = noon(json!({"reportInterval": 20}));
    body["name"] = "noon".into();
    let made = server.api().post(GROUP).json(&body).await;
    assert_eq!(
        made.expect(201)["state"],
        Value::Null,
        "members may be in several zones"
    );
    assert_eq!(made.header("location"), format!("/api/v1{GROUP}/noon"));
    holds(&inside, "reportInterval", json!(20), "schedule:noon").await;
    // Who joins has it too, by the clock of their own zone: 13:00 in Oslo.
    describe(
        &outside,
        json!({"tags": {"site": "oslo"}, "time_zone": "Europe/Oslo"}),
    )
    .await;
    describe(&outside, json!({"name": "Hall"})).await;
    holds(&outside, "reportInterval", json!(60), "model").await;
    describe(&outside, json!({"time_zone": "Atlantic/Azores"})).await;
    holds(&outside, "reportInterval", json!(20), "schedule:noon").await;
    // A device's own goes before its group's of equal priority, and yields to a higher one.
    let own = inside.path("/schedules/own");
    server
        .api()
        .put(&own)
        .json(&noon(json!({"reportInterval": 30})))
        .await
        .expect(201);
    holds(&inside, "reportInterval", json!(30), "schedule:own").await;
    let noon = format!("{GROUP}/noon");
    server
        .api()
        .patch(&noon)
        .json(&json!({"priority": 1}))
        .await
        .expect(200);
    holds(&inside, "reportInterval", json!(20), "schedule:noon").await;
    let preview = server
        .api()
        .get(&inside.path("/schedules/preview?days=1"))
        .await
        .expect(200);
    assert_eq!(preview["items"][0]["group"], "oslo");
    assert_eq!(preview["items"][0]["settings"], json!({"reportInterval": 20}));
    // Who leaves loses it; whose window ends, too, and who is made within one has it at once.
    describe(&outside, json!({"tags": {"site": null}})).await;
    holds(&outside, "reportInterval", json!(60), "model").await;
    let made = json!({"serial": "HOME-3", "tags": {"site": "oslo"}});
    let third = server.api().post("/devices").json(&made).await.expect(201);
    assert_eq!(third["settings_version"], 1);
    let settings = server.api().get("/devices/HOME-3/settings").await.expect(200);
    assert_eq!(settings["origins"]["reportInterval"], "schedule:noon");
    clock.advance(chrono::TimeDelta::hours(1));
    holds(&inside, "reportInterval", json!(60), "model").await;
    eventually!(
        server.api().get("/devices/HOME-3/settings").await.expect(200)["origins"]["reportInterval"]
            == "model"
    );
}

#[tokio::test]
async fn a_groups_schedule_is_judged_by_all_models_and_previewed_in_any_zone() {
    let (server, _) = server().await;
    server
        .sql(r#"insert into models (name, settings) values ('valve', '{"open": {"type": "boolean"}}')"#)
        .await;
    let noon_path = format!("{GROUP}/noon");
    let put = |settings: Value| server.api().put(&noon_path).json(&noon(settings));
    let wrong = put(json!({"reportInterval": 5, "open": 1, "colour": "red"}))
        .await
        .invalid();
    assert_eq!(wrong["settings.colour"], "unknown setting");
    assert_eq!(wrong.as_object().unwrap().len(), 3);
    put(json!({"reportInterval": 50, "open": true})).await.expect(201);
    // A member takes what its model knows.
    let device = server.device("HOME-1").await;
    describe(&device, json!({"tags": {"site": "oslo"}})).await;
    holds(&device, "reportInterval", json!(50), "schedule:noon").await;
    assert_eq!(device.settings().await["settings"]["open"], Value::Null);
    for (query, begin) in [
        ("", "2026-01-16T11:00:00Z"),
        ("&time_zone=Asia/Kolkata", "2026-01-16T05:30:00Z"),
    ] {
        let path = format!("{GROUP}/preview?days=1&from=2026-01-16T00:00:00Z{query}");
        let items = server.api().get(&path).await.expect(200)["items"].clone();
        assert_eq!(items[0]["from"], begin, "{items}");
        assert_eq!(items[0]["settings"], json!({"reportInterval": 50, "open": true}));
        assert_eq!(items.as_array().unwrap().len(), 1);
    }
    let wrong = server
        .api()
        .get(&format!("{GROUP}/preview?time_zone=Mars"))
        .await
        .invalid();
    assert_eq!(
        wrong,
        json!({"time_zone": "must be an IANA time zone such as \"Europe/Oslo\""})
    );
}

#[tokio::test]
async fn a_device_whose_model_asks_for_it_is_told_of_its_schedules() {
    let (server, clock) = server().await;
    server
        .sql("update models set schedules_in_document = true where name = 'home'")
        .await;
    let device = server.device("HOME-1").await;
    describe(
        &device,
        json!({"time_zone": "Europe/Oslo", "tags": {"site": "oslo"}}),
    )
    .await;
    let mut session = device.listening(Version::V5).await;
    server
        .api()
        .put(&format!("{GROUP}/noon"))
        .json(&noon(json!({"privacyMode": true})))
        .await
        .expect(201);
    let topic = device.topic("settings");
    let document: Value = serde_json::from_slice(&session.next(&topic).await.payload).unwrap();
    let mut told = noon(json!({"privacyMode": true}));
    told["name"] = "noon".into();
    told["priority"] = 0.into();
    told["time_zone"] = "Europe/Oslo".into();
    assert_eq!(document["settings"]["schedules"], json!([told]));
    assert_eq!(
        document["version"], 2,
        "a change of the schedules is a change of the document"
    );
    // An acknowledgement may leave them out, and nothing waits for them.
    let ack = json!({"version": 2, "settings": {
        "privacyMode": false, "reportInterval": 60, "temperatureUnit": "celsius", "label": ""
    }});
    session
        .publish(&device.topic("settings/ack"), ack.to_string())
        .await;
    eventually!(!device.version(2).await["timeline"]["applied"].is_null());
    assert_eq!(device.settings().await["status"]["schedules"], Value::Null);
    // A period that is over is told of no more.
    let brief = json!({
        "starts_at": "2026-01-15T12:00:00Z", "ends_at": "2026-01-15T13:00:00Z", "settings": {"label": "x"}
    });
    server
        .api()
        .put(&device.path("/schedules/brief"))
        .json(&brief)
        .await
        .expect(201);
    let names = |document: &Value| {
        let items = document["settings"]["schedules"].as_array().unwrap().iter();
        items
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let document: Value = serde_json::from_slice(&session.next(&topic).await.payload).unwrap();
    assert_eq!(
        (names(&document), &document["settings"]["label"]),
        (vec!["noon".into(), "brief".into()], &json!("x"))
    );
    clock.advance(chrono::TimeDelta::hours(1));
    let document: Value = serde_json::from_slice(&session.next(&topic).await.payload).unwrap();
    assert_eq!(
        (names(&document), &document["settings"]["label"]),
        (vec!["noon".to_owned()], &json!(""))
    );
    let patch = server
        .api()
        .patch(&device.path("/settings"))
        .json(&json!({"schedules": []}))
        .await;
    assert_eq!(patch.invalid(), json!({"schedules": "unknown setting"}));
}
