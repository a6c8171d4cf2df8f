use serde_json::json;

use super::*;
use crate::settings::testing::document;

fn schema(settings: Value) -> Schema {
    Schema::compile(&document(settings)).unwrap()
}

fn home() -> Schema {
    schema(json!({
        "privacyMode": {"type": "boolean", "default": false},
        "reportInterval": {"type": "integer", "minimum": 10, "maximum": 3600, "default": 60, "unit": "s"},
        "temperatureUnit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "label": {"type": "string", "maxLength": 40}
    }))
}

fn message(schema: &Schema, key: &str, value: Value) -> String {
    let errors = schema
        .check(Document::from_iter([(key.to_owned(), value)]))
        .unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[key].clone()
}

#[test]
fn each_rule_has_its_sentence() {
    for (key, value, sentence) in [
        ("privacyMode", json!("yes"), "must be true or false"),
        ("privacyMode", json!(null), "must be true or false"),
        ("reportInterval", json!(5), "must be from 10 to 3600"),
        ("reportInterval", json!(3601), "must be from 10 to 3600"),
        ("reportInterval", json!(60.5), "must be a whole number"),
        ("reportInterval", json!("60"), "must be a whole number"),
        (
            "temperatureUnit",
            json!("kelvin"),
            "must be one of \"celsius\", \"fahrenheit\"",
        ),
        (
            "temperatureUnit",
            json!(1),
            "must be one of \"celsius\", \"fahrenheit\"",
        ),
        ("label", json!("x".repeat(41)), "at most 40 characters"),
        ("label", json!(1), "must be a text"),
        ("color", json!(1), "unknown setting"),
    ] {
        assert_eq!(message(&home(), key, value.clone()), sentence, "{key}: {value}");
    }
}

#[test]
fn sentences_of_the_rarer_rules() {
    let schema = schema(json!({
        "low": {"type": "number", "minimum": 1.5},
        "high": {"maximum": 9},
        "open": {"exclusiveMinimum": 0},
        "shut": {"exclusiveMaximum": 10},
        "step": {"multipleOf": 5},
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "code": {"type": "string", "pattern": "^[0-9]{4}$"},
        "list": {"type": "array", "maxItems": 1, "uniqueItems": true, "items": {"type": "integer"}},
        "window": {"type": "object", "required": ["from"], "additionalProperties": false,
                   "properties": {"from": {"type": "string"}, "n": {"type": "integer", "minimum": 1, "maximum": 2}}},
        "either": {"type": ["boolean", "string"]},
        "fixed": {"const": 7},
        "never": false
    }));
    for (key, value, sentence) in [
        ("low", json!(1), "must be at least 1.5"),
        ("high", json!(10), "must be at most 9"),
        ("open", json!(0), "must be more than 0"),
        ("shut", json!(10), "must be less than 10"),
        ("step", json!(7), "must be a multiple of 5"),
        ("name", json!(""), "from 1 to 8 characters"),
        ("code", json!("12"), "must match ^[0-9]{4}$"),
        ("list", json!([1, 2]), "at most 1 item"),
        ("list", json!(["x"]), "/0: must be a whole number"),
        ("window", json!({}), "must have \"from\""),
        ("window", json!({"from": "x", "to": "y"}), "must not have \"to\""),
        ("window", json!({"from": "x", "n": 3}), "/n: must be from 1 to 2"),
        ("either", json!(1), "must be true or false or a text"),
        ("fixed", json!(8), "must be 7"),
        ("never", json!(1), "can't be set"),
    ] {
        assert_eq!(message(&schema, key, value.clone()), sentence, "{key}: {value}");
    }
}

#[test]
fn good_values_pass_and_whole_numbers_become_integers() {
    let values = document(
        json!({"privacyMode": true, "reportInterval": 60.0, "temperatureUnit": "celsius", "label": "ü"}),
    );
    let checked = home().check(values).unwrap();
    assert_eq!(checked["reportInterval"].to_string(), "60");
    assert_eq!(checked.len(), 4);
    assert!(home().check(document(json!({"label": "ü".repeat(40)}))).is_ok());
}

#[test]
fn every_wrong_key_is_named() {
    let errors = home()
        .check(document(json!({"a": 1, "privacyMode": 1, "label": ""})))
        .unwrap_err();
    assert_eq!(errors.keys().collect::<Vec<_>>(), ["a", "privacyMode"]);
}

#[test]
fn defaults_are_those_that_the_model_gives() {
    assert_eq!(
        Value::Object(home().defaults()),
        json!({"privacyMode": false, "reportInterval": 60, "temperatureUnit": "celsius"})
    );
}

#[test]
fn a_schema_that_makes_no_sense_is_refused() {
    for (settings, wanted) in [
        (json!({"": {}}), "`` is not a setting's name"),
        (json!({"9x": {}}), "`9x` is not a setting's name"),
        (json!({"a": {"type": "boolish"}}), "`a`: "),
        (json!({"a": 1}), "`a`: "),
        (json!({"a": {"$ref": "https://example.com/schema.json"}}), "`a`: "),
        (json!({"a": {"pattern": "(?<=x)y"}}), "`a`: "),
        (
            json!({"a": {"minimum": 10, "default": 5}}),
            "the default of `a` must be at least 10",
        ),
    ] {
        let error = Schema::compile(&document(settings.clone()))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(wanted), "{settings}: {error}");
    }
}

#[test]
fn a_read_only_setting_is_set_by_its_default_alone() {
    let schema = schema(json!({"hardware": {"type": "string", "default": "b", "readOnly": true}}));
    let read_only = "is read-only: the model's default alone sets it";
    assert_eq!(message(&schema, "hardware", json!("b")), read_only);
    assert_eq!(
        schema.check_value("hardware", &json!("c")),
        Err(read_only.to_owned())
    );
    assert_eq!(Value::Object(schema.defaults()), json!({"hardware": "b"}));
    assert_eq!(home().check_value("reportInterval", &json!(60.0)), Ok(()));
    assert_eq!(
        home().check_value("reportInterval", &json!(5)),
        Err("must be from 10 to 3600".to_owned())
    );
}

#[test]
fn the_key_of_schedules_is_no_settings_name() {
    let settings = document(json!({"schedules": {"type": "boolean"}}));
    let key = "schedules".to_owned();
    assert_eq!(
        Schema::compile(&settings).unwrap_err(),
        InvalidSchema::Reserved { key }
    );
}
