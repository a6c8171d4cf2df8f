//! Bulk changes: what they ask for, what they would do, and how they reach every device.

use device_sim::{Device as Simulated, DeviceOptions, Endpoint, Token};
use serde_json::{Value, json};
use setpoint_tests::{Answer, Api, Device, Harness, WAIT, eventually};
use tokio_util::task::TaskTracker;

/// A device that runs: connected, and with its present settings.
pub(crate) async fn running(device: &Device, refuse: &[&str]) -> Simulated {
    let token = Some(Token::new(device.token.clone()));
    let endpoint = Endpoint::loopback(device.mqtt_port);
    let options = DeviceOptions {
        refuse: refuse.iter().map(|key| (*key).to_owned()).collect(),
        telemetry: None,
        ..DeviceOptions::new(device.serial.parse().unwrap(), token, endpoint)
    };
    let simulated = Simulated::start(options, &TaskTracker::new());
    simulated.ready(WAIT).await.unwrap();
    simulated
}

/// Devices `D-1`, `D-2` and so on, in the order in which a selector means them.
pub(crate) async fn devices(server: &Harness, count: usize) -> Vec<Device> {
    let mut devices = Vec::new();
    for number in 1..=count {
        let device = server.device(&format!("D-{number}")).await;
        let tags = json!({"tags": {"site": "oslo", "number": number}});
        server.api().patch(&device.path("")).json(&tags).await.expect(200);
        devices.push(device);
    }
    devices
}

/// Devices of a model that has no setting in common with the others.
async fn strangers(server: &Harness, serials: &[&str]) {
    server
        .sql("insert into models (name, settings) values ('plug', '{\"power\": {\"type\": \"boolean\"}}')")
        .await;
    for serial in serials {
        let device = json!({"serial": serial, "model": "plug", "tags": {"site": "oslo"}});
        server.api().post("/devices").json(&device).await.expect(201);
    }
}

pub(crate) async fn begin(api: &Api, body: &Value) -> String {
    let begun = api.post("/changes").json(body).await.expect(202);
    begun["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn change(api: &Api, id: &str) -> Value {
    api.get(&format!("/changes/{id}")).await.expect(200)
}

/// Waits until a change is there.
pub(crate) async fn reached(api: &Api, id: &str, state: &str) -> Value {
    eventually!({
        let now = change(api, id).await;
        (now["state"] == state).then_some(now)
    })
}

pub(crate) async fn told(api: &Api, id: &str, command: &str) -> Answer {
    api.post(&format!("/changes/{id}/{command}")).await
}

/// Of these counts each as given, and nothing anywhere else.
#[track_caller]
pub(crate) fn assert_counts(change: &Value, expected: &Value) {
    for (name, count) in change["counts"].as_object().unwrap() {
        let expected = expected.get(name).unwrap_or(&json!(0)).clone();
        assert_eq!(*count, expected, "{name}: {change}");
    }
}

#[tokio::test]
async fn a_dry_run_tells_what_would_happen_and_changes_nothing() {
    let server = Harness::start().await;
    let devices = devices(&server, 4).await;
    strangers(&server, &["P-1"]).await;
    devices[0].change(json!({"reportInterval": 120})).await;
    devices[1].change(json!({"reportInterval": 30})).await;
    let body = json!({"selector": "site=oslo", "settings": {"reportInterval": 120}, "dry_run": true});
    let would = server.api().post("/changes").json(&body).await.expect(200);
    let expected = json!({
        "dry_run": true,
        "counts": {"selected": 5, "invalid": 1, "unchanged": 1, "changing": 3},
        "effects": {"reportInterval": {
            "devices": 3, "from": [{"value": 30, "devices": 1}, {"value": 60, "devices": 2}], "others": 0,
        }},
        "invalid": [{"serial": "P-1", "message": "reportInterval: unknown setting"}],
    });
    assert_eq!(would, expected);
    assert_eq!(devices[2].settings().await["version"], 1);
    let list = server.api().get("/changes").await.expect(200);
    assert_eq!(list, json!({"items": [], "next": null}));
}

#[tokio::test]
async fn a_change_reaches_every_device_and_tells_what_became_of_it() {
    let server = Harness::start().await;
    let devices = devices(&server, 5).await;
    strangers(&server, &["P-1", "P-2"]).await;
    devices[4].change(json!({"reportInterval": 120})).await;
    let mut simulated = Vec::new();
    for (place, device) in devices.iter().enumerate() {
        let refuse: &[&str] = if place == 3 { &["reportInterval"] } else { &[] };
        simulated.push(running(device, refuse).await);
    }
    let api = server.api();
    let body = json!({"selector": "site=oslo", "settings": {"reportInterval": 120, "label": null},
        "abort": {"refused_percent": 50}});
    let begun = api.post("/changes").json(&body).await.expect(202);
    assert_eq!(begun["counts"]["selected"], 7, "{begun}");
    assert_eq!(begun["selection"], json!({"selector": "site=oslo"}));
    assert_eq!(begun["settings"], body["settings"]);
    assert_eq!(
        begun["abort"],
        json!({"refused_percent": 50.0, "pending_percent": 100.0, "after": "1m"})
    );
    let id = begun["id"].as_str().unwrap();
    let done = reached(api, id, "completed").await;
    let counts = json!({"selected": 7, "invalid": 2, "unchanged": 1, "synced": 3, "refused": 1});
    assert_counts(&done, &counts);
    assert!(
        done["finished_at"].is_string() && done["reason"].is_null(),
        "{done}"
    );

    let settings = devices[0].settings().await;
    assert_eq!(
        (&settings["version"], &settings["settings"]["reportInterval"]),
        (&json!(2), &json!(120))
    );
    assert_eq!(settings["overrides"], json!({"reportInterval": 120}));
    let version = devices[0].version(2).await;
    assert_eq!(
        (&version["source"], &version["actor"]),
        (&json!("bulk"), &begun["actor"])
    );
    assert_eq!(devices[4].settings().await["version"], 2, "it ran that already");

    let path = format!("/changes/{id}/devices");
    let mut items = Vec::new();
    let mut page = api.get(&format!("{path}?limit=3")).await.expect(200);
    loop {
        items.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        page = api
            .get(&format!("{path}?limit=3&cursor={next}"))
            .await
            .expect(200);
    }
    let told: Vec<(&str, &str)> = items
        .iter()
        .map(|item| (item["serial"].as_str().unwrap(), item["state"].as_str().unwrap()))
        .collect();
    let expected = [
        ("D-1", "synced"),
        ("D-2", "synced"),
        ("D-3", "synced"),
        ("D-4", "refused"),
        ("D-5", "unchanged"),
        ("P-1", "invalid"),
        ("P-2", "invalid"),
    ];
    assert_eq!(told, expected);
    assert_eq!(items[3]["message"], "reportInterval: refused by the simulator");
    assert_eq!(items[3]["version"], 2);
    assert_eq!(
        items[5]["message"],
        "label: unknown setting; reportInterval: unknown setting"
    );
    let invalid = api.get(&format!("{path}?state=invalid")).await.expect(200);
    assert_eq!(invalid["items"], json!(items[5..]));

    let list = api.get("/changes").await.expect(200);
    assert_eq!(list["items"], json!([done]));
    let log = api.get(&format!("/audit?object=change:{id}")).await.expect(200);
    let actions: Vec<&Value> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["action"])
        .collect();
    assert_eq!(actions, ["change.complete", "change.begin"]);
    assert_eq!(log["items"][1]["after"]["settings"], body["settings"]);
    assert_eq!(log["items"][0]["actor"], "system:changes");
    for device in simulated {
        device.stop().await;
    }
}

#[tokio::test]
async fn a_groups_devices_get_it_on_top_of_what_the_group_gives() {
    let server = Harness::start().await;
    let devices = devices(&server, 3).await;
    server
        .sql(
            "insert into groups (name, selector, priority, settings, actor, created_at, updated_at)
             values ('low', 'number in (1,3)', 1, '{\"label\": \"low\", \"reportInterval\": 300}', 'test', now(), now())",
        )
        .await;
    for device in [&devices[0], &devices[2]] {
        eventually!(device.settings().await["settings"]["label"] == "low");
    }
    let body = json!({"group": "low", "settings": {"reportInterval": 120}});
    let begun = server.api().post("/changes").json(&body).await.expect(202);
    assert_eq!(begun["selection"], json!({"group": "low"}));
    assert_eq!(begun["counts"]["selected"], 2);
    let id = begun["id"].as_str().unwrap();
    eventually!(change(server.api(), id).await["counts"]["pending"] == 2);
    let settings = devices[2].settings().await;
    assert_eq!(settings["settings"]["reportInterval"], 120);
    assert_eq!(settings["settings"]["label"], "low");
    assert_eq!(settings["origins"]["label"], "group:low");
    assert_eq!(devices[1].settings().await["version"], 1);
    // Dropping the override again would bring the group's value back.
    let body = json!({"group": "low", "settings": {"reportInterval": null}, "dry_run": true});
    let would = server.api().post("/changes").json(&body).await.expect(200);
    assert_eq!(
        would["effects"]["reportInterval"]["from"],
        json!([{"value": 120, "devices": 2}])
    );
}

#[tokio::test]
async fn listed_devices_get_it_in_their_order_and_once() {
    let server = Harness::start().await;
    let devices = devices(&server, 3).await;
    let body = json!({"serials": ["D-3", "D-1", "D-3"], "settings": {"label": "hall"}, "canary": 1});
    let id = begin(server.api(), &body).await;
    eventually!(devices[2].settings().await["version"] == 2);
    let list = server
        .api()
        .get(&format!("/changes/{id}/devices"))
        .await
        .expect(200);
    let told: Vec<String> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["serial"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, ["D-3", "D-1"]);
    let now = change(server.api(), &id).await;
    assert_eq!(now["state"], "canary");
    assert_counts(&now, &json!({"selected": 2, "waiting": 1, "pending": 1}));
    assert_eq!(now["selection"], json!({"serials": 3}));
}

#[tokio::test]
async fn overrides_that_change_nothing_are_written_all_the_same() {
    let server = Harness::start().await;
    let devices = devices(&server, 1).await;
    let id = begin(
        server.api(),
        &json!({"selector": "site", "settings": {"label": ""}}),
    )
    .await;
    let done = reached(server.api(), &id, "completed").await;
    assert_counts(&done, &json!({"selected": 1, "unchanged": 1}));
    let settings = devices[0].settings().await;
    assert_eq!(
        (
            &settings["version"],
            &settings["overrides"],
            &settings["origins"]["label"]
        ),
        (&json!(1), &json!({"label": ""}), &json!("device"))
    );
    told(server.api(), &id, "undo").await.expect(202);
    reached(server.api(), &id, "undone").await;
    let settings = devices[0].settings().await;
    assert_eq!(
        (&settings["version"], &settings["overrides"]),
        (&json!(1), &json!({}))
    );
}
