//! Merge patches (RFC 7396) on a device's own settings.

use serde_json::Value;

use super::document::{self, Document, Limits, Malformed};

/// A merge patch: a value sets a key, `null` drops it so that the inherited value returns, and a key that
/// isn't named stays as it is. A setting whose value is an object is patched within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch(Document);

impl Patch {
    /// Reads a patch.
    ///
    /// # Errors
    /// [`Malformed`] for anything but a JSON object within the limits.
    pub fn parse(text: &[u8], limits: Limits) -> Result<Self, Malformed> {
        document::parse(text, limits).map(Self)
    }

    /// The keys it names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// `target` with this patch applied: RFC 7396 section 2, `MergePatch`.
    pub fn apply(&self, target: &Document) -> Document {
        let mut merged = target.clone();
        merge(&mut merged, &self.0);
        merged
    }
}

impl From<Document> for Patch {
    fn from(document: Document) -> Self {
        Self(document)
    }
}

fn merge(target: &mut Document, patch: &Document) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(inner) => {
                let slot = target.entry(key.as_str()).or_insert(Value::Null);
                if let Value::Object(present) = slot {
                    merge(present, inner);
                } else {
                    let mut fresh = Document::new();
                    merge(&mut fresh, inner);
                    *slot = Value::Object(fresh);
                }
            }
            value => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::settings::testing::{arbitrary_document, arbitrary_value, document};

    #[test]
    fn the_examples_of_rfc_7396_appendix_a() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
            (json!({"a": 1}), json!({"a": {"b": 2}}), json!({"a": {"b": 2}})),
        ] {
            let merged = Patch::from(document(patch.clone())).apply(&document(target.clone()));
            assert_eq!(Value::Object(merged), result, "{target} patched with {patch}");
        }
    }

    /// The RFC's pseudo code, written down a second time over plain values.
    fn reference(target: Option<Value>, patch: &Value) -> Value {
        let Value::Object(patch) = patch else {
            return patch.clone();
        };
        let mut result = match target {
            Some(Value::Object(target)) => target,
            _ => Document::new(),
        };
        for (name, value) in patch {
            if value.is_null() {
                result.remove(name);
            } else {
                let merged = reference(result.get(name).cloned(), value);
                result.insert(name.clone(), merged);
            }
        }
        Value::Object(result)
    }

    proptest! {
        #[test]
        fn agrees_with_the_rfc(target in arbitrary_document(), patch in arbitrary_document()) {
            let merged = Patch::from(patch.clone()).apply(&target);
            prop_assert_eq!(Value::Object(merged), reference(Some(target.into()), &patch.into()));
        }

        #[test]
        fn applying_twice_is_applying_once(target in arbitrary_document(), patch in arbitrary_document()) {
            let patch = Patch::from(patch);
            let once = patch.apply(&target);
            prop_assert_eq!(patch.apply(&once), once);
        }

        #[test]
        fn the_empty_patch_changes_nothing(target in arbitrary_document()) {
            prop_assert_eq!(Patch::from(Document::new()).apply(&target), target);
        }

        #[test]
        fn only_named_keys_change(target in arbitrary_document(), key in "[a-e]", value in arbitrary_value()) {
            let patch = Patch::from(Document::from_iter([(key.clone(), value.clone())]));
            let merged = patch.apply(&target);
            for name in target.keys().filter(|name| **name != key) {
                prop_assert_eq!(merged.get(name), target.get(name));
            }
            prop_assert_eq!(merged.contains_key(&key), !value.is_null());
        }
    }
}
