use serde_json::json;

use super::*;
use crate::settings::testing::document;

fn home() -> Definition {
    let fields = json!({
        "title": "Home device",
        "settings": {"reportInterval": {"type": "integer", "minimum": 10, "default": 60}},
        "telemetry": {"temperature": {"unit": "°C", "title": "Temperature"}},
    });
    Definition::parse(document(fields)).unwrap()
}

#[test]
fn what_is_written_is_read_again() {
    let home = home();
    assert_eq!(Definition::parse(home.to_document()), Ok(home.clone()));
    assert!(!home.claim_secret);
    assert_eq!(home.description, "");
}

#[test]
fn each_wrong_field_has_its_message() {
    for (fields, errors) in [
        (json!({}), json!({"settings": "is needed"})),
        (
            json!({"settings": null, "titel": 1}),
            json!({"titel": "unknown field"}),
        ),
        (
            json!({"settings": [], "title": 1, "claim_secret": "no", "description": "x".repeat(2001),
                   "settings_expected_within": 0, "schedules_in_document": 1, "telemetry_retention": 3600}),
            json!({
                "settings": "must be an object", "title": "must be a text", "claim_secret": "must be true or false",
                "description": "at most 2000 characters",
                "schedules_in_document": "must be true or false",
                "settings_expected_within": "must be a whole number of seconds from 1 to 31536000",
                "telemetry_retention": "must be a whole number of seconds from 86400 to 2147483647",
            }),
        ),
        (
            json!({"settings": {
                "a": {"mininum": 1}, "b": true, "9": {}, "c": {"type": "integer", "default": "x"}, "d": {"type": "int"},
                "e": {"type": "integer"},
            }}),
            json!({
                "settings.a": "unknown keyword `mininum`",
                "settings.b": "must be a JSON Schema: an object",
                "settings.9": "is no setting's name: 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter",
                "settings.c": "its default must be a whole number",
                "settings.d": "\"int\" is not valid under any of the schemas listed in the 'anyOf' keyword",
            }),
        ),
        (
            json!({"settings": {}, "telemetry": {"a b": {}, "t": {"unit": 1}, "u": {"units": "x"}, "v": 1, "w": {}}}),
            json!({
                "telemetry.a b":
                    "is no metric's name: 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit",
                "telemetry.t": "`unit` must be a text of at most 32 characters",
                "telemetry.u": "unknown field `units`; known: unit, title, description, type",
                "telemetry.v": "must be an object such as {\"unit\": \"°C\", \"title\": \"Temperature\"}",
            }),
        ),
    ] {
        let found = Definition::parse(document(fields.clone())).unwrap_err();
        assert_eq!(json!(found), errors, "{fields}");
    }
}

#[test]
fn the_number_of_settings_metrics_and_patterns_is_bounded() {
    let many = |value: Value, count: usize| -> Document {
        (0..count).map(|n| (format!("k{n:03}"), value.clone())).collect()
    };
    let parse = |settings: Document, telemetry: Document| {
        Definition::parse(document(json!({"settings": settings, "telemetry": telemetry})))
    };
    assert!(parse(many(json!({}), 256), many(json!({}), 256)).is_ok());
    let errors = parse(many(json!({}), 257), many(json!({}), 257)).unwrap_err();
    assert_eq!(errors["settings.k256"], "more than 256 settings");
    assert_eq!(errors["telemetry.k256"], "more than 256 metrics");
    assert_eq!(errors.len(), 2);
    let errors = parse(many(json!({"pattern": "a"}), 33), Document::new()).unwrap_err();
    assert_eq!(errors["settings.k032"], "more than 32 patterns in one model");
    assert_eq!(errors.len(), 1);
}

#[test]
fn a_patch_merges_and_null_takes_away() {
    let patch = json!({
        "title": null,
        "settings": {"reportInterval": {"maximum": 3600, "minimum": null}, "label": {"type": "string"}},
        "telemetry": {"temperature": null},
    });
    let patched = home().patched(&document(patch)).unwrap();
    assert_eq!(patched.title, "");
    assert_eq!(
        Value::Object(patched.settings),
        json!({"reportInterval": {"type": "integer", "maximum": 3600, "default": 60}, "label": {"type": "string"}})
    );
    assert!(patched.telemetry.is_empty());
    assert_eq!(home().patched(&Document::new()), Ok(home()));
    assert!(
        home()
            .patched(&document(json!({"settings": null})))
            .unwrap()
            .settings
            .is_empty()
    );
}

#[test]
fn a_patch_of_what_is_not_there_is_a_mistake() {
    let patch = json!({
        "name": "other", "colour": null, "title": 5,
        "settings": {"reportIntervall": null, "reportInterval": {"default": 5}}, "telemetry": {"humidity": null},
    });
    assert_eq!(
        json!(home().patched(&document(patch)).unwrap_err()),
        json!({
            "name": "can't be changed", "colour": "unknown field", "title": "must be a text",
            "settings.reportIntervall": "unknown setting",
            "settings.reportInterval": "its default must be at least 10",
            "telemetry.humidity": "unknown metric",
        })
    );
}
