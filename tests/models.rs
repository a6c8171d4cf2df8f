//! Models: made, changed, remembered and removed.

use serde_json::{Value, json};
use setpoint_tests::{Harness, harness::api::Api};

/// A model of one setting.
pub(crate) fn lamp() -> Value {
    json!({
        "name": "lamp",
        "title": "Lamp",
        "settings": {"brightness": {"type": "integer", "minimum": 0, "maximum": 100, "default": 50, "unit": "%"}},
        "telemetry": {"power": {"unit": "W", "title": "Power"}},
    })
}

/// Makes it.
pub(crate) async fn make_lamp(api: &Api) {
    api.post("/models").json(&lamp()).await.expect(201);
}

#[tokio::test]
async fn a_model_is_made_found_and_removed() {
    let server = Harness::start().await;
    let api = server.api();
    let made = api.post("/models").json(&lamp()).await;
    let body = made.expect(201);
    assert_eq!(made.header("location"), "/api/v1/models/lamp");
    assert_eq!(made.header("etag"), "\"1\"");
    assert_eq!(
        (&body["version"], &body["claim_secret"]),
        (&json!(1), &json!(false))
    );
    let read = api.get("/models/lamp").await;
    assert_eq!(read.expect(200), body);
    assert_eq!(read.header("etag"), "\"1\"");
    for (field, value) in lamp().as_object().unwrap() {
        assert_eq!(&body[field], value, "{field}");
    }
    let names = |list: Value| -> Vec<Value> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|model| model["name"].clone()).collect()
    };
    assert_eq!(names(api.get("/models").await.expect(200)), ["home", "lamp"]);
    let device = api
        .post("/devices")
        .json(&json!({"serial": "LAMP-1", "model": "lamp"}));
    device.await.expect(201);
    let settings = api.get("/devices/LAMP-1/settings").await.expect(200);
    assert_eq!(settings["settings"], json!({"brightness": 50}));

    let again = api.post("/models").json(&lamp()).await;
    assert_eq!(
        again.problem(409, "model_exists")["detail"],
        "there is a model called lamp already"
    );
    let refused = api.delete("/models/lamp").await.problem(409, "model_in_use");
    assert_eq!(refused["detail"], "1 device is of this model");
    api.delete("/devices/LAMP-1").await.expect(204);
    let stale = api.delete("/models/lamp").header("if-match", "\"7\"").await;
    assert_eq!(stale.problem(412, "version_mismatch")["current_version"], 1);
    api.delete("/models/lamp")
        .header("if-match", "\"1\"")
        .await
        .expect(204);
    for path in [
        "/models/lamp",
        "/models/lamp/versions",
        "/models/lamp/header.h",
        "/models/Lamp",
        "/models/a%00b",
    ] {
        api.get(path).await.problem(404, "not_found");
    }
    api.delete("/models/lamp").await.problem(404, "not_found");

    // Made again, it goes on where it ended.
    assert_eq!(api.post("/models").json(&lamp()).await.expect(201)["version"], 2);
    let versions = api.get("/models/lamp/versions").await.expect(200);
    assert_eq!(versions["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_wrong_with_a_model_is_told_by_field() {
    let server = Harness::start().await;
    let api = server.api();
    for (body, errors) in [
        (json!({}), json!({"name": "is needed", "settings": "is needed"})),
        (
            json!({"name": "Lamp", "settings": {}, "colour": 1}),
            json!({
                "name": "1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit, and neither `export` nor `import`",
                "colour": "unknown field",
            }),
        ),
        (
            json!({"name": "import", "settings": {}}),
            json!({
                "name": "1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit, and neither `export` nor `import`",
            }),
        ),
        (
            json!({"name": "lamp", "settings": {
                "brightness": {"type": "integer", "mininum": 0},
                "colour": {"$ref": "https://example.com/colour.json"},
                "level": {"type": "integer", "maximum": 5, "default": 6},
                "mode": {"type": "string", "format": "mode"},
                "speed": {"x-min-firmware": "newest"},
            }}),
            json!({
                "settings.brightness": "unknown keyword `mininum`",
                "settings.colour": "`$ref` is not taken: write the schema out in full",
                "settings.level": "its default must be at most 5",
                "settings.mode": "\"mode\" at /format is no format that is checked",
                "settings.speed": "`x-min-firmware` must be a version such as \"1.4.0\"",
            }),
        ),
        (
            json!({"name": "lamp", "settings": {"text": {"type": "string", "default": "x".repeat(40_000)}}}),
            json!({"settings": "the defaults are larger than 32768 bytes, the most a device may have"}),
        ),
    ] {
        let answer = api.post("/models").json(&body).await;
        assert_eq!(answer.invalid(), errors, "{body}");
    }
    api.post("/models").body("{").await.problem(400, "malformed");
    let twice = r#"{"name":"lamp","settings":{"a":{},"a":{}}}"#;
    api.post("/models").body(twice).await.problem(400, "malformed");
    let large = json!({"name": "lamp", "settings": {}, "description": "x".repeat(300_000)});
    api.post("/models").json(&large).await.problem(413, "too_large");
    api.get("/models/lamp").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_change_needs_the_version_it_was_made_for() {
    let server = Harness::start().await;
    let api = server.api();
    make_lamp(api).await;
    let patch = json!({"settings": {"brightness": {"default": 60}}});
    let changed = api
        .patch("/models/lamp")
        .header("if-match", "\"1\"")
        .json(&patch)
        .await;
    assert_eq!(changed.expect(200)["version"], 2);
    assert_eq!(changed.header("etag"), "\"2\"");
    let stale = api.patch("/models/lamp").header("if-match", "\"1\"").json(&patch);
    let stale = stale.await;
    assert_eq!(stale.problem(412, "version_mismatch")["current_version"], 2);
    assert_eq!(stale.header("etag"), "\"2\"");

    // What changes nothing makes no version.
    let same = api.patch("/models/lamp").json(&patch).await;
    assert_eq!(same.expect(200)["version"], 2);

    // What GET shows may be sent back; what is left out has its default.
    let mut whole = api.get("/models/lamp").await.expect(200);
    let same = api.put("/models/lamp").json(&whole).await;
    assert_eq!(same.expect(200)["version"], 2);
    whole["title"] = Value::Null;
    whole["claim_secret"] = json!(true);
    whole["settings_expected_within"] = json!(90);
    let replaced = api.put("/models/lamp").json(&whole).await.expect(200);
    assert_eq!(replaced["settings_expected_within"], 90);
    assert_eq!(
        (
            &replaced["version"],
            &replaced["title"],
            &replaced["claim_secret"]
        ),
        (&json!(3), &json!(""), &json!(true))
    );
    whole["name"] = json!("other");
    assert_eq!(
        api.put("/models/lamp").json(&whole).await.invalid(),
        json!({"name": "can't be changed"})
    );
    api.put("/models/missing")
        .json(&json!({"settings": {}}))
        .await
        .problem(404, "not_found");
    let unknown = json!({"settings": {"colour": null}});
    assert_eq!(
        api.patch("/models/lamp").json(&unknown).await.invalid(),
        json!({"settings.colour": "unknown setting"})
    );
}

#[tokio::test]
async fn every_version_is_kept_with_its_author_and_difference() {
    let server = Harness::start().await;
    let api = server.api();
    make_lamp(api).await;
    let author = api.scoped(&["models:write", "models:read"]).await;
    let patch = json!({"title": "Lamp, second series", "settings": {"brightness": {"unit": null}}});
    author.patch("/models/lamp").json(&patch).await.expect(200);
    let tried = author
        .patch("/models/lamp?dry_run=true")
        .json(&json!({"title": "x"}));
    assert_eq!(tried.await.expect(200)["version"], 3);

    let list = api.get("/models/lamp/versions").await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    let newest = &items[0];
    assert_eq!(
        (&newest["version"], &newest["actor"]),
        (&json!(2), &json!("token:models:write models:read"))
    );
    let schema = &lamp()["settings"]["brightness"];
    let mut without = schema.clone();
    without.as_object_mut().unwrap().remove("unit");
    assert_eq!(
        newest["diff"],
        json!({
            "title": {"from": "Lamp", "to": "Lamp, second series"},
            "settings": {"brightness": {"from": schema, "to": without}},
        })
    );
    assert_eq!(
        (&newest["migrate"], &newest["migrated_devices"]),
        (&Value::Null, &json!(0))
    );
    assert!(newest.get("definition").is_none());

    let first = api.get("/models/lamp/versions/1").await.expect(200);
    let mut definition = lamp();
    definition.as_object_mut().unwrap().remove("name");
    definition["description"] = json!("");
    definition["claim_secret"] = json!(false);
    definition["settings_expected_within"] = Value::Null;
    definition["schedules_in_document"] = json!(false);
    definition["home_assistant"] = json!(false);
    definition["telemetry_retention"] = Value::Null;
    assert_eq!(first["definition"], definition);
    assert_eq!(first["diff"]["title"], json!({"from": null, "to": "Lamp"}));
    // An earlier version is brought back by sending it.
    let back = api.put("/models/lamp").json(&first["definition"]).await;
    assert_eq!(back.expect(200)["version"], 3);

    let page = api.get("/models/lamp/versions?limit=2").await.expect(200);
    assert_eq!(page["next"], "2");
    let rest = api
        .get("/models/lamp/versions?limit=2&cursor=2")
        .await
        .expect(200);
    assert_eq!(
        (&rest["items"][0]["version"], &rest["next"]),
        (&json!(1), &Value::Null)
    );
    for version in ["4", "0", "x", "99999999999"] {
        let path = format!("/models/lamp/versions/{version}");
        api.get(&path).await.problem(404, "not_found");
    }
    // The built-in model has its first version too.
    let home = api.get("/models/home/versions/1").await.expect(200);
    assert_eq!(home["definition"]["settings"]["label"]["maxLength"], 40);
}

#[tokio::test]
async fn changes_stand_in_the_audit_log() {
    let server = Harness::start().await;
    let api = server.api();
    make_lamp(api).await;
    let patch = json!({"settings": {"brightness": {"maximum": 90}}});
    api.patch("/models/lamp").json(&patch).await.expect(200);
    api.delete("/models/lamp").await.expect(204);
    let log = api.get("/audit?object=model:lamp").await.expect(200);
    let items = log["items"].as_array().unwrap();
    let actions: Vec<&Value> = items.iter().map(|entry| &entry["action"]).collect();
    assert_eq!(actions, ["model.delete", "model.update", "model.create"]);
    let schema = lamp()["settings"]["brightness"].clone();
    let mut lower = schema.clone();
    lower["maximum"] = json!(90);
    assert_eq!(items[1]["before"], json!({"settings": {"brightness": schema}}));
    assert_eq!(items[1]["after"], json!({"settings": {"brightness": lower}}));
    assert_eq!(items[2]["after"]["title"], "Lamp");
    assert_eq!(items[0]["before"]["settings"]["brightness"], lower);
    let viewer = api.scoped(&["models:read"]).await;
    viewer
        .patch("/models/home")
        .json(&patch)
        .await
        .problem(403, "forbidden");
}
