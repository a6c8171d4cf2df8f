//! Models in a file: what export writes and import reads.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Definition, Name};
use crate::{device::FieldErrors, settings::Document};

/// What the file says of itself, so that no other file is taken for one.
pub const FORMAT: &str = "setpoint.models/1";

/// The most models in one file.
pub const MAX_MODELS: usize = 1_000;

/// The models of a file, and what is to become of stored values that they don't take.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct File {
    /// The models by name.
    pub models: BTreeMap<Name, Definition>,
    /// Model to setting key to what replaces a value that doesn't fit any more; `null` for nothing.
    pub migrate: BTreeMap<Name, Document>,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// A message per field that is missing, unknown or wrong: `models.home.settings.reportInterval`.
    pub fn parse(mut fields: Document) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let mut file = Self::default();
        match fields.remove("format") {
            Some(Value::String(format)) if format == FORMAT => {}
            _ => {
                errors.insert("format".to_owned(), format!("must be \"{FORMAT}\""));
            }
        }
        match fields.remove("models") {
            Some(Value::Array(models)) if models.len() <= MAX_MODELS => {
                for (position, model) in models.into_iter().enumerate() {
                    if let Err(wrong) = file.add(position, model) {
                        errors.extend(wrong);
                    }
                }
            }
            _ => {
                errors.insert(
                    "models".to_owned(),
                    format!("must be a list of at most {MAX_MODELS} models"),
                );
            }
        }
        match fields.remove("migrate") {
            None | Some(Value::Null) => {}
            Some(Value::Object(migrate)) => {
                for (model, values) in migrate {
                    match (model.parse::<Name>(), values) {
                        (Ok(name), Value::Object(values)) if file.models.contains_key(&name) => {
                            file.migrate.insert(name, values);
                        }
                        (Ok(name), Value::Object(_)) => {
                            errors.insert(format!("migrate.{name}"), "is no model of this file".to_owned());
                        }
                        (Ok(name), _) => {
                            errors.insert(format!("migrate.{name}"), "must be an object".to_owned());
                        }
                        (Err(invalid), _) => {
                            errors.insert(format!("migrate.{model}"), invalid.to_string());
                        }
                    }
                }
            }
            Some(_) => {
                errors.insert("migrate".to_owned(), "must be an object".to_owned());
            }
        }
        let unknown = fields
            .into_iter()
            .map(|(field, _)| (field, "unknown field".to_owned()));
        errors.extend(unknown);
        if errors.is_empty() { Ok(file) } else { Err(errors) }
    }

    fn add(&mut self, position: usize, model: Value) -> Result<(), FieldErrors> {
        let one = |place: String, message: &str| FieldErrors::from([(place, message.to_owned())]);
        let Value::Object(mut fields) = model else {
            return Err(one(format!("models.{position}"), "must be an object"));
        };
        let name = match fields.remove("name") {
            Some(Value::String(name)) => name.parse::<Name>().map_err(|invalid| invalid.to_string()),
            Some(_) => Err("must be a text".to_owned()),
            None => Err("is needed".to_owned()),
        };
        let name = name.map_err(|message| one(format!("models.{position}.name"), &message))?;
        let definition = Definition::parse(fields).map_err(|errors| {
            let placed = errors.into_iter();
            placed
                .map(|(field, message)| (format!("models.{name}.{field}"), message))
                .collect::<FieldErrors>()
        })?;
        if self.models.contains_key(&name) {
            return Err(one(format!("models.{name}"), "stands there twice"));
        }
        self.models.insert(name, definition);
        Ok(())
    }
}

/// The file of these models, which [`File::parse`] reads as exactly the same ones.
pub fn write<'a>(models: impl IntoIterator<Item = (&'a str, &'a Definition)>) -> Value {
    let models = models.into_iter().map(|(name, definition)| {
        let mut fields = definition.to_document();
        fields.insert("name".to_owned(), name.into());
        Value::Object(fields)
    });
    json!({"format": FORMAT, "models": models.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{models::testing::arbitrary_definition, settings::testing::document};

    #[test]
    fn each_mistake_is_placed() {
        let model = json!({"name": "a", "settings": {}});
        for (file, errors) in [
            (
                json!({}),
                json!({"format": "must be \"setpoint.models/1\"", "models": "must be a list of at most 1000 models"}),
            ),
            (
                json!({"format": FORMAT, "models": [model, model, 1, {}, {"name": 1}, {"name": "B", "settings": {}}],
                       "migrate": {"a": 1, "b": {}, "C": {}}, "dry_run": true}),
                json!({
                    "models.a": "stands there twice",
                    "models.2": "must be an object",
                    "models.3.name": "is needed",
                    "models.4.name": "must be a text",
                    "models.5.name":
                        "1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit, and neither `export` nor `import`",
                    "migrate.a": "must be an object",
                    "migrate.b": "is no model of this file",
                    "migrate.C":
                        "1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit, and neither `export` nor `import`",
                    "dry_run": "unknown field",
                }),
            ),
            (
                json!({"format": FORMAT, "models": [{"name": "a", "settings": {"x": {"mininum": 1}}, "colour": 1}]}),
                json!({"models.a.settings.x": "unknown keyword `mininum`", "models.a.colour": "unknown field"}),
            ),
        ] {
            let found = File::parse(document(file.clone())).unwrap_err();
            assert_eq!(json!(found), errors, "{file}");
        }
    }

    proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
            #[test]
            fn what_is_written_is_read_again(models in prop::collection::btree_map("[a-d]", arbitrary_definition(), 0..4)) {
                let models: BTreeMap<Name, Definition> =
                    models.into_iter().map(|(name, model)| (format!("m{name}").parse().unwrap(), model)).collect();
                let text = write(models.iter().map(|(name, model)| (name.as_str(), model))).to_string();
                let read = File::parse(serde_json::from_str(&text).unwrap()).unwrap();
                prop_assert_eq!(read, File { models, ..File::default() });
            }
        }
}
