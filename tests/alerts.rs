//! Alert rules as such: making, reading, changing and deleting them, and what is refused.

use serde_json::{Value, json};
use setpoint_tests::{Harness, eventually};

async fn make(server: &Harness, name: &str, condition: &str) -> Value {
    let body = json!({"name": name, "condition": condition});
    server.api().post("/alerts").json(&body).await.expect(201)
}

#[tokio::test]
async fn a_rule_is_made_read_changed_and_deleted() {
    let server = Harness::start().await;
    let api = server.api();
    let body = json!({
        "name": "too-hot", "title": "Too hot", "condition": "temperature>30 clear 28 for 300s",
        "scope": {"model": "home"}, "severity": "critical", "resolve_after": "10m"
    });
    let made = api.post("/alerts").json(&body).await;
    assert_eq!(made.header("location"), "/api/v1/alerts/too-hot");
    let tag = made.header("etag");
    let rule = made.expect(201);
    assert_eq!(tag, format!("\"{}\"", rule["version"]));
    for (field, value) in [
        ("condition", json!("temperature > 30 clear 28 for 5m")),
        ("scope", json!({"model": "home"})),
        ("severity", json!("critical")),
        ("enabled", json!(true)),
        ("resolve_after", json!("10m")),
        ("counts", json!({"pending": 0, "firing": 0, "resolved": 0})),
    ] {
        assert_eq!(rule[field], value, "{field}");
    }
    let patch = json!({"severity": null, "scope": {}, "resolve_after": null});
    let stale = api.patch("/alerts/too-hot").header("if-match", "\"999\"");
    let problem = stale.json(&patch).await.problem(412, "version_mismatch");
    assert_eq!(problem["current_version"], rule["version"]);
    let fresh = api.patch("/alerts/too-hot").header("if-match", &tag);
    let changed = fresh.json(&patch).await.expect(200);
    assert_eq!(
        (&changed["severity"], &changed["scope"], &changed["resolve_after"]),
        (&json!("warning"), &json!({}), &Value::Null)
    );
    assert!(changed["version"].as_i64() > rule["version"].as_i64());
    // The same again is no change.
    let same = api.patch("/alerts/too-hot").json(&patch).await.expect(200);
    assert_eq!(same["version"], changed["version"]);
    eventually!(api.get("/alerts/too-hot").await.expect(200)["settling"] == false);

    let put = api
        .put("/alerts/away")
        .json(&json!({"condition": "offline for 10m"}))
        .await;
    assert_eq!(put.header("location"), "/api/v1/alerts/away");
    put.expect(201);
    make(&server, "quiet", "no telemetry for 15m").await;
    let page = api.get("/alerts?limit=2").await.expect(200);
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&page), ["away", "quiet"]);
    let path = format!("/alerts?limit=2&cursor={}", page["next"].as_str().unwrap());
    let page = api.get(&path).await.expect(200);
    assert_eq!(
        (names(&page), &page["next"]),
        (vec!["too-hot".to_owned()], &Value::Null)
    );
    assert_eq!(names(&api.get("/alerts?q=HOT").await.expect(200)), ["too-hot"]);

    api.delete("/alerts/too-hot")
        .header("if-match", "\"1\"")
        .await
        .problem(412, "version_mismatch");
    api.delete("/alerts/too-hot").await.expect(204);
    api.get("/alerts/too-hot").await.problem(404, "not_found");
    api.delete("/alerts/too-hot").await.problem(404, "not_found");
    // The name is free again.
    make(&server, "too-hot", "temperature > 31").await;
    let log = api.get("/audit?object=alert:too-hot").await.expect(200);
    let entries = log["items"].as_array().unwrap();
    assert_eq!(entries.len(), 4, "{entries:?}");
    assert!(entries.iter().all(|entry| entry["action"] == "alert.write"));
    assert_eq!(
        entries[1]["before"]["condition"],
        "temperature > 30 clear 28 for 5m"
    );
    assert_eq!(entries[1]["after"], Value::Null);
    assert_eq!(entries[2]["after"]["severity"], "warning");
}

#[tokio::test]
async fn what_is_wrong_with_a_rule_is_told_field_by_field() {
    let server = Harness::setup().with("alerts.max_rules", "1").start().await;
    let api = server.api();
    let wrong = json!({
        "name": "too hot", "title": 5, "condition": "temperature > warm", "scope": {"model": "a", "group": "b"},
        "severity": "high", "enabled": 1, "resolve_after": "8d", "colour": "red"
    });
    let errors = api.post("/alerts").json(&wrong).await.invalid();
    assert_eq!(
        errors,
        json!({
            "name": "1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit",
            "title": "must be a text",
            "condition": "expected a number at character 15, found `warm`",
            "scope": "at most one of model, group and serial",
            "severity": "one of info, warning, critical",
            "enabled": "must be true or false",
            "resolve_after": "a time of whole s, m, h or d, up to 7d: `5m`, `1h 30m`",
            "colour": "unknown field",
        })
    );
    let errors = api.post("/alerts").json(&json!({})).await.invalid();
    assert_eq!(errors, json!({"name": "is needed", "condition": "is needed"}));
    for (scope, message) in [
        (json!({"model": "none"}), "there is no such model"),
        (json!({"group": "none"}), "there is no such group"),
        (json!({"serial": "NONE"}), "there is no such device"),
    ] {
        let body = json!({"condition": "offline", "scope": scope});
        let errors = api.put("/alerts/a").json(&body).await.invalid();
        assert_eq!(errors, json!({"scope": message}));
    }
    api.post("/alerts").body("[1]").await.problem(400, "malformed");
    api.post("/alerts")
        .body("{\"name\":")
        .await
        .problem(400, "malformed");
    let large = json!({"name": "a", "condition": "offline", "title": "x".repeat(20_000)});
    api.post("/alerts").json(&large).await.problem(413, "too_large");

    make(&server, "a", "offline for 5m").await;
    let again = json!({"name": "a", "condition": "offline"});
    api.post("/alerts")
        .json(&again)
        .await
        .problem(409, "alert_exists");
    let more = api.put("/alerts/b").json(&json!({"condition": "offline"})).await;
    let problem = more.problem(409, "too_many_alerts");
    assert_eq!(problem["detail"], "there are 1 alerts already: alerts.max_rules");
    let errors = api
        .patch("/alerts/a")
        .json(&json!({"name": "b", "condition": null}))
        .await
        .invalid();
    assert_eq!(
        errors,
        json!({"name": "can't be changed", "condition": "is needed"})
    );
    api.patch("/alerts/b")
        .json(&json!({}))
        .await
        .problem(404, "not_found");
    api.put("/alerts/-")
        .json(&json!({}))
        .await
        .problem(404, "not_found");

    for (path, field, message) in [
        ("/alerts?limit=0", "limit", "1 to 1000"),
        ("/alerts?cursor=-", "cursor", "is not a cursor of this list"),
        (
            "/alerts/a/devices?state=hot",
            "state",
            "one of ok, pending, firing, resolved",
        ),
        (
            "/alerts/a/devices?cursor=-",
            "cursor",
            "is not a cursor of this list",
        ),
    ] {
        assert_eq!(api.get(path).await.invalid()[field], message, "{path}");
    }
    api.get("/alerts/b/devices").await.problem(404, "not_found");
    api.get("/devices/NONE/alerts").await.problem(404, "not_found");
}
