//! Devices as people describe them: serial, name, model, tags, time zone and location.

use std::{collections::BTreeMap, fmt};

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::{
    serial::Serial,
    settings::{Document, Patch},
};

/// The model of a device that is made without one.
pub const DEFAULT_MODEL: &str = "home";
/// The longest name, in characters.
pub const MAX_NAME: usize = 200;
/// The most tags of one device.
pub const MAX_TAGS: usize = 32;
/// The longest tag name, in bytes.
pub const MAX_TAG_NAME: usize = 64;
/// The longest text of a tag, in characters.
pub const MAX_TAG_TEXT: usize = 200;
/// The longest location, in characters or in bytes of JSON.
pub const MAX_LOCATION: usize = 500;

/// A field to a short sentence that says what is wrong with it.
pub type FieldErrors = BTreeMap<String, String>;

/// The database's own id of a device, never shown outside. A serial that was deleted and made again gets another
/// one, so nothing of the former device can be seen through the new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub i64);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What people say about a device; all but the serial may change.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// A name for people; may be empty.
    pub name: String,
    /// The model's name; whether there is such a model is the store's to say.
    pub model: String,
    /// By which groups select it.
    pub tags: Tags,
    /// Where its schedules take their time from.
    pub time_zone: Tz,
    /// Where it is: a text, or an object such as `{"latitude": 59.9, "longitude": 10.7}`.
    pub location: Option<Value>,
}

/// Up to [`MAX_TAGS`] names, each with a short text, a number or a boolean.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Tags(BTreeMap<String, TagValue>);

/// The value of a tag.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TagValue {
    /// A text.
    Text(String),
    /// A number.
    Number(Number),
    /// A boolean.
    Flag(bool),
}

/// A device to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDevice {
    /// Its serial.
    pub serial: Serial,
    /// The rest.
    pub description: Description,
}

impl NewDevice {
    /// Reads a device from an object; only `serial` is needed.
    ///
    /// # Errors
    /// A message per field that is missing, unknown or wrong.
    pub fn parse(mut fields: Document) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let serial = match fields.remove("serial") {
            None => Err("is needed".to_owned()),
            Some(Value::String(text)) => text.parse::<Serial>().map_err(|error| error.to_string()),
            Some(_) => Err("must be a text".to_owned()),
        };
        let serial = serial.map_err(|message| errors.insert("serial".to_owned(), message));
        let description = Description::parse(fields);
        match (serial, description) {
            (Ok(serial), Ok(description)) => Ok(Self { serial, description }),
            (_, description) => {
                errors.extend(description.err().into_iter().flatten());
                Err(errors)
            }
        }
    }
}

impl Description {
    /// Reads the fields; one that is missing or null has its default.
    fn parse(fields: Document) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let mut read = Self::default();
        for (field, value) in fields {
            let outcome = match (field.as_str(), value) {
                ("name" | "model" | "tags" | "time_zone" | "location", Value::Null) => Ok(()),
                ("name", value) => text(value, MAX_NAME).map(|name| read.name = name),
                ("model", value) => model_name(value).map(|model| read.model = model),
                ("tags", value) => Tags::parse(value).map(|tags| read.tags = tags),
                ("time_zone", value) => time_zone(value).map(|zone| read.time_zone = zone),
                ("location", value) => location(value).map(|location| read.location = Some(location)),
                ("serial", _) => Err("can't be changed".to_owned()),
                _ => Err("unknown field".to_owned()),
            };
            if let Err(message) = outcome {
                errors.insert(field, message);
            }
        }
        if errors.is_empty() { Ok(read) } else { Err(errors) }
    }

    /// The description with a merge patch (RFC 7396) applied; `null` brings a field's default back.
    ///
    /// # Errors
    /// A message per field that is unknown or wrong.
    pub fn patched(&self, patch: &Patch) -> Result<Self, FieldErrors> {
        // A null for a field that doesn't exist would vanish in the merge, and with it the mistake.
        let unknown = |field: &&str| !matches!(*field, "name" | "model" | "tags" | "time_zone" | "location");
        let errors: FieldErrors = patch
            .keys()
            .filter(unknown)
            .map(|field| {
                let message = if field == "serial" {
                    "can't be changed"
                } else {
                    "unknown field"
                };
                (field.to_owned(), message.to_owned())
            })
            .collect();
        match Self::parse(patch.apply(&self.to_document())) {
            Ok(patched) if errors.is_empty() => Ok(patched),
            Ok(_) => Err(errors),
            Err(more) => Err(errors.into_iter().chain(more).collect()),
        }
    }

    fn to_document(&self) -> Document {
        let mut fields = Document::new();
        fields.insert("name".to_owned(), self.name.clone().into());
        fields.insert("model".to_owned(), self.model.clone().into());
        fields.insert("tags".to_owned(), self.tags.to_json());
        fields.insert("time_zone".to_owned(), self.time_zone.name().into());
        if let Some(location) = &self.location {
            fields.insert("location".to_owned(), location.clone());
        }
        fields
    }
}

impl Default for Description {
    fn default() -> Self {
        Self {
            name: String::new(),
            model: DEFAULT_MODEL.to_owned(),
            tags: Tags::default(),
            time_zone: Tz::UTC,
            location: None,
        }
    }
}

impl Tags {
    /// Reads tags from an object.
    ///
    /// # Errors
    /// A sentence that names the first tag that is wrong.
    pub fn parse(value: Value) -> Result<Self, String> {
        let Value::Object(entries) = value else {
            return Err("must be an object".to_owned());
        };
        if entries.len() > MAX_TAGS {
            return Err(format!("at most {MAX_TAGS} tags"));
        }
        let mut tags = BTreeMap::new();
        for (name, value) in entries {
            if !is_tag_name(&name) {
                return Err(format!(
                    "a tag's name is 1 to {MAX_TAG_NAME} of A-Z a-z 0-9 . _ -"
                ));
            }
            let value = match value {
                Value::String(text) if text.chars().count() <= MAX_TAG_TEXT => TagValue::Text(text),
                Value::String(_) => return Err(format!("{name}: at most {MAX_TAG_TEXT} characters")),
                Value::Number(number) => TagValue::Number(number),
                Value::Bool(flag) => TagValue::Flag(flag),
                _ => return Err(format!("{name}: must be a text, a number, true or false")),
            };
            tags.insert(name, value);
        }
        Ok(Self(tags))
    }

    /// The value of the tag of this name.
    pub fn get(&self, name: &str) -> Option<&TagValue> {
        self.0.get(name)
    }

    /// The tags as an object.
    pub fn to_json(&self) -> Value {
        let value = |value: &TagValue| match value {
            TagValue::Text(text) => Value::from(text.clone()),
            TagValue::Number(number) => Value::Number(number.clone()),
            TagValue::Flag(flag) => Value::from(*flag),
        };
        Value::Object(
            self.0
                .iter()
                .map(|(name, tag)| (name.clone(), value(tag)))
                .collect(),
        )
    }
}

/// Whether a tag may have this name: 1 to [`MAX_TAG_NAME`] of `A-Z a-z 0-9 . _ -`.
pub(crate) fn is_tag_name(name: &str) -> bool {
    let well = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= MAX_TAG_NAME && name.bytes().all(well)
}

fn text(value: Value, max: usize) -> Result<String, String> {
    match value {
        Value::String(text) if text.chars().count() <= max => Ok(text),
        Value::String(_) => Err(format!("at most {max} characters")),
        _ => Err("must be a text".to_owned()),
    }
}

fn model_name(value: Value) -> Result<String, String> {
    text(value, 64)
}

fn time_zone(value: Value) -> Result<Tz, String> {
    let wrong = || "must be an IANA time zone such as \"Europe/Oslo\"".to_owned();
    match value {
        Value::String(name) => name.parse().map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

fn location(value: Value) -> Result<Value, String> {
    match &value {
        Value::String(text) if text.chars().count() <= MAX_LOCATION => Ok(value),
        Value::String(_) => Err(format!("at most {MAX_LOCATION} characters")),
        Value::Object(fields) => {
            for (name, limit) in [("latitude", 90.0), ("longitude", 180.0)] {
                let coordinate = fields
                    .get(name)
                    .map(|value| value.as_f64().unwrap_or(f64::INFINITY));
                if coordinate.is_some_and(|degrees| degrees.abs() > limit) {
                    return Err(format!("{name}: must be from -{limit} to {limit}"));
                }
            }
            if value.to_string().len() > MAX_LOCATION {
                return Err(format!("at most {MAX_LOCATION} bytes"));
            }
            Ok(value)
        }
        _ => Err("must be a text, or an object with latitude and longitude".to_owned()),
    }
}

#[cfg(test)]
mod tests;
