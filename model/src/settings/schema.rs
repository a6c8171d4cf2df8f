//! A model's settings schema: for each key a JSON Schema (draft 2020-12) of its value, compiled.

use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use super::{Document, rule};
use crate::schedule::DOCUMENT_KEY;

pub mod keywords;

/// Setting key to a short sentence that says which rule its value breaks.
pub type KeyErrors = BTreeMap<String, String>;

/// The message for a key that the model doesn't have.
pub const UNKNOWN: &str = "unknown setting";

/// The message for a key that is read-only.
pub const READ_ONLY: &str = "is read-only: the model's default alone sets it";

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
    read_only: bool,
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
    /// A key that settings documents need for themselves.
    #[error("`{key}` is where a device finds its schedules")]
    Reserved {
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

impl InvalidSchema {
    /// The message without the setting's name.
    fn into_message(self) -> String {
        match self {
            Self::Key { .. } => {
                "is no setting's name: 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter".to_owned()
            }
            Self::Setting { message, .. } => message,
            Self::Default { message, .. } => format!("its default {message}"),
            Self::Reserved { .. } => "is where a device finds its schedules".to_owned(),
            too_many @ Self::TooMany => too_many.to_string(),
        }
    }
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
            if key == DOCUMENT_KEY {
                return Err(InvalidSchema::Reserved { key: key.clone() });
            }
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

    /// What is wrong with each of the schemas of a model: also what is none of the known [`keywords`].
    pub fn faults(settings: &Document) -> KeyErrors {
        let mut errors = KeyErrors::new();
        let mut patterns = 0_usize;
        for (position, (key, schema)) in settings.iter().enumerate() {
            let outcome = match keywords::check(schema) {
                _ if position >= MAX_KEYS => Err(format!("more than {MAX_KEYS} settings")),
                Ok(more) if patterns.saturating_add(more) > keywords::MAX_PATTERNS => Err(format!(
                    "more than {} patterns in one model",
                    keywords::MAX_PATTERNS
                )),
                Ok(more) => {
                    patterns = patterns.saturating_add(more);
                    let alone = Document::from_iter([(key.clone(), schema.clone())]);
                    Self::compile(&alone)
                        .map(drop)
                        .map_err(InvalidSchema::into_message)
                }
                Err(message) => Err(message),
            };
            if let Err(message) = outcome {
                errors.insert(key.clone(), message);
            }
        }
        errors
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
            let setting = self.settings.get(key).filter(|setting| !setting.read_only)?;
            let value = setting.whole(value.clone());
            setting.check(&value).ok().map(|()| (key.clone(), value))
        };
        values.iter().filter_map(accept).collect()
    }

    /// Checks what anything but the model's default may set under one key.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check_value(&self, key: &str, value: &Value) -> Result<(), String> {
        match self.settings.get(key) {
            None => Err(UNKNOWN.to_owned()),
            Some(setting) if setting.read_only => Err(READ_ONLY.to_owned()),
            Some(setting) => setting.check(&setting.whole(value.clone())),
        }
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
                Some(setting) if setting.read_only => {
                    errors.insert(key, READ_ONLY.to_owned());
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
            read_only: schema.get(keywords::READ_ONLY) == Some(&Value::Bool(true)),
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
