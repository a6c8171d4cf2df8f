//! Groups as people describe them: name, selector, priority and settings.

use serde_json::Value;

use crate::{
    device::FieldErrors,
    selector::Selector,
    settings::{Document, Patch},
};

pub use crate::name::InvalidName;

crate::name::name! {
    /// A group's name: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
    GroupName
}

/// What a group says.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupDescription {
    /// Which devices belong to it.
    pub selector: Selector,
    /// Of two groups that set the same key the higher priority wins, then the later name.
    pub priority: i32,
    /// What its members inherit; whether models take it is not judged here.
    pub settings: Document,
}

impl GroupDescription {
    /// Reads a group from an object; only `selector` is needed.
    ///
    /// # Errors
    /// A message per field that is missing, unknown or wrong.
    pub fn parse(fields: Document) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let (mut selector, mut priority, mut settings) = (None, 0, Document::new());
        for (field, value) in fields {
            let outcome = match (field.as_str(), value) {
                ("priority" | "settings", Value::Null) => Ok(()),
                ("selector", Value::String(text)) => text
                    .parse()
                    .map(|read| selector = Some(read))
                    .map_err(|error: crate::selector::InvalidSelector| error.to_string()),
                ("selector", _) => Err("must be a text".to_owned()),
                ("priority", value) => value
                    .as_i64()
                    .and_then(|number| i32::try_from(number).ok())
                    .map(|read| priority = read)
                    .ok_or_else(|| "must be a whole number of 32 bits".to_owned()),
                ("settings", Value::Object(read)) => {
                    settings = read;
                    Ok(())
                }
                ("settings", _) => Err("must be an object".to_owned()),
                ("name", _) => Err("can't be changed".to_owned()),
                _ => Err("unknown field".to_owned()),
            };
            if let Err(message) = outcome {
                errors.insert(field, message);
            }
        }
        match selector {
            Some(selector) if errors.is_empty() => Ok(Self {
                selector,
                priority,
                settings,
            }),
            None if !errors.contains_key("selector") => {
                errors.insert("selector".to_owned(), "is needed".to_owned());
                Err(errors)
            }
            _ => Err(errors),
        }
    }

    /// The group with a merge patch (RFC 7396) applied; `null` for a setting drops it here, for a field it brings the
    /// default back.
    ///
    /// # Errors
    /// A message per field that is unknown or wrong.
    pub fn patched(&self, patch: &Patch) -> Result<Self, FieldErrors> {
        // A null for a field that doesn't exist would vanish in the merge, and with it the mistake.
        let mut errors = FieldErrors::new();
        for field in patch
            .keys()
            .filter(|field| !matches!(*field, "selector" | "priority" | "settings"))
        {
            let message = if field == "name" {
                "can't be changed"
            } else {
                "unknown field"
            };
            errors.insert(field.to_owned(), message.to_owned());
        }
        match Self::parse(patch.apply(&self.to_document())) {
            Ok(patched) if errors.is_empty() => Ok(patched),
            Ok(_) => Err(errors),
            Err(more) => Err(errors.into_iter().chain(more).collect()),
        }
    }

    /// The group as an object, without its name.
    pub fn to_document(&self) -> Document {
        Document::from_iter([
            ("selector".to_owned(), self.selector.to_string().into()),
            ("priority".to_owned(), self.priority.into()),
            ("settings".to_owned(), Value::Object(self.settings.clone())),
        ])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::testing::document;

    fn parse(value: Value) -> Result<GroupDescription, FieldErrors> {
        GroupDescription::parse(document(value))
    }

    #[test]
    fn names_are_plain() {
        for good in ["a", "Oslo-1.floor_2", &"x".repeat(64)] {
            assert_eq!(good.parse::<GroupName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a b", "é", &"x".repeat(65), "a/b"] {
            assert_eq!(bad.parse::<GroupName>(), Err(InvalidName), "{bad}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let errors = parse(json!({"priority": 1.5, "settings": [], "colour": 1})).unwrap_err();
        let named: Vec<&str> = errors.keys().map(String::as_str).collect();
        assert_eq!(named, ["colour", "priority", "selector", "settings"]);
        assert_eq!(errors["selector"], "is needed");
        let errors = parse(json!({"selector": "a=", "priority": 3_000_000_000_i64})).unwrap_err();
        assert_eq!(
            errors["selector"],
            "expected a value at character 3, found the end"
        );
        assert_eq!(errors["priority"], "must be a whole number of 32 bits");
    }

    #[test]
    fn a_patch_merges_settings_and_null_drops_one() {
        let group = parse(json!({"selector": "a", "priority": 3, "settings": {"x": 1, "y": 2}})).unwrap();
        let patch = Patch::from(document(
            json!({"priority": null, "settings": {"x": null, "z": 3}}),
        ));
        let patched = group.patched(&patch).unwrap();
        assert_eq!(patched.priority, 0);
        assert_eq!(patched.settings, document(json!({"y": 2, "z": 3})));
        let wrong = Patch::from(document(json!({"name": "b", "colour": null, "selector": null})));
        let errors = group.patched(&wrong).unwrap_err();
        assert_eq!(errors["name"], "can't be changed");
        assert_eq!(errors["colour"], "unknown field");
        assert_eq!(errors["selector"], "is needed");
    }
}
