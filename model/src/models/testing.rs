//! Arbitrary models for the property tests.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Definition;
use crate::settings::{Document, testing::document};

/// Texts that hold what may end a comment or a literal, among anything else.
pub(crate) fn nasty_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("*/".to_owned()),
        Just("/*".to_owned()),
        Just("??/".to_owned()),
        Just("\\".to_owned()),
        Just("\"".to_owned()),
        Just("\n#include <x>\n".to_owned()),
        Just("\u{202e}".to_owned()),
        Just("°C".to_owned()),
        Just("%s".to_owned()),
        "[a-z /*?]{0,6}",
        "[^\u{0}]{0,6}",
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

fn key() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("default"),
        Just("int"),
        Just("class"),
        Just("linux"),
        Just("I"),
        Just("bool"),
        Just("NULL"),
        Just("a"),
    ];
    prop_oneof![
        "[a-d]",
        "[a-zA-Z][a-zA-Z0-9._-]{0,12}",
        word.prop_map(str::to_owned)
    ]
}

/// The schema of one setting, with a default that it takes.
fn setting() -> impl Strategy<Value = Value> {
    let edge = prop_oneof![
        Just(i64::MIN),
        Just(i64::from(i32::MIN)),
        Just(-1),
        Just(0),
        Just(i64::from(i32::MAX)),
        Just(i64::from(u32::MAX)),
        Just(i64::MAX),
        any::<i64>(),
    ];
    let integer = (edge.clone(), edge, any::<bool>()).prop_map(|(one, other, bounded)| {
        let (low, high) = (one.min(other), one.max(other));
        if bounded {
            json!({"type": "integer", "minimum": low, "maximum": high, "default": low})
        } else {
            json!({"type": "integer", "default": high})
        }
    });
    let number = (-1e300_f64..1e300).prop_map(|n| json!({"type": "number", "minimum": n, "default": n}));
    let choice = prop::collection::vec(nasty_text(), 1..5).prop_map(|mut texts| {
        texts.sort();
        texts.dedup();
        json!({"type": "string", "enum": texts, "default": texts[0]})
    });
    let text = (nasty_text(), any::<bool>()).prop_map(|(text, bounded)| {
        let mut schema = json!({"type": "string", "default": text});
        if bounded {
            schema["maxLength"] = text.chars().count().into();
        }
        schema
    });
    let other = prop_oneof![
        Just(json!({})),
        Just(json!({"type": "boolean", "default": true, "readOnly": true})),
        Just(json!({"type": "array", "items": {"type": "integer"}, "default": [1, 2]})),
        Just(json!({"type": ["string", "null"], "x-min-firmware": "1.2.3"})),
        Just(json!({"enum": [1, "a", null]})),
        Just(json!({"type": "integer", "enum": [1, 5]})),
    ];
    let schema = prop_oneof![integer, number, choice, text, other];
    (schema, nasty_text(), nasty_text()).prop_map(|(mut schema, title, unit)| {
        schema["title"] = title.into();
        schema["unit"] = unit.chars().take(32).collect::<String>().into();
        schema
    })
}

/// Any definition that is taken.
pub(crate) fn arbitrary_definition() -> impl Strategy<Value = Definition> {
    let settings = prop::collection::btree_map(key(), setting(), 0..6);
    let metrics = prop::collection::btree_map(key(), nasty_text(), 0..4);
    (settings, metrics, nasty_text(), nasty_text(), any::<bool>()).prop_map(
        |(settings, metrics, title, description, claim_secret)| {
            let metric = |(name, title): (String, String)| (name, json!({"title": title}));
            let telemetry: Document = metrics.into_iter().map(metric).collect();
            let fields = json!({
                "title": title, "description": description, "settings": settings, "telemetry": telemetry,
                "claim_secret": claim_secret, "settings_expected_within": claim_secret.then_some(90),
                "schedules_in_document": !claim_secret, "telemetry_retention": claim_secret.then_some(86_400), "home_assistant": claim_secret,
            });
            Definition::parse(document(fields)).unwrap()
        },
    )
}
