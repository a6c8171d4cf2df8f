//! All that people say about a model.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use crate::{
    device::FieldErrors,
    settings::{
        Document, Patch, Schema,
        schema::{MAX_KEYS, UNKNOWN},
    },
    telemetry::{Kind, is_metric_name},
};

/// The longest title, in characters.
const MAX_TITLE: usize = 200;

/// The longest description, in characters.
const MAX_DESCRIPTION: usize = 2_000;

/// The longest unit, in characters.
const MAX_UNIT: usize = 32;

/// The fields of a definition.
const FIELDS: [&str; 9] = [
    "title",
    "description",
    "settings",
    "telemetry",
    "claim_secret",
    "settings_expected_within",
    "schedules_in_document",
    "telemetry_retention",
    "home_assistant",
];

/// The longest time within which a device may be expected to answer, in seconds: a year of 365 days.
const MAX_EXPECTED: i32 = 31_536_000;

/// The shortest time for which telemetry may be kept, in seconds: a day.
const MIN_RETENTION: i32 = 86_400;

/// A product type, but for its name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definition {
    /// A title for people.
    pub title: String,
    /// What people should know of it.
    pub description: String,
    /// Setting key to the JSON Schema of its value.
    pub settings: Document,
    /// Metric name to its unit, title, description and type.
    pub telemetry: Document,
    /// Whether a device must show its factory secret to be claimed.
    pub claim_secret: bool,
    /// Within how many seconds a device is expected to answer a version of its settings; `None` for the server's
    /// `settings.expected_within`.
    pub settings_expected_within: Option<i32>,
    /// Whether a device finds its schedules in its settings document, to keep them while it is offline.
    pub schedules_in_document: bool,
    /// For how many seconds telemetry of its devices is kept; `None` for the server's `telemetry.retention`.
    pub telemetry_retention: Option<i32>,
    /// Whether Home Assistant is told of the devices, by its MQTT discovery.
    pub home_assistant: bool,
}

impl Definition {
    /// Reads a definition from an object; `settings` is needed, and what else is missing or null has its default.
    ///
    /// # Errors
    /// A message per field that is missing, unknown or wrong: `settings.reportInterval`.
    pub fn parse(fields: Document) -> Result<Self, FieldErrors> {
        if fields.contains_key("settings") {
            Self::read(fields)
        } else {
            let mut errors = Self::read(fields).err().unwrap_or_default();
            errors.insert("settings".to_owned(), "is needed".to_owned());
            Err(errors)
        }
    }

    fn read(fields: Document) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let mut read = Self::default();
        for (field, value) in fields {
            let outcome = match (field.as_str(), value) {
                (known, Value::Null) if FIELDS.contains(&known) => Ok(()),
                ("title", value) => text(value, MAX_TITLE).map(|title| read.title = title),
                ("description", value) => text(value, MAX_DESCRIPTION).map(|text| read.description = text),
                ("claim_secret", Value::Bool(needed)) => {
                    read.claim_secret = needed;
                    Ok(())
                }
                ("schedules_in_document", Value::Bool(told)) => {
                    read.schedules_in_document = told;
                    Ok(())
                }
                ("home_assistant", Value::Bool(told)) => {
                    read.home_assistant = told;
                    Ok(())
                }
                ("claim_secret" | "schedules_in_document" | "home_assistant", _) => {
                    Err("must be true or false".to_owned())
                }
                ("settings_expected_within", value) => seconds(&value, 1..=MAX_EXPECTED)
                    .map(|seconds| read.settings_expected_within = Some(seconds)),
                ("telemetry_retention", value) => seconds(&value, MIN_RETENTION..=i32::MAX)
                    .map(|seconds| read.telemetry_retention = Some(seconds)),
                ("settings", Value::Object(settings)) => {
                    errors.extend(below("settings", Schema::faults(&settings)));
                    read.settings = settings;
                    Ok(())
                }
                ("telemetry", Value::Object(telemetry)) => {
                    errors.extend(below("telemetry", metrics(&telemetry)));
                    read.telemetry = telemetry;
                    Ok(())
                }
                ("settings" | "telemetry", _) => Err("must be an object".to_owned()),
                ("name", _) => Err("can't be changed".to_owned()),
                _ => Err("unknown field".to_owned()),
            };
            if let Err(message) = outcome {
                errors.insert(field, message);
            }
        }
        if errors.is_empty() { Ok(read) } else { Err(errors) }
    }

    /// The definition with a merge patch (RFC 7396) applied; `null` brings a field's default back, or removes a setting.
    ///
    /// # Errors
    /// A message per field that is unknown or wrong.
    pub fn patched(&self, patch: &Document) -> Result<Self, FieldErrors> {
        // A null for what doesn't exist would vanish in the merge, and with it the mistake.
        let mut errors = FieldErrors::new();
        for (field, value) in patch {
            let present = match field.as_str() {
                "settings" => &self.settings,
                "telemetry" => &self.telemetry,
                known if FIELDS.contains(&known) => continue,
                "name" => {
                    errors.insert(field.clone(), "can't be changed".to_owned());
                    continue;
                }
                _ => {
                    errors.insert(field.clone(), "unknown field".to_owned());
                    continue;
                }
            };
            let vanishing = value.as_object().into_iter().flatten();
            let vanishing = vanishing.filter(|(key, value)| value.is_null() && !present.contains_key(*key));
            let unknown = if field == "settings" {
                UNKNOWN
            } else {
                "unknown metric"
            };
            errors.extend(vanishing.map(|(key, _)| (format!("{field}.{key}"), unknown.to_owned())));
        }
        let merged = Patch::from(patch.clone()).apply(&self.to_document());
        match Self::read(merged) {
            Ok(patched) if errors.is_empty() => Ok(patched),
            outcome => {
                for (field, message) in outcome.err().into_iter().flatten() {
                    errors.entry(field).or_insert(message);
                }
                Err(errors)
            }
        }
    }

    /// Its fields as JSON, in the form that [`Self::parse`] reads.
    pub fn to_document(&self) -> Document {
        let fields = json!({
            "title": self.title,
            "description": self.description,
            "settings": self.settings,
            "telemetry": self.telemetry,
            "claim_secret": self.claim_secret,
            "settings_expected_within": self.settings_expected_within,
            "schedules_in_document": self.schedules_in_document,
            "telemetry_retention": self.telemetry_retention,
            "home_assistant": self.home_assistant,
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Document::new(),
        }
    }
}

fn below(field: &str, errors: FieldErrors) -> impl Iterator<Item = (String, String)> {
    errors
        .into_iter()
        .map(move |(key, message)| (format!("{field}.{key}"), message))
}

fn text(value: Value, most: usize) -> Result<String, String> {
    match value {
        Value::String(text) if text.chars().count() <= most => Ok(text),
        Value::String(_) => Err(format!("at most {most} characters")),
        _ => Err("must be a text".to_owned()),
    }
}

fn seconds(value: &Value, range: RangeInclusive<i32>) -> Result<i32, String> {
    let seconds = value.as_i64().and_then(|seconds| i32::try_from(seconds).ok());
    let seconds = seconds.filter(|seconds| range.contains(seconds));
    seconds.ok_or_else(|| {
        format!(
            "must be a whole number of seconds from {} to {}",
            range.start(),
            range.end()
        )
    })
}

/// What is wrong with each metric.
fn metrics(telemetry: &Document) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (position, (metric, fields)) in telemetry.iter().enumerate() {
        let outcome = if position >= MAX_KEYS {
            Err(format!("more than {MAX_KEYS} metrics"))
        } else if metric == "at" {
            Err("is no metric: it is the time of a sample".to_owned())
        } else if is_metric_name(metric) {
            described(fields)
        } else {
            Err(
                "is no metric's name: 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
                    .to_owned(),
            )
        };
        if let Err(message) = outcome {
            errors.insert(metric.clone(), message);
        }
    }
    errors
}

fn described(fields: &Value) -> Result<(), String> {
    let Value::Object(fields) = fields else {
        return Err("must be an object such as {\"unit\": \"°C\", \"title\": \"Temperature\"}".to_owned());
    };
    for (field, value) in fields {
        let most = match field.as_str() {
            "unit" => MAX_UNIT,
            "title" => MAX_TITLE,
            "description" => MAX_DESCRIPTION,
            "type" => match value.as_str().map(str::parse::<Kind>) {
                Some(Ok(_)) => continue,
                _ => return Err("`type` must be number, boolean or string".to_owned()),
            },
            _ => {
                return Err(format!(
                    "unknown field `{field}`; known: unit, title, description, type"
                ));
            }
        };
        if value.as_str().is_none_or(|text| text.chars().count() > most) {
            return Err(format!("`{field}` must be a text of at most {most} characters"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
