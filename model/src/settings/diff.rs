//! What changed between two documents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::{Document, same};

/// Setting key to what happened to it; keys that stayed the same are not in it.
pub type Diff = BTreeMap<String, Change>;

/// One key's change; `null` stands for "not in the document".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Change {
    /// The value before.
    #[schema(value_type = Object, nullable)]
    pub from: Option<Value>,
    /// The value after.
    #[schema(value_type = Object, nullable)]
    pub to: Option<Value>,
}

/// The difference from `from` to `to`, numbers compared as numbers.
pub fn diff(from: &Document, to: &Document) -> Diff {
    let dropped = from
        .iter()
        .filter(|(key, _)| !to.contains_key(*key))
        .map(|(key, value)| {
            (
                key.clone(),
                Change {
                    from: Some(value.clone()),
                    to: None,
                },
            )
        });
    let set = to.iter().filter_map(|(key, value)| {
        let before = from.get(key);
        let changed = before.is_none_or(|before| !same(before, value));
        changed.then(|| {
            (
                key.clone(),
                Change {
                    from: before.cloned(),
                    to: Some(value.clone()),
                },
            )
        })
    });
    dropped.chain(set).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::settings::testing::{arbitrary_document, document};

    #[test]
    fn names_exactly_what_changed() {
        let from = document(json!({"same": 60, "changed": 1, "dropped": true}));
        let to = document(json!({"same": 60.0, "changed": 2, "added": "x"}));
        assert_eq!(
            diff(&from, &to),
            Diff::from([
                (
                    "changed".into(),
                    Change {
                        from: Some(json!(1)),
                        to: Some(json!(2))
                    }
                ),
                (
                    "dropped".into(),
                    Change {
                        from: Some(json!(true)),
                        to: None
                    }
                ),
                (
                    "added".into(),
                    Change {
                        from: None,
                        to: Some(json!("x"))
                    }
                ),
            ])
        );
    }

    proptest! {
        #[test]
        fn leads_from_one_to_the_other(from in arbitrary_document(), to in arbitrary_document()) {
            let mut reached = from.clone();
            for (key, change) in diff(&from, &to) {
                prop_assert_eq!(change.from.as_ref(), from.get(&key));
                match change.to {
                    Some(value) => reached.insert(key, value),
                    None => reached.remove(&key),
                };
            }
            prop_assert_eq!(reached, to);
        }

        #[test]
        fn nothing_changes_between_equals(document in arbitrary_document()) {
            prop_assert!(diff(&document, &document).is_empty());
        }
    }
}
