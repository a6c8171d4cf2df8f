//! Groups: who belongs to them, what members inherit, and how a change reaches them.

use serde_json::{Value, json};
use setpoint_tests::{
    eventually,
    harness::{Device, Harness, mqtt::Version},
};

async fn make(server: &Harness, name: &str, selector: &str, priority: i64, settings: Value) -> Value {
    let body = json!({"name": name, "selector": selector, "priority": priority, "settings": settings});
    let made = server.api().post("/groups").json(&body).await;
    assert_eq!(made.header("location"), format!("/api/v1/groups/{name}"));
    made.expect(201)
}

/// Waits until a group's last change has reached its members; the group.
async fn settled(server: &Harness, name: &str) -> Value {
    let path = format!("/groups/{name}");
    eventually!(server.api().get(&path).await.expect(200)["settling"] == false);
    server.api().get(&path).await.expect(200)
}

async fn tagged(server: &Harness, serial: &str, tags: Value) -> Device {
    let device = server.device(serial).await;
    let patch = json!({"tags": tags});
    server
        .api()
        .patch(&device.path(""))
        .json(&patch)
        .await
        .expect(200);
    device
}

/// The effective value of a key, and its origin.
async fn value(device: &Device, key: &str) -> (Value, Value) {
    let settings = device.settings().await;
    (
        settings["settings"][key].clone(),
        settings["origins"][key].clone(),
    )
}

#[tokio::test]
async fn members_inherit_and_their_own_settings_go_before() {
    let server = Harness::start().await;
    let inside = tagged(&server, "IN-1", json!({"site": "oslo", "floor": 1})).await;
    let outside = tagged(&server, "OUT-1", json!({"site": "oslo", "floor": 3})).await;
    let mut listening = inside.listening(Version::V5).await;
    let selector = "site=oslo and floor in (1,2)";
    let made = make(&server, "oslo", selector, 10, json!({"reportInterval": 300})).await;
    assert_eq!(
        (&made["selector"], &made["version"]),
        (&json!(selector), &json!(1))
    );

    let heard = listening.next(&inside.topic("settings")).await.json();
    assert_eq!(heard["settings"]["reportInterval"], 300);
    assert_eq!(heard["version"], 2);
    assert_eq!(
        value(&inside, "reportInterval").await,
        (json!(300), json!("group:oslo"))
    );
    let version = inside.version(2).await;
    assert_eq!(
        (&version["source"], &version["actor"]),
        (&json!("group"), &json!("token:admin-token"))
    );
    let group = settled(&server, "oslo").await;
    assert_eq!(group["members"], 1);
    assert_eq!(outside.settings().await["version"], 1);
    // Presence is written after the device is in, and the lists tell of it.
    eventually!(inside.get().await["online"] == true);
    let members = server.api().get("/groups/oslo/devices").await.expect(200);
    assert_eq!(members["items"][0]["serial"], "IN-1");
    assert_eq!(members["items"].as_array().unwrap().len(), 1);
    let listed = server.api().get("/devices?group=oslo").await.expect(200);
    assert_eq!(listed["items"], members["items"]);

    // The device's own value goes before, and null brings the inherited one back.
    assert_eq!(inside.change(json!({"reportInterval": 20})).await, 3);
    assert_eq!(
        value(&inside, "reportInterval").await,
        (json!(20), json!("device"))
    );
    assert_eq!(inside.change(json!({"reportInterval": null})).await, 4);
    assert_eq!(
        value(&inside, "reportInterval").await,
        (json!(300), json!("group:oslo"))
    );
    // Set to what it inherits: another origin, the same document, no version.
    assert_eq!(inside.change(json!({"reportInterval": 300})).await, 4);
    assert_eq!(
        value(&inside, "reportInterval").await,
        (json!(300), json!("device"))
    );

    // The group changes under an override: no version. Then the override goes.
    let patch = json!({"settings": {"reportInterval": 400}});
    let answer = server.api().patch("/groups/oslo").json(&patch).await;
    assert_eq!(answer.header("etag"), "\"2\"");
    answer.expect(200);
    settled(&server, "oslo").await;
    assert_eq!(inside.settings().await["version"], 4);
    inside.change(json!({"reportInterval": null})).await;
    assert_eq!(
        value(&inside, "reportInterval").await,
        (json!(400), json!("group:oslo"))
    );

    // null drops the key from the group, and deleting the group gives everything back.
    let patch = json!({"settings": {"reportInterval": null, "label": "hall"}});
    let patched = server.api().patch("/groups/oslo").json(&patch).await.expect(200);
    assert_eq!(patched["settings"], json!({"label": "hall"}));
    eventually!(value(&inside, "label").await == (json!("hall"), json!("group:oslo")));
    assert_eq!(
        value(&inside, "reportInterval").await,
        (json!(60), json!("model"))
    );
    server.api().delete("/groups/oslo").await.expect(204);
    eventually!(value(&inside, "label").await == (json!(""), json!("model")));
    server.api().get("/groups/oslo").await.problem(404, "not_found");
    server
        .api()
        .get("/groups/oslo/devices")
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn tags_move_a_device_between_groups_at_once() {
    let server = Harness::start().await;
    make(&server, "oslo", "site=oslo", 0, json!({"label": "o"})).await;
    make(&server, "bergen", "site=bergen", 0, json!({"label": "b"})).await;
    let body = json!({"serial": "D-1", "tags": {"site": "oslo"}});
    server.api().post("/devices").json(&body).await.expect(201);
    let settings = server.api().get("/devices/D-1/settings").await.expect(200);
    assert_eq!(
        settings["settings"]["label"], "o",
        "from its first version on: {settings}"
    );
    assert_eq!(settings["version"], 1);
    for (tags, label, origin, version) in [
        (json!({"site": "bergen"}), "b", "group:bergen", 2),
        (json!({"site": "bergen", "floor": 2}), "b", "group:bergen", 2),
        (json!({"site": null}), "", "model", 3),
        (json!({"site": "oslo"}), "o", "group:oslo", 4),
    ] {
        let patch = json!({"tags": tags});
        let device = server.api().patch("/devices/D-1").json(&patch).await.expect(200);
        assert_eq!(device["settings_version"], version, "{tags}");
        let settings = server.api().get("/devices/D-1/settings").await.expect(200);
        assert_eq!(settings["settings"]["label"], label, "{tags}");
        assert_eq!(settings["origins"]["label"], origin, "{tags}");
    }
    assert_eq!(settled(&server, "oslo").await["members"], 1);
    assert_eq!(settled(&server, "bergen").await["members"], 0);
}

#[tokio::test]
async fn priority_decides_then_the_later_name() {
    let server = Harness::start().await;
    let device = tagged(&server, "D-1", json!({"a": 1})).await;
    make(&server, "m", "a", 5, json!({"label": "m", "reportInterval": 50})).await;
    make(&server, "z", "a", 1, json!({"label": "z", "privacyMode": true})).await;
    make(&server, "b", "a", 5, json!({"label": "b"})).await;
    for name in ["m", "z", "b"] {
        settled(&server, name).await;
    }
    eventually!(value(&device, "label").await == (json!("m"), json!("group:m")));
    assert_eq!(value(&device, "reportInterval").await.1, "group:m");
    assert_eq!(value(&device, "privacyMode").await.1, "group:z");
    let patch = json!({"priority": 9});
    server.api().patch("/groups/z").json(&patch).await.expect(200);
    eventually!(value(&device, "label").await == (json!("z"), json!("group:z")));
    let patch = json!({"selector": "not a"});
    server.api().patch("/groups/z").json(&patch).await.expect(200);
    eventually!(value(&device, "label").await == (json!("m"), json!("group:m")));
    assert_eq!(
        value(&device, "privacyMode").await,
        (json!(false), json!("model"))
    );
}

#[tokio::test]
async fn what_is_no_group_is_refused_with_its_reason() {
    let server = Harness::setup().with("settings.max_groups", "2").start().await;
    let api = server.api();
    let errors = api
        .post("/groups")
        .json(&json!({"name": "a b", "priority": "x"}))
        .await
        .invalid();
    assert_eq!(
        errors["name"],
        "1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
    );
    assert_eq!(errors["selector"], "is needed");
    assert_eq!(errors["priority"], "must be a whole number of 32 bits");
    let body = json!({"name": "g", "selector": "site =", "settings": {}});
    let errors = api.post("/groups").json(&body).await.invalid();
    assert_eq!(
        errors["selector"],
        "expected a value at character 7, found the end"
    );
    let settings = json!({"reportInterval": 5, "colour": "red", "privacyMode": true});
    let body = json!({"name": "g", "selector": "site", "settings": settings});
    let errors = api.post("/groups").json(&body).await.invalid();
    let expected =
        json!({"settings.colour": "unknown setting", "settings.reportInterval": "must be from 10 to 3600"});
    assert_eq!(errors, expected);
    api.post("/groups")
        .body("{\"name\":1,\"name\":2}")
        .await
        .problem(400, "malformed");
    api.get("/groups/g").await.problem(404, "not_found");

    make(&server, "g", "site", 0, json!({})).await;
    let body = json!({"name": "g", "selector": "site"});
    api.post("/groups").json(&body).await.problem(409, "group_exists");
    let stale = api
        .patch("/groups/g")
        .json(&json!({"priority": 3}))
        .header("if-match", "\"7\"")
        .await;
    assert_eq!(stale.problem(412, "version_mismatch")["current_version"], 1);
    let stale = api.delete("/groups/g").header("if-match", "\"7\"").await;
    stale.problem(412, "version_mismatch");
    let errors = api.patch("/groups/g").json(&json!({"name": "h"})).await.invalid();
    assert_eq!(errors["name"], "can't be changed");
    let same = api.patch("/groups/g").json(&json!({"priority": 0})).await;
    assert_eq!(
        same.expect(200)["version"],
        1,
        "what changes nothing is no version"
    );
    let fresh = api
        .patch("/groups/g")
        .json(&json!({"priority": 3}))
        .header("if-match", "\"1\"")
        .await;
    assert_eq!(fresh.expect(200)["version"], 2);

    let put = api.put("/groups/h").json(&json!({"selector": "*"})).await;
    assert_eq!(put.expect(201)["priority"], 0);
    let put = api
        .put("/groups/h")
        .json(&json!({"selector": "*", "priority": 4}))
        .await;
    assert_eq!(put.expect(200)["version"], 2);
    let put = api.put("/groups/third").json(&json!({"selector": "*"})).await;
    put.problem(409, "too_many_groups");
    let page = api.get("/groups?limit=1").await.expect(200);
    assert_eq!(
        (&page["items"][0]["name"], &page["next"]),
        (&json!("g"), &json!("g"))
    );
    let page = api.get("/groups?limit=1&cursor=g").await.expect(200);
    assert_eq!(
        (&page["items"][0]["name"], &page["next"]),
        (&json!("h"), &json!(null))
    );
    let log = api.get("/audit?object=group:h").await.expect(200);
    let actions: Vec<&Value> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["action"])
        .collect();
    assert_eq!(actions, ["group.write", "group.write"]);
    assert_eq!(log["items"][0]["after"]["priority"], 4);
    assert_eq!(log["items"][0]["before"]["priority"], 0);
}

#[tokio::test]
async fn a_change_reaches_hundreds_while_single_changes_go_on() {
    const DEVICES: usize = 300;
    let server = Harness::start().await;
    for n in 0..DEVICES {
        let body = json!({"serial": format!("D-{n}"), "tags": {"fleet": n % 2 == 0}});
        server.api().post("/devices").json(&body).await.expect(201);
    }
    let single = server.device("SINGLE").await;
    let patch = json!({"tags": {"fleet": true}});
    server
        .api()
        .patch("/devices/SINGLE")
        .json(&patch)
        .await
        .expect(200);
    make(&server, "fleet", "fleet=true", 0, json!({"reportInterval": 100})).await;
    let group = async {
        for interval in 101..104 {
            let patch = json!({"settings": {"reportInterval": interval}});
            server.api().patch("/groups/fleet").json(&patch).await.expect(200);
        }
        settled(&server, "fleet").await
    };
    let singles = async {
        for n in 0..20 {
            single.change(json!({"label": n.to_string()})).await;
        }
    };
    let (group, ()) = tokio::join!(group, singles);
    assert_eq!(group["members"], DEVICES / 2 + 1);
    eventually!(value(&single, "reportInterval").await.0 == 103);
    for n in 0..DEVICES {
        let path = format!("/devices/D-{n}/settings");
        let wanted = if n % 2 == 0 { 103 } else { 60 };
        eventually!(server.api().get(&path).await.expect(200)["settings"]["reportInterval"] == wanted);
    }
    // Every version of the busiest device: one by one, none lost, each with its place in the history.
    let history = server
        .api()
        .get("/devices/SINGLE/settings/versions")
        .await
        .expect(200);
    let items = history["items"].as_array().unwrap();
    let versions: Vec<i64> = items
        .iter()
        .map(|item| item["version"].as_i64().unwrap())
        .collect();
    let newest = versions[0];
    assert_eq!(versions, (1..=newest).rev().collect::<Vec<_>>());
    let labels = items.iter().filter(|item| item["source"] == "rest").count();
    assert_eq!(labels, 20);
    assert!(
        items
            .iter()
            .all(|item| !item["diff"].as_object().unwrap().is_empty())
    );
}

#[tokio::test]
async fn a_change_that_was_committed_before_a_stop_is_carried_on_after_it() {
    let mut server = Harness::start().await;
    let device = tagged(&server, "D-1", json!({"a": 1})).await;
    make(&server, "g", "a", 0, json!({"label": "g"})).await;
    settled(&server, "g").await;
    eventually!(value(&device, "label").await.0 == "g");
    // As it stands right after a commit whose server then died.
    server
        .sql("update groups set settings = '{\"label\": \"later\"}', members_after = 0, version = 2")
        .await;
    server.restart().await;
    let path = "/devices/D-1/settings";
    eventually!(server.api().get(path).await.expect(200)["settings"]["label"] == "later");
    let settings = server.api().get(path).await.expect(200);
    assert_eq!(settings["version"], 3);
}
