//! Bulk changes that are not begun, each with its exact answer.

use serde_json::json;
use setpoint_tests::Harness;

use crate::changes::{begin, devices, told};

#[tokio::test]
async fn every_bad_request_has_its_answer() {
    let server = Harness::setup()
        .with("bulk_changes.max_devices", "3")
        .start()
        .await;
    devices(&server, 4).await;
    let api = server.api();
    let settings = json!({"label": "hall"});
    for (body, field, message) in [
        (
            json!({"settings": settings}),
            "selector",
            "exactly one of selector, group and serials is needed",
        ),
        (
            json!({"selector": "site", "serials": ["D-1"], "settings": settings}),
            "selector",
            "exactly one of",
        ),
        (json!({"selector": "site"}), "settings", "is needed"),
        (
            json!({"selector": "number=1", "settings": {}}),
            "settings",
            "names no setting",
        ),
        (
            json!({"selector": "site =", "settings": settings}),
            "selector",
            "",
        ),
        (
            json!({"selector": "site=bergen", "settings": settings}),
            "selector",
            "selects no device",
        ),
        (
            json!({"serials": [], "settings": settings}),
            "serials",
            "selects no device",
        ),
        (
            json!({"selector": "site", "settings": settings}),
            "selector",
            "selects more than 3 devices",
        ),
        (
            json!({"serials": ["D-1", "D-9", "D-8"], "settings": settings}),
            "serials",
            "no such device: D-9, D-8",
        ),
        (
            json!({"serials": ["a/b"], "settings": settings}),
            "serials",
            "\"a/b\": ",
        ),
        (
            json!({"group": "nobody", "settings": settings}),
            "group",
            "there is no such group",
        ),
        (
            json!({"serials": ["D-1"], "settings": {"nosuch": 1}}),
            "nosuch",
            "unknown setting",
        ),
        (
            json!({"serials": ["D-1"], "settings": settings, "canary": "0%"}),
            "canary",
            "a count from 1",
        ),
        (
            json!({"serials": ["D-1"], "settings": settings, "canary": [1]}),
            "canary",
            "a count from 1",
        ),
        (
            json!({"serials": ["D-1"], "settings": settings, "rate_per_minute": 0}),
            "rate_per_minute",
            "1 to 1000000",
        ),
        (
            json!({"serials": ["D-1"], "settings": settings, "abort": {"refused_percent": 101}}),
            "abort.refused_percent",
            "0 to 100",
        ),
        (
            json!({"serials": ["D-1"], "settings": settings, "abort": {"after": "soon"}}),
            "abort.after",
            "a duration",
        ),
        (
            json!({"serials": ["D-1"], "settings": settings, "wave": 3}),
            "wave",
            "is not known here",
        ),
    ] {
        for dry_run in [false, true] {
            let mut body = body.clone();
            body["dry_run"] = dry_run.into();
            // A dry run tells of invalid devices, and that is no error.
            if dry_run && field == "nosuch" {
                continue;
            }
            let problem = api
                .post("/changes")
                .json(&body)
                .await
                .problem(422, "validation_failed");
            let found = problem["errors"][field].as_str().unwrap_or_default();
            assert!(
                found.starts_with(message) && !found.is_empty(),
                "{body}: {problem}"
            );
        }
    }
    let twice = r#"{"serials":["D-1"],"settings":{"label":"a","label":"b"}}"#;
    api.post("/changes").body(twice).await.problem(400, "malformed");
    let long = json!({"serials": ["D-1"], "settings": {"label": "x".repeat(40_000)}});
    api.post("/changes").json(&long).await.problem(413, "too_large");
    let nothing = "/changes/00000000-0000-0000-0000-000000000001";
    api.get(nothing).await.problem(404, "not_found");
    api.get(&format!("{nothing}/devices"))
        .await
        .problem(404, "not_found");
    told(api, "00000000-0000-0000-0000-000000000001", "pause")
        .await
        .problem(404, "not_found");
    let list = api.get("/changes").await.expect(200);
    assert_eq!(list["items"], json!([]), "nothing was begun");
}

#[tokio::test]
async fn open_changes_are_limited() {
    let server = Harness::setup().with("bulk_changes.max_open", "1").start().await;
    devices(&server, 2).await;
    let body = json!({"selector": "site", "settings": {"label": "hall"}, "canary": 1});
    let id = begin(server.api(), &body).await;
    let refused = server.api().post("/changes").json(&body).await;
    refused.problem(409, "too_many_changes");
    told(server.api(), &id, "pause").await.expect(200);
    let refused = server.api().post("/changes").json(&body).await;
    refused.problem(409, "too_many_changes");
    told(server.api(), &id, "cancel").await.expect(200);
    begin(server.api(), &body).await;
}
