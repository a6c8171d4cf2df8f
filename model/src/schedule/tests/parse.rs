use serde_json::{Value, json};

use super::{super::*, definition};
use crate::settings::{Patch, testing::document};

/// What is wrong with a definition, as JSON.
fn wrong(fields: Value) -> Value {
    serde_json::to_value(Definition::parse(document(fields)).unwrap_err()).unwrap()
}

#[test]
fn what_is_read_is_written_the_same() {
    for fields in [
        json!({"days": ["mon", "sun"], "from": "22:00", "to": "06:30", "settings": {"a": 1}, "enabled": true, "priority": 0}),
        json!({"starts_at": "2026-12-24T16:00:00Z", "ends_at": "2026-12-27T08:00:00.250Z", "settings": {}, "enabled": false, "priority": -7}),
        json!({"starts_at": "2026-12-24T16:00:00", "ends_at": "2026-12-27T08:00:00.5", "settings": {}, "enabled": true, "priority": 7}),
    ] {
        let read = definition(fields.clone());
        let written = Value::Object(read.to_document());
        assert_eq!(definition(written.clone()), read);
        assert_eq!(
            written.to_string().replace(".500", ".5"),
            Value::Object(document(fields)).to_string()
        );
    }
}

#[test]
fn offsets_become_utc_and_days_stand_in_order() {
    let fixed = definition(
        json!({"starts_at": "2026-12-24T17:00:00+01:00", "ends_at": "2026-12-25T00:00:00-05:00", "settings": {}}),
    );
    assert_eq!(fixed.to_document()["starts_at"], "2026-12-24T16:00:00Z");
    assert_eq!(fixed.to_document()["ends_at"], "2026-12-25T05:00:00Z");
    let weekly =
        definition(json!({"days": ["fri", "mon", "fri"], "from": "00:00", "to": "23:59", "settings": {}}));
    assert_eq!(weekly.to_document()["days"], json!(["mon", "fri"]));
}

#[test]
fn each_mistake_is_named() {
    let days = "must be a list of mon, tue, wed, thu, fri, sat, sun, at least one";
    let time = "must be a time of day such as \"06:30\", 00:00 to 23:59";
    let moment = "must be an RFC 3339 time, or a local time without offset such as \"2026-12-24T17:00:00\", from 1970 to 2999";
    let needed =
        json!({"days": "is needed", "from": "is needed", "to": "is needed", "settings": "is needed"});
    assert_eq!(wrong(json!({})), needed);
    assert_eq!(
        wrong(json!({"days": null, "settings": null}))["settings"],
        "must be an object"
    );
    for value in [
        json!([]),
        json!(["monday"]),
        json!(["MON"]),
        json!("mon"),
        json!([1]),
    ] {
        let fields = json!({"days": value, "from": "00:00", "to": "01:00", "settings": {}});
        assert_eq!(wrong(fields), json!({"days": days}));
    }
    for value in ["24:00", "6:30", "06:30:00", "06.30", "+6:30", "12:60", ""] {
        let fields = json!({"days": ["mon"], "from": "00:00", "to": value, "settings": {}});
        assert_eq!(wrong(fields), json!({"to": time}), "{value}");
    }
    for value in [
        "2026-12-24",
        "2026-13-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "3000-01-01T00:00",
        "tomorrow",
    ] {
        let fields = json!({"starts_at": value, "ends_at": "2999-01-01T00:00:00Z", "settings": {}});
        assert_eq!(wrong(fields), json!({"starts_at": moment}), "{value}");
    }
    let others = json!({
        "days": ["mon"], "from": "00:00", "to": "01:00", "settings": [], "enabled": 1, "priority": 0.5, "colour": 1
    });
    assert_eq!(
        wrong(others),
        json!({
            "settings": "must be an object", "enabled": "must be true or false",
            "priority": "must be a whole number of 32 bits", "colour": "unknown field"
        })
    );
}

#[test]
fn a_plan_is_weekly_or_once_and_a_period_has_an_order() {
    let both = json!({
        "days": ["mon"], "from": "00:00", "to": "01:00", "ends_at": "2026-01-01T00:00:00Z", "settings": {}
    });
    let either = "either `days`, `from` and `to`, or `starts_at` and `ends_at`";
    assert_eq!(wrong(both), json!({"ends_at": either}));
    let period =
        |starts_at: &str, ends_at: &str| json!({"starts_at": starts_at, "ends_at": ends_at, "settings": {}});
    let later = json!({"ends_at": "must be later than `starts_at`"});
    assert_eq!(
        wrong(period("2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00")),
        later
    );
    assert_eq!(wrong(period("2026-01-01T00:00:00", "2026-01-01T00:00:00")), later);
    assert_eq!(
        wrong(period("2026-01-01T00:00:00Z", "2026-01-02T00:00:00")),
        json!({"ends_at": "must have an offset if `starts_at` has one, and none if that has none"})
    );
}

#[test]
fn a_patch_changes_what_it_names() {
    let night = definition(
        json!({"days": ["mon"], "from": "22:00", "to": "06:30", "settings": {"a": 1, "b": 2}, "priority": 3}),
    );
    let patched = |patch: Value| night.patched(&Patch::from(document(patch)));
    let off = patched(json!({"enabled": false, "settings": {"a": null, "c": 3}, "priority": null})).unwrap();
    assert_eq!((off.plan, off.enabled, off.priority), (night.plan, false, 0));
    assert_eq!(off.settings, document(json!({"b": 2, "c": 3})));
    let once = json!({
        "days": null, "from": null, "to": null, "starts_at": "2026-01-01T00:00", "ends_at": "2026-01-02T00:00"
    });
    assert!(matches!(
        patched(once).unwrap().plan,
        Plan::Once(Period::Local { .. })
    ));
    let errors = patched(json!({"colour": null, "from": "late"})).unwrap_err();
    assert_eq!(errors.keys().collect::<Vec<_>>(), ["colour", "from"]);
    assert!(patched(json!({"settings": null})).is_err());
}

#[test]
fn names_can_stand_in_a_path_and_leave_the_preview_its_own() {
    for good in ["night", "A.b_c-9", "0", &"x".repeat(64)] {
        assert!(good.parse::<ScheduleName>().is_ok(), "{good}");
    }
    for bad in ["", "preview", "-a", "a b", "a/b", "é", "a\0", &"x".repeat(65)] {
        assert!(bad.parse::<ScheduleName>().is_err(), "{bad}");
    }
}
