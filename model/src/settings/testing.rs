//! Arbitrary documents for the property tests.

use proptest::prelude::*;
use serde_json::Value;

use super::Document;

/// The object in `value`.
pub(crate) fn document(value: Value) -> Document {
    match value {
        Value::Object(document) => document,
        other => panic!("{other} is no object"),
    }
}

/// Any JSON value, nulls and nesting included, over few keys so that they meet.
pub(crate) fn arbitrary_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        "[xy]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-e]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Any document.
pub(crate) fn arbitrary_document() -> impl Strategy<Value = Document> {
    prop::collection::btree_map("[a-e]", arbitrary_value(), 0..5).prop_map(|map| map.into_iter().collect())
}
