//! What a change of a model means: for its history, and for values that are stored already.

use serde_json::{Value, json};

use super::Definition;
use crate::settings::{
    Document, KeyErrors, Schema,
    diff::{self as values, Diff},
};

/// What changed from `before` to `after`: `{"title": {"from", "to"}, "settings": {"reportInterval": {"from", "to"}}}`;
/// empty if nothing did. Without `before` all of it is new.
pub fn diff(before: Option<&Definition>, after: &Definition) -> Document {
    let before = before.map(Definition::to_document).unwrap_or_default();
    let fields = values::diff(&before, &after.to_document());
    let fields = fields.into_iter().map(|(field, change)| {
        let inner = match (&change.from, &change.to) {
            (Some(Value::Object(from)), Some(Value::Object(to))) => json!(values::diff(from, to)),
            _ => json!(change),
        };
        (field, inner)
    });
    fields.collect()
}

/// What changed as it was, and as it is: the two sides of a [`diff`] between two definitions.
pub fn sides(diff: &Document) -> (Document, Document) {
    let side = |name: &str| {
        let fields = diff.iter().map(|(field, change)| {
            let inner = match (field.as_str(), change) {
                ("settings" | "telemetry", Value::Object(keys)) => {
                    let keys = keys
                        .iter()
                        .map(|(key, change)| (key.clone(), change.get(name).cloned().unwrap_or_default()));
                    Value::Object(keys.collect())
                }
                _ => change.get(name).cloned().unwrap_or_default(),
            };
            (field.clone(), inner)
        });
        fields.collect::<Document>()
    };
    (side("from"), side("to"))
}

/// The settings whose schema is not the same any more, or which are gone: the only ones whose stored values may have
/// become invalid.
pub fn changed_settings(before: &Definition, after: &Definition) -> Vec<String> {
    let changes: Diff = values::diff(&before.settings, &after.settings);
    let there = changes.into_iter().filter(|(_, change)| change.from.is_some());
    there.map(|(key, _)| key).collect()
}

/// What becomes of stored values that the new schema doesn't take.
#[derive(Debug)]
pub struct Migration<'a> {
    schema: &'a Schema,
    changed: &'a [String],
    values: &'a Document,
}

impl<'a> Migration<'a> {
    /// The values under `changed` keys are to fit `schema`; `values` says for a key what one that doesn't is replaced
    /// by, `null` standing for "dropped".
    ///
    /// # Errors
    /// A message per key of `values` that would not help: it didn't change, or its value doesn't fit either.
    pub fn new(schema: &'a Schema, changed: &'a [String], values: &'a Document) -> Result<Self, KeyErrors> {
        let mut errors = KeyErrors::new();
        for (key, value) in values {
            let outcome = match (changed.contains(key), value) {
                (false, _) => Err("no stored value of it can have become invalid".to_owned()),
                (true, Value::Null) => Ok(()),
                (true, value) => schema.check_value(key, value),
            };
            if let Err(message) = outcome {
                errors.insert(key.clone(), message);
            }
        }
        if errors.is_empty() {
            Ok(Self {
                schema,
                changed,
                values,
            })
        } else {
            Err(errors)
        }
    }

    /// The same for what a group or a schedule sets, which may be meant for other models: only what `before` accepted can have become
    /// invalid.
    ///
    /// # Errors
    /// As for [`Self::apply`].
    pub fn apply_to_shared(
        &self,
        before: &Schema,
        settings: &Document,
    ) -> Result<Option<Document>, KeyErrors> {
        let meant = before.accepted(settings);
        let Some(migrated) = self.apply(&meant)? else {
            return Ok(None);
        };
        let mut settings = settings.clone();
        for key in meant.keys() {
            match migrated.get(key) {
                None => settings.remove(key),
                Some(value) => settings.insert(key.clone(), value.clone()),
            };
        }
        Ok(Some(settings))
    }

    /// What is to be stored instead of `stored`; `None` if it may stay as it is.
    ///
    /// # Errors
    /// A message per key whose value doesn't fit and has no replacement.
    pub fn apply(&self, stored: &Document) -> Result<Option<Document>, KeyErrors> {
        let mut errors = KeyErrors::new();
        let mut migrated = None;
        for key in self.changed {
            let Some(value) = stored.get(key) else { continue };
            let Err(message) = self.schema.check_value(key, value) else {
                continue;
            };
            match self.values.get(key) {
                None => {
                    errors.insert(key.clone(), message);
                }
                Some(replacement) => {
                    let document: &mut Document = migrated.get_or_insert_with(|| stored.clone());
                    if replacement.is_null() {
                        document.remove(key);
                    } else {
                        document.insert(key.clone(), replacement.clone());
                    }
                }
            }
        }
        if errors.is_empty() {
            Ok(migrated)
        } else {
            Err(errors)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{models::testing::arbitrary_definition, settings::testing::document};

    fn definition(settings: Value) -> Definition {
        Definition::parse(document(json!({"title": "t", "settings": settings}))).unwrap()
    }

    #[test]
    fn a_diff_names_each_setting() {
        let before = definition(json!({"a": {"type": "integer"}, "b": {}, "c": {"maximum": 5}}));
        let mut after = definition(json!({"a": {"type": "string"}, "c": {"maximum": 5.0}, "d": {}}));
        after.claim_secret = true;
        assert_eq!(
            Value::Object(diff(Some(&before), &after)),
            json!({
                "claim_secret": {"from": false, "to": true},
                "settings": {
                    "a": {"from": {"type": "integer"}, "to": {"type": "string"}},
                    "b": {"from": {}, "to": null},
                    "d": {"from": null, "to": {}},
                },
            })
        );
        let (from, to) = sides(&diff(Some(&before), &after));
        assert_eq!(
            json!([from, to]),
            json!([
                {"claim_secret": false, "settings": {"a": {"type": "integer"}, "b": {}, "d": null}},
                {"claim_secret": true, "settings": {"a": {"type": "string"}, "b": null, "d": {}}},
            ])
        );
        assert_eq!(changed_settings(&before, &after), ["a", "b"]);
        assert!(diff(Some(&before), &before).is_empty());
        assert_eq!(diff(None, &before)["title"], json!({"from": null, "to": "t"}));
    }

    #[test]
    fn values_are_kept_replaced_dropped_or_refused() {
        let after =
            definition(json!({"a": {"maximum": 5}, "b": {"type": "string"}, "r": {"readOnly": true}}));
        let schema = Schema::compile(&after.settings).unwrap();
        let changed: Vec<String> = ["a", "b", "gone", "r"].map(str::to_owned).into();
        let none = Document::new();
        let migration = Migration::new(&schema, &changed, &none).unwrap();
        assert_eq!(migration.apply(&document(json!({"a": 5, "other": 1}))), Ok(None));
        assert_eq!(
            json!(
                migration
                    .apply(&document(json!({"a": 6, "b": "x", "gone": 1, "r": 1})))
                    .unwrap_err()
            ),
            json!({"a": "must be at most 5", "gone": "unknown setting", "r": "is read-only: the model's default alone sets it"})
        );
        let values = document(json!({"a": 5, "gone": null, "b": "none"}));
        let migration = Migration::new(&schema, &changed, &values).unwrap();
        assert_eq!(
            migration.apply(&document(json!({"a": 6, "b": 7, "gone": 1, "other": 1}))),
            Ok(Some(document(json!({"a": 5, "b": "none", "other": 1}))))
        );
        assert_eq!(migration.apply(&document(json!({"a": 4, "b": "y"}))), Ok(None));
        let before = definition(json!({"a": {"maximum": 9}, "b": {"type": "integer"}}));
        let before = Schema::compile(&before.settings).unwrap();
        assert_eq!(
            migration.apply_to_shared(&before, &document(json!({"a": 6, "b": "for others", "c": 1}))),
            Ok(Some(document(json!({"a": 5, "b": "for others", "c": 1}))))
        );
        assert_eq!(
            migration.apply_to_shared(&before, &document(json!({"a": 10, "gone": 1}))),
            Ok(None)
        );
        let useless = document(json!({"a": 9, "gone": 1, "other": 2, "r": 1}));
        assert_eq!(
            json!(Migration::new(&schema, &changed, &useless).unwrap_err()),
            json!({
                "a": "must be at most 5", "gone": "unknown setting",
                "other": "no stored value of it can have become invalid",
                "r": "is read-only: the model's default alone sets it",
            })
        );
    }

    proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
            /// Whatever a migration leaves behind fits, and what fitted is left alone.
            #[test]
            fn what_is_left_fits(
                before in arbitrary_definition(),
                after in arbitrary_definition(),
                stored in prop::collection::btree_map("[a-d]", (-20_i64..20).prop_map(Value::from), 0..4),
            ) {
                let schema = Schema::compile(&after.settings).unwrap();
                let stored: Document = stored.into_iter().collect();
                let changed = changed_settings(&before, &after);
                let drop: Document = changed.iter().map(|key| (key.clone(), Value::Null)).collect();
                let migration = Migration::new(&schema, &changed, &drop).unwrap();
                let left = migration.apply(&stored).unwrap().unwrap_or_else(|| stored.clone());
                for (key, value) in &stored {
                    let fits = schema.check_value(key, value).is_ok();
                    prop_assert_eq!(left.contains_key(key), fits || !changed.contains(key));
                    if let Some(kept) = left.get(key) {
                        prop_assert_eq!(kept, value);
                    }
                }
            }
        }
}
