//! Taking a change back on one device: only where its keys still are as the change left them.

use crate::settings::{Document, document::same};

/// What taking back comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undo {
    /// What is to be set on the device itself.
    pub overrides: Document,
    /// Keys that somebody changed since: they stay as they are.
    pub kept: Vec<String>,
}

/// The part of a device's overrides that a patch with these keys concerns.
pub fn part<'a>(overrides: &Document, keys: impl Iterator<Item = &'a str>) -> Document {
    keys.filter_map(|key| Some((key.to_owned(), overrides.get(key)?.clone())))
        .collect()
}

/// Takes a change back that turned `before` into `after` (each the [`part`] it concerns), where `now` is set today.
///
/// A key that is neither as the change left it nor as it was before was changed since, and stays.
pub fn undo(before: &Document, after: &Document, now: &Document) -> Undo {
    let mut undone = Undo {
        overrides: now.clone(),
        kept: Vec::new(),
    };
    let added = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(added) {
        let (old, new, present) = (before.get(key), after.get(key), now.get(key));
        if equal(old, new) || equal(present, old) {
            continue;
        }
        if !equal(present, new) {
            undone.kept.push(key.clone());
        } else if let Some(old) = old {
            undone.overrides.insert(key.clone(), old.clone());
        } else {
            undone.overrides.remove(key);
        }
    }
    undone
}

fn equal(one: Option<&serde_json::Value>, other: Option<&serde_json::Value>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => same(one, other),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::settings::{
        Patch,
        testing::{arbitrary_document, document},
    };

    #[test]
    fn what_was_changed_since_stays() {
        let before = document(json!({"a": 1, "b": 1, "d": 4}));
        let after = document(json!({"a": 2, "b": 2, "c": 2}));
        let now = document(json!({"a": 2, "b": 3, "c": 2, "x": 9}));
        let undone = undo(&before, &after, &now);
        assert_eq!(
            undone.overrides,
            document(json!({"a": 1, "b": 3, "d": 4, "x": 9}))
        );
        assert_eq!(undone.kept, ["b"]);
    }

    proptest! {
        #[test]
        fn undoes_exactly_what_the_patch_did(overrides in arbitrary_document(), patch in arbitrary_document()) {
            let patch = Patch::from(patch);
            let changed = patch.apply(&overrides);
            let (before, after) = (part(&overrides, patch.keys()), part(&changed, patch.keys()));
            let undone = undo(&before, &after, &changed);
            prop_assert!(undone.kept.is_empty());
            prop_assert_eq!(&undone.overrides, &overrides);
            let again = undo(&before, &after, &undone.overrides);
            prop_assert_eq!(again, undone);
        }

        #[test]
        fn touches_no_other_key_and_no_later_change(
            overrides in arbitrary_document(),
            patch in arbitrary_document(),
            later in arbitrary_document(),
        ) {
            let patch = Patch::from(patch);
            let changed = patch.apply(&overrides);
            let now = Patch::from(later).apply(&changed);
            let (before, after) = (part(&overrides, patch.keys()), part(&changed, patch.keys()));
            let undone = undo(&before, &after, &now);
            for key in overrides.keys().chain(now.keys()) {
                let concerned = patch.keys().any(|name| name == key);
                let (was, left, is) = (overrides.get(key), changed.get(key), now.get(key));
                let expected = if concerned && equal(is, left) { was } else { is };
                prop_assert!(equal(undone.overrides.get(key), expected), "{}", key);
                let named = undone.kept.contains(key);
                prop_assert_eq!(named, concerned && !equal(was, left) && !equal(is, left) && !equal(is, was), "{}", key);
            }
        }
    }
}
