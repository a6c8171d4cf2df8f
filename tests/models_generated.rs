//! What firmware and programs are built from: the C header and the OpenAPI components of a model.

use std::process::Command;

use serde_json::json;
use setpoint_tests::Harness;

#[tokio::test]
async fn the_header_compiles_and_changes_with_the_model() {
    let server = Harness::start().await;
    let api = server.api();
    let first = api.get("/models/home/header.h").await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!(first.header("content-type"), "text/x-c; charset=utf-8");
    for line in [
        "#ifndef SETPOINT_MODEL_HOME_H",
        "#define SETPOINT_MODEL_HOME_VERSION 1",
        "#define SETPOINT_MODEL_HOME_KEY_REPORT_INTERVAL \"reportInterval\"",
        "#define SETPOINT_MODEL_HOME_MAX_REPORT_INTERVAL 3600",
        "    int32_t report_interval;",
        "    enum setpoint_model_home_temperature_unit temperature_unit;",
        "#define SETPOINT_MODEL_HOME_METRIC_TEMPERATURE \"temperature\"",
    ] {
        assert!(
            first.text.lines().any(|found| found == line),
            "{line}: {}",
            first.text
        );
    }
    let tag = first.header("etag");
    let same = api
        .get("/models/home/header.h")
        .header("if-none-match", &tag)
        .await;
    assert_eq!((same.status.as_u16(), same.text.as_str()), (304, ""));
    assert_eq!(same.header("etag"), tag);

    let nasty = json!({"title": "*/ #error ??/\n\"", "settings": {
        "default": {"type": "string", "enum": ["ü", "\"", "\\"], "default": "\\", "title": "*/ int x;"},
        "reportInterval": {"x-min-firmware": "2.0.0", "maximum": 7200},
    }});
    api.patch("/models/home").json(&nasty).await.expect(200);
    let changed = api
        .get("/models/home/header.h")
        .header("if-none-match", &tag)
        .await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert!(
        changed.text.contains("#define SETPOINT_MODEL_HOME_VERSION 2\n"),
        "{}",
        changed.text
    );
    assert!(
        changed
            .text
            .contains("#define SETPOINT_MODEL_HOME_FIRMWARE_REPORT_INTERVAL \"2.0.0\"\n")
    );
    // Rust links with a C compiler, so there is one nearly everywhere.
    if Command::new("cc").arg("--version").output().is_ok() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("home.c");
        let program = format!(
            "{}\nstruct setpoint_model_home_settings settings = SETPOINT_MODEL_HOME_DEFAULTS;\n",
            changed.text
        );
        std::fs::write(&file, program).unwrap();
        let output = Command::new("cc")
            .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[tokio::test]
async fn the_components_hold_the_schemas_as_they_are() {
    let server = Harness::start().await;
    let api = server.api();
    let answer = api.get("/models/home/openapi.json").await;
    let document = answer.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(
        (&document["openapi"], &document["info"]["version"]),
        (&json!("3.1.0"), &json!("1"))
    );
    let model = api.get("/models/home").await.expect(200);
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["HomeSettings"]["properties"], model["settings"]);
    assert_eq!(
        schemas["HomeSettings"]["required"],
        json!(["label", "privacyMode", "reportInterval", "temperatureUnit"])
    );
    assert_eq!(
        schemas["HomeSettingsPatch"]["properties"]["label"]["anyOf"],
        json!([model["settings"]["label"], {"type": "null"}])
    );
    assert_eq!(
        schemas["HomeTelemetry"]["properties"]["temperature"]["unit"],
        "°C"
    );
    let again = api
        .get("/models/home/openapi.json")
        .header("if-none-match", &answer.header("etag"));
    assert_eq!(again.await.status, 304);
    // The API's own document does not depend on models.
    let api_document = api.root(reqwest::Method::GET, "/openapi.json").await.expect(200);
    assert!(
        api_document["components"]["schemas"]
            .get("HomeSettings")
            .is_none()
    );
}
