use serde_json::json;

use super::*;

fn object(value: Value) -> Document {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is no object"),
    }
}

fn parse(value: Value) -> Result<NewDevice, FieldErrors> {
    NewDevice::parse(object(value))
}

fn errors(pairs: &[(&str, &str)]) -> FieldErrors {
    pairs
        .iter()
        .map(|(field, message)| ((*field).to_owned(), (*message).to_owned()))
        .collect()
}

#[test]
fn only_a_serial_is_needed() {
    let device = parse(json!({"serial": "HOME-1"})).unwrap();
    assert_eq!(device.serial.as_str(), "HOME-1");
    assert_eq!(device.description, Description::default());
    assert_eq!(device.description.model, "home");
    assert_eq!(
        parse(json!({"serial": "HOME-1", "name": null, "tags": null, "location": null})).unwrap(),
        device
    );
}

#[test]
fn all_fields_are_read() {
    let device = parse(json!({
        "serial": "HOME-1", "name": "Hall", "model": "home", "tags": {"site": "oslo", "floor": 2, "spare": false},
        "time_zone": "Europe/Oslo", "location": {"latitude": 59.9, "longitude": 10.7, "room": "hall"}
    }))
    .unwrap();
    assert_eq!(device.description.time_zone, chrono_tz::Europe::Oslo);
    assert_eq!(
        device.description.tags.to_json(),
        json!({"site": "oslo", "floor": 2, "spare": false})
    );
    assert_eq!(
        serde_json::to_value(&device.description.tags).unwrap(),
        device.description.tags.to_json()
    );
}

#[test]
fn every_wrong_field_is_named() {
    let wrong = parse(json!({
        "serial": "-x", "name": 1, "model": [], "tags": [], "time_zone": "Oslo", "location": 7, "colour": "red"
    }));
    assert_eq!(
        wrong.unwrap_err(),
        errors(&[
            (
                "serial",
                "a serial is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit"
            ),
            ("name", "must be a text"),
            ("model", "must be a text"),
            ("tags", "must be an object"),
            ("time_zone", "must be an IANA time zone such as \"Europe/Oslo\""),
            (
                "location",
                "must be a text, or an object with latitude and longitude"
            ),
            ("colour", "unknown field"),
        ])
    );
    assert_eq!(parse(json!({})).unwrap_err(), errors(&[("serial", "is needed")]));
    assert_eq!(
        parse(json!({"serial": 7})).unwrap_err(),
        errors(&[("serial", "must be a text")])
    );
}

#[test]
fn tags_and_texts_are_bounded() {
    let many: Document = (0..=MAX_TAGS).map(|n| (n.to_string(), json!(n))).collect();
    for (tags, message) in [
        (Value::Object(many), "at most 32 tags"),
        (json!({"": 1}), "a tag's name is 1 to 64 of A-Z a-z 0-9 . _ -"),
        (json!({"a b": 1}), "a tag's name is 1 to 64 of A-Z a-z 0-9 . _ -"),
        (json!({"a": "é".repeat(201)}), "a: at most 200 characters"),
        (json!({"a": null}), "a: must be a text, a number, true or false"),
        (json!({"a": {}}), "a: must be a text, a number, true or false"),
    ] {
        assert_eq!(
            parse(json!({"serial": "A", "tags": tags})).unwrap_err(),
            errors(&[("tags", message)])
        );
    }
    for (location, message) in [
        (json!("x".repeat(501)), "at most 500 characters"),
        (json!({"note": "x".repeat(500)}), "at most 500 bytes"),
        (
            json!({"latitude": 91, "longitude": 0}),
            "latitude: must be from -90 to 90",
        ),
        (
            json!({"latitude": 0, "longitude": "east"}),
            "longitude: must be from -180 to 180",
        ),
    ] {
        let wrong = parse(json!({"serial": "A", "location": location}));
        assert_eq!(wrong.unwrap_err(), errors(&[("location", message)]));
    }
}

#[test]
fn a_patch_changes_what_it_names() {
    let before = parse(
        json!({"serial": "A", "name": "Hall", "tags": {"site": "oslo", "floor": 1}, "location": "here"}),
    );
    let before = before.unwrap().description;
    let patch = |patch: Value| before.patched(&Patch::from(object(patch)));
    assert_eq!(patch(json!({})).unwrap(), before);
    let after = patch(json!({"name": null, "tags": {"floor": null, "room": "k"}, "location": null})).unwrap();
    let expected = Description {
        name: String::new(),
        tags: Tags::parse(json!({"site": "oslo", "room": "k"})).unwrap(),
        location: None,
        ..before.clone()
    };
    assert_eq!(after, expected);
    assert_eq!(
        patch(json!({"serial": "B", "online": null, "name": 7})).unwrap_err(),
        errors(&[
            ("serial", "can't be changed"),
            ("online", "unknown field"),
            ("name", "must be a text")
        ])
    );
}
