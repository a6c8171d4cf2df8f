//! Models as one file: what is exported is imported as exactly the same.

use serde_json::{Value, json};
use setpoint_tests::Harness;

use crate::models::{lamp, make_lamp};

#[tokio::test]
async fn an_export_is_imported_as_the_same_models() {
    let one = Harness::start().await;
    make_lamp(one.api()).await;
    let patch =
        json!({"description": "Küche \"links\"", "settings": {"scene": {"default": {"b": [1, 2.5, null]}}}});
    one.api().patch("/models/lamp").json(&patch).await.expect(200);
    let answer = one.api().get("/models/export").await;
    let file = answer.expect(200);
    assert_eq!(
        answer.header("content-disposition"),
        "attachment; filename=\"models.json\""
    );
    assert_eq!(file["format"], "setpoint.models/1");
    let names: Vec<&Value> = file["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["name"])
        .collect();
    assert_eq!(names, ["home", "lamp"]);

    let other = Harness::start().await;
    let outcome = |answer: Value| -> Vec<Value> {
        let models = answer["models"].as_array().unwrap().iter();
        models
            .map(|model| json!([model["name"], model["outcome"], model["version"]]))
            .collect()
    };
    let import = |path: &'static str| other.api().post(path).body(answer.text.clone());
    let tried = import("/models/import?dry_run=true").await.expect(200);
    assert_eq!(tried["dry_run"], true);
    let expected = [json!(["home", "unchanged", 1]), json!(["lamp", "created", 1])];
    assert_eq!(outcome(tried), expected);
    other.api().get("/models/lamp").await.problem(404, "not_found");
    assert_eq!(outcome(import("/models/import").await.expect(200)), expected);
    assert_eq!(other.api().get("/models/export").await.text, answer.text);
    let again = import("/models/import").await.expect(200);
    assert_eq!(
        outcome(again),
        [json!(["home", "unchanged", 1]), json!(["lamp", "unchanged", 1])]
    );

    let some = one.api().get("/models/export?name=lamp,lamp").await.expect(200);
    assert_eq!(some["models"], json!([file["models"][1]]));
    one.api()
        .get("/models/export?name=lamp,none")
        .await
        .problem(404, "not_found");
    let wrong = one.api().get("/models/export?names=lamp").await.invalid();
    assert!(
        wrong["names"].as_str().unwrap().starts_with("is not known here"),
        "{wrong}"
    );
}

#[tokio::test]
async fn an_import_is_done_as_a_whole_or_not_at_all() {
    let server = Harness::start().await;
    let api = server.api();
    make_lamp(api).await;
    let body = json!({"serial": "LAMP-1", "model": "lamp"});
    api.post("/devices").json(&body).await.expect(201);
    let set = api.patch("/devices/LAMP-1/settings");
    set.json(&json!({"brightness": 90})).await.expect(200);
    let mut narrower = lamp();
    narrower["settings"]["brightness"]["maximum"] = json!(60);
    let file = |models: Value, migrate: Value| json!({"format": "setpoint.models/1", "models": models, "migrate": migrate});

    let new = json!({"name": "fan", "settings": {"speed": {"type": "integer"}}});
    let refused = api
        .post("/models/import")
        .json(&file(json!([new, narrower]), Value::Null))
        .await;
    assert_eq!(
        refused.problem(409, "stored_values_misfit")["misfits"]["devices"],
        json!([{"serial": "LAMP-1", "model": "lamp", "errors": {"brightness": "must be from 0 to 60"}}])
    );
    let broken = json!({"name": "pump", "settings": {"speed": {"type": "speed", "x": 1}}});
    for (body, errors) in [
        (
            file(json!([new, broken]), Value::Null),
            json!({"models.pump.settings.speed": "unknown keyword `x`"}),
        ),
        (
            file(json!([narrower]), json!({"lamp": {"brightness": 61}, "fan": {}})),
            json!({"migrate.fan": "is no model of this file"}),
        ),
        (
            file(json!([narrower]), json!({"lamp": {"brightness": 61}})),
            json!({"migrate.lamp.brightness": "must be from 0 to 60"}),
        ),
        (
            json!({"models": []}),
            json!({"format": "must be \"setpoint.models/1\""}),
        ),
    ] {
        assert_eq!(
            api.post("/models/import").json(&body).await.invalid(),
            errors,
            "{body}"
        );
    }
    api.get("/models/fan").await.problem(404, "not_found");
    assert_eq!(api.get("/models/lamp").await.expect(200)["version"], 1);

    let good = file(json!([narrower, new]), json!({"lamp": {"brightness": 60}}));
    let done = api.post("/models/import").json(&good).await.expect(200);
    let lamp = &done["models"][1];
    assert_eq!(
        (&lamp["outcome"], &lamp["version"], &lamp["migrated_devices"]),
        (&json!("changed"), &json!(2), &json!(1))
    );
    assert_eq!(lamp["diff"]["settings"]["brightness"]["to"]["maximum"], 60);
    let settings = api.get("/devices/LAMP-1/settings").await.expect(200);
    assert_eq!(settings["overrides"], json!({"brightness": 60}));
}
