//! Rules as objects.

use serde_json::{Value, json};

use crate::{
    alert::{AlertName, Definition, InvalidName, Scope, Severity},
    device::FieldErrors,
    settings::{Patch, testing::document},
};

fn parse(value: Value) -> Result<Definition, FieldErrors> {
    Definition::parse(document(value))
}

#[test]
fn a_rule_needs_a_condition_alone() {
    let rule = parse(json!({"condition": "temperature > 30 for 5m"})).unwrap();
    assert_eq!(
        (rule.scope.clone(), rule.severity, rule.enabled),
        (Scope::All, Severity::Warning, true)
    );
    assert_eq!(rule.resolve_after().to_string(), "5m");
    let rule = parse(json!({"condition": "offline for 5m"})).unwrap();
    assert_eq!(rule.resolve_after().to_string(), "0s");
    let full = json!({
        "title": "Too hot", "condition": "temperature > 30 for 5m", "scope": {"group": "oslo"},
        "severity": "critical", "enabled": false, "resolve_after": "10m"
    });
    let rule = parse(full.clone()).unwrap();
    assert_eq!(Value::Object(rule.to_document()), full);
    assert_eq!(Definition::parse(rule.to_document()), Ok(rule));
}

#[test]
fn every_wrong_field_is_named() {
    let errors = parse(json!({
        "title": 1, "condition": "temperature >", "scope": {"model": "a", "serial": "b"}, "severity": "bad",
        "enabled": "yes", "resolve_after": "soon", "name": "x", "colour": 1
    }))
    .unwrap_err();
    for (field, message) in [
        ("title", "must be a text"),
        ("condition", "expected a number at character 14, found the end"),
        ("scope", "at most one of model, group and serial"),
        ("severity", "one of info, warning, critical"),
        ("enabled", "must be true or false"),
        (
            "resolve_after",
            "a time of whole s, m, h or d, up to 7d: `5m`, `1h 30m`",
        ),
        ("name", "can't be changed"),
        ("colour", "unknown field"),
    ] {
        assert_eq!(errors[field], message, "{field}");
    }
    assert_eq!(errors.len(), 8);
    assert_eq!(parse(json!({})).unwrap_err()["condition"], "is needed");
    for (scope, message) in [
        (json!("oslo"), "must be an object"),
        (json!({"tag": "a"}), "at most one of model, group and serial"),
        (json!({"model": 1}), "model: must be a text"),
        (
            json!({"group": "a b"}),
            "group: 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit",
        ),
    ] {
        let errors = parse(json!({"condition": "offline", "scope": scope})).unwrap_err();
        assert_eq!(errors["scope"], message);
    }
}

#[test]
fn a_patch_merges_and_a_scope_is_one_thing() {
    let rule =
        parse(json!({"condition": "offline for 5m", "scope": {"model": "home"}, "title": "x"})).unwrap();
    let patch = |patch: Value| rule.patched(&Patch::from(document(patch)));
    let patched = patch(json!({"scope": {"serial": "A"}, "title": null, "severity": "info"})).unwrap();
    assert_eq!(patched.scope, Scope::Serial("A".parse().unwrap()));
    assert_eq!((patched.title.as_str(), patched.severity), ("", Severity::Info));
    assert_eq!(patched.condition, rule.condition);
    assert_eq!(patch(json!({"scope": null})).unwrap().scope, Scope::All);
    assert_eq!(patch(json!({})).unwrap(), rule);
    let errors = patch(json!({"name": "y", "colour": null, "condition": null})).unwrap_err();
    assert_eq!(errors["name"], "can't be changed");
    assert_eq!(errors["colour"], "unknown field");
    assert_eq!(errors["condition"], "is needed");
}

#[test]
fn a_scope_covers_what_it_names() {
    let serial = "A".parse().unwrap();
    let groups = ["oslo".to_owned()];
    for (scope, covers) in [
        (json!({}), true),
        (json!({"model": "home"}), true),
        (json!({"model": "other"}), false),
        (json!({"group": "oslo"}), true),
        (json!({"group": "bergen"}), false),
        (json!({"serial": "A"}), true),
        (json!({"serial": "a"}), false),
    ] {
        let rule = parse(json!({"condition": "offline", "scope": scope})).unwrap();
        assert_eq!(rule.scope.covers(&serial, "home", &groups), covers, "{scope}");
    }
}

#[test]
fn names_are_plain() {
    for good in ["a", "Too-hot.2_x", &"x".repeat(64)] {
        assert_eq!(good.parse::<AlertName>().unwrap().as_str(), good);
    }
    for bad in ["", "-a", "a b", "é", &"x".repeat(65), "a/b"] {
        assert_eq!(bad.parse::<AlertName>(), Err(InvalidName), "{bad}");
    }
}
