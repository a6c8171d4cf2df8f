//! For which devices a rule is, and what becomes of its alerts when that changes; who may see them.

use serde_json::{Value, json};
use setpoint_tests::{Device, eventually, harness::alerts::Watched};

use crate::sessions::person;

/// A device with a temperature that is too high.
async fn hot(watched: &Watched, serial: &str, tags: Value) -> Device {
    let device = watched.server.device(serial).await;
    let path = device.path("");
    watched
        .api()
        .patch(&path)
        .json(&json!({"tags": tags}))
        .await
        .expect(200);
    watched.send(&device, json!({"temperature": 31})).await;
    device
}

/// Why the device's last alert was resolved.
async fn reason(device: &Device) -> Value {
    let over = device.timeline("alert_resolved").await;
    over.first()
        .map_or(Value::Null, |entry| entry["data"]["reason"].clone())
}

#[tokio::test]
async fn devices_come_into_a_rules_scope_and_leave_it() {
    let watched = Watched::start().await;
    let group = json!({"name": "oslo", "selector": "site=oslo"});
    watched.api().post("/groups").json(&group).await.expect(201);
    let inside = hot(&watched, "IN", json!({"site": "oslo"})).await;
    let outside = hot(&watched, "OUT", json!({"site": "bergen"})).await;
    watched
        .rule(
            "oslo-hot",
            json!({"condition": "temperature > 30", "scope": {"group": "oslo"}}),
        )
        .await;
    eventually!(watched.state("IN", "oslo-hot").await == "firing");
    assert_eq!(watched.state("OUT", "oslo-hot").await, "none");
    let all = watched.api().get("/alerts/oslo-hot/devices").await.expect(200);
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
    // One comes, one goes; neither sends anything.
    for (device, site) in [(&outside, "oslo"), (&inside, "bergen")] {
        let patch = json!({"tags": {"site": site}});
        watched
            .api()
            .patch(&device.path(""))
            .json(&patch)
            .await
            .expect(200);
    }
    eventually!(watched.state("OUT", "oslo-hot").await == "firing");
    eventually!(reason(&inside).await == "out_of_scope");
    assert_eq!(watched.state("IN", "oslo-hot").await, "none");
    // The group means others.
    let patch = json!({"selector": "site=bergen"});
    watched.api().patch("/groups/oslo").json(&patch).await.expect(200);
    eventually!(watched.state("IN", "oslo-hot").await == "firing");
    eventually!(reason(&outside).await == "out_of_scope");
    // The group is gone, and with it all that the rule is for.
    watched.api().delete("/groups/oslo").await.expect(204);
    eventually!(watched.api().get("/alerts/oslo-hot").await.expect(200)["counts"]["firing"] == 0);
    eventually!(inside.timeline("alert_resolved").await.len() == 2);

    let other = json!({"name": "other", "settings": {}, "telemetry": {"temperature": {}}});
    watched.api().post("/models").json(&other).await.expect(201);
    watched
        .rule(
            "others-hot",
            json!({"condition": "temperature > 30", "scope": {"model": "other"}}),
        )
        .await;
    let patch = json!({"model": "other"});
    watched.api().patch("/devices/IN").json(&patch).await.expect(200);
    eventually!(watched.state("IN", "others-hot").await == "firing");
    let patch = json!({"model": "home"});
    watched.api().patch("/devices/IN").json(&patch).await.expect(200);
    eventually!(inside.timeline("alert_resolved").await.len() == 3);
}

#[tokio::test]
async fn a_rule_that_is_changed_suspended_or_deleted_ends_its_alerts() {
    let watched = Watched::start().await;
    let device = hot(&watched, "HOME-1", json!({})).await;
    watched
        .rule("hot", json!({"condition": "temperature > 30"}))
        .await;
    eventually!(watched.state("HOME-1", "hot").await == "firing");
    let patch = |patch: Value| watched.api().patch("/alerts/hot").json(&patch);
    // What it is called and how much it matters is no reason.
    patch(json!({"title": "Hot", "severity": "critical"}))
        .await
        .expect(200);
    eventually!(watched.api().get("/alerts/hot").await.expect(200)["settling"] == false);
    assert_eq!(device.timeline("alert_resolved").await.len(), 0);
    patch(json!({"condition": "temperature > 29"})).await.expect(200);
    eventually!(device.timeline("alert_firing").await.len() == 2);
    assert_eq!(reason(&device).await, "rule_changed");
    patch(json!({"condition": "temperature > 40"})).await.expect(200);
    eventually!(device.timeline("alert_resolved").await.len() == 2);
    assert_eq!(watched.state("HOME-1", "hot").await, "ok");
    patch(json!({"condition": "temperature > 30"})).await.expect(200);
    eventually!(watched.state("HOME-1", "hot").await == "firing");
    patch(json!({"enabled": false})).await.expect(200);
    eventually!(reason(&device).await == "rule_disabled");
    assert_eq!(watched.state("HOME-1", "hot").await, "none");
    watched.pass(60);
    patch(json!({"enabled": true})).await.expect(200);
    eventually!(watched.state("HOME-1", "hot").await == "firing");
    assert_eq!(
        device.timeline("alert_firing").await[0]["at"],
        "2026-01-15T14:01:00Z"
    );
    watched.api().delete("/alerts/hot").await.expect(204);
    eventually!(reason(&device).await == "rule_deleted");
    // One of the same name begins anew.
    watched
        .rule("hot", json!({"condition": "temperature > 50"}))
        .await;
    eventually!(watched.api().get("/alerts/hot").await.expect(200)["settling"] == false);
    assert_eq!(watched.state("HOME-1", "hot").await, "ok");
}

#[tokio::test]
async fn an_alert_ends_with_its_device_and_a_new_one_knows_nothing_of_it() {
    let watched = Watched::start().await;
    let device = hot(&watched, "HOME-1", json!({})).await;
    watched
        .rule("hot", json!({"condition": "temperature > 30"}))
        .await;
    eventually!(watched.state("HOME-1", "hot").await == "firing");
    let mut events = watched.api().get("/events?type=alert").events().await;
    events.next_or_end().await.unwrap();
    watched.api().delete("/devices/HOME-1").await.expect(204);
    let told = events.next().await.data;
    assert_eq!(
        (&told["serial"], &told["state"], &told["reason"]),
        (&json!("HOME-1"), &json!("resolved"), &json!("device_gone"))
    );
    let again = watched.server.device("HOME-1").await;
    assert_eq!(again.path(""), device.path(""));
    assert_eq!(watched.state("HOME-1", "hot").await, "ok");
    assert_eq!(again.timeline("alert_firing").await.len(), 0);
    let rule = watched.api().get("/alerts/hot").await.expect(200);
    assert_eq!(rule["counts"]["firing"], 0);
}

#[tokio::test]
async fn an_owner_sees_and_hears_the_alerts_of_what_is_theirs() {
    let watched = Watched::start().await;
    let mine = hot(&watched, "MINE", json!({})).await;
    hot(&watched, "OTHER", json!({})).await;
    let anna = person(&watched.server, "anna", "owner").await;
    watched.api().put("/devices/MINE/owners/anna").await.expect(204);
    let body = json!({"name": "phone", "scopes": ["devices:read", "alerts:read"]});
    let made = anna.post("/tokens").json(&body).await.expect(201);
    let phone = watched.api().with_token(made["token"].as_str().unwrap());
    let mut events = phone.get("/events?type=alert").events().await;
    events.next_or_end().await.unwrap();
    watched
        .rule("hot", json!({"condition": "temperature > 30"}))
        .await;
    assert_eq!(events.next().await.data["serial"], "MINE");
    eventually!(watched.state("OTHER", "hot").await == "firing");
    let list = phone.get("/devices/MINE/alerts?state=firing").await.expect(200);
    assert_eq!(list["items"][0]["alert"], "hot");
    assert_eq!(
        list["items"][0]["message"],
        "temperature is 31, above 30 since 14:00"
    );
    phone.get("/devices/OTHER/alerts").await.problem(404, "not_found");
    phone.get("/alerts").await.problem(403, "forbidden");
    phone.get("/alerts/hot/devices").await.problem(403, "forbidden");
    phone.get("/devices/MINE/alerts?state=hot").await.invalid();
    // Without the scope none are heard.
    let deaf = watched.api().scoped(&["devices:read"]).await;
    deaf.get("/events?type=alert").await.problem(403, "forbidden");
    // Once it is not theirs any more there is nothing to see.
    watched.api().delete("/devices/MINE/registration").await;
    watched.api().delete("/devices/MINE/owners/anna").await;
    phone.get("/devices/MINE/alerts").await.problem(404, "not_found");
    drop(mine);
}
