//! A model's settings schema: for each key a JSON Schema (draft 2020-12) of its value, compiled.

use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use super::{Document, rule};

/// Setting key to a short sentence that says which rule its value breaks.
pub type KeyErrors = BTreeMap<String, String>;

/// The message for a key that the model doesn't have.
pub const UNKNOWN: &str = "unknown setting";

/// The longest key, in bytes.
pub const MAX_KEY: usize = 64;

/// The most keys one model may have.
pub const MAX_KEYS: usize = 256;

/// A compiled schema. Costly to make (so keep it) and cheap to ask.
#[derive(Debug)]
pub struct Schema {
    settings: BTreeMap<String, Setting>,
}

#[derive(Debug)]
struct Setting {
    validator: Validator,
    schema: Value,
}

/// Why a model's `settings` are not a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchema {
    /// A key that can't be a setting's name.
    #[error("`{key}` is not a setting's name: 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter")]
    Key {
        /// The key.
        key: String,
    },
    /// More than [`MAX_KEYS`].
    #[error("more than {MAX_KEYS} settings")]
    TooMany,
    /// Not a JSON Schema of draft 2020-12, or one that refers elsewhere.
    #[error("`{key}`: {message}")]
    Setting {
        /// The setting.
        key: String,
        /// What is wrong with its schema.
        message: String,
    },
    /// The default breaks the setting's own rules.
    #[error("the default of `{key}` {message}")]
    Default {
        /// The setting.
        key: String,
        /// The rule.
        message: String,
    },
}

impl Schema {
    /// Compiles `settings`: key to JSON Schema.
    ///
    /// Patterns run on an engine without backtracking, so that no value can stall it.
    ///
    /// # Errors
    /// See [`InvalidSchema`].
    pub fn compile(settings: &Document) -> Result<Self, InvalidSchema> {
        if settings.len() > MAX_KEYS {
            return Err(InvalidSchema::TooMany);
        }
        let mut compiled = BTreeMap::new();
        for (key, schema) in settings {
            let setting = Setting::compile(key, schema)?;
            if let Some(default) = setting.default() {
                setting.check(default).map_err(|message| InvalidSchema::Default {
                    key: key.clone(),
                    message,
                })?;
            }
            compiled.insert(key.clone(), setting);
        }
        Ok(Self { settings: compiled })
    }

    /// Whether the model has this setting.
    pub fn contains(&self, key: &str) -> bool {
        self.settings.contains_key(key)
    }

    /// The settings that have a default, with it.
    pub fn defaults(&self) -> Document {
        let with_default =
            |(key, setting): (&String, &Setting)| setting.default().map(|value| (key.clone(), value.clone()));
        self.settings.iter().filter_map(with_default).collect()
    }

    /// Those of `values` that this model knows and accepts, written as [`Self::check`] writes them.
    pub fn accepted(&self, values: &Document) -> Document {
        let accept = |(key, value): (&String, &Value)| {
            let setting = self.settings.get(key)?;
            let value = setting.whole(value.clone());
            setting.check(&value).ok().map(|()| (key.clone(), value))
        };
        values.iter().filter_map(accept).collect()
    }

    /// Checks every key of `values`, and writes whole numbers as such where the schema wants an integer
    /// (60.0 becomes 60), since firmware often can't read the other form.
    ///
    /// # Errors
    /// A message per key that is unknown or whose value breaks a rule.
    pub fn check(&self, values: Document) -> Result<Document, KeyErrors> {
        let mut checked = Document::new();
        let mut errors = KeyErrors::new();
        for (key, value) in values {
            match self.settings.get(&key) {
                None => {
                    errors.insert(key, UNKNOWN.to_owned());
                }
                Some(setting) => {
                    let value = setting.whole(value);
                    match setting.check(&value) {
                        Ok(()) => {
                            checked.insert(key, value);
                        }
                        Err(message) => {
                            errors.insert(key, message);
                        }
                    }
                }
            }
        }
        if errors.is_empty() {
            Ok(checked)
        } else {
            Err(errors)
        }
    }
}

impl Setting {
    fn compile(key: &str, schema: &Value) -> Result<Self, InvalidSchema> {
        let starts_well = key.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
        let all_well = key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !(starts_well && all_well && key.len() <= MAX_KEY) {
            return Err(InvalidSchema::Key { key: key.to_owned() });
        }
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(PatternOptions::regex().size_limit(1 << 20))
            .should_validate_formats(true)
            .build(schema)
            .map_err(|error| InvalidSchema::Setting {
                key: key.to_owned(),
                message: error.to_string(),
            })?;
        Ok(Self {
            validator,
            schema: schema.clone(),
        })
    }

    fn default(&self) -> Option<&Value> {
        self.schema.get("default")
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        if self.validator.is_valid(value) {
            return Ok(());
        }
        // The most telling rule first: a wrong type also breaks others, and a list of choices says it all.
        let errors = self.validator.iter_errors(value);
        let worst = errors.min_by_key(|error| rule::rank(error.kind()));
        Err(worst.map_or_else(
            || "is not valid".to_owned(),
            |error| rule::sentence(&self.schema, &error),
        ))
    }

    fn whole(&self, value: Value) -> Value {
        let wants_integer = self.schema.get("type").and_then(Value::as_str) == Some("integer");
        match value.as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "a whole number within 53 bits")]
            Some(number)
                if wants_integer && value.is_f64() && number.fract() == 0.0 && number.abs() < 9e15 =>
            {
                Value::from(number as i64)
            }
            _ => value,
        }
    }
}

#[cfg(test)]
mod tests;
