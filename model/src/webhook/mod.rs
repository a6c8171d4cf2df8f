//! Webhooks as people describe them: where events go, which, and of which devices.

pub mod address;
mod endpoint;
mod headers;
mod retry;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use endpoint::{Destination, Endpoint, InvalidEndpoint};
pub use headers::Headers;
pub use retry::Retry;

use crate::{
    device::FieldErrors,
    event::EventType,
    group::GroupName,
    selector::Selector,
    serial::Serial,
    settings::{Document, Patch},
};

/// The type of the event that a test sends; nothing else has it.
pub const PING: &str = "ping";

crate::name::name! {
    /// A webhook's name: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
    WebhookName
}

/// How much a webhook may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest URL, in bytes.
    pub url: usize,
    /// The most headers.
    pub headers: usize,
}

/// Of which devices a webhook hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// Of every one.
    All,
    /// Of this one.
    Serial(Serial),
    /// Of the members of this group.
    Group(GroupName),
    /// Of those whose tags are so.
    Selector(Selector),
}

/// What a webhook says; its name and its secret stand apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDescription {
    /// Where events go.
    pub url: Endpoint,
    /// The types that it hears, each once and in the order of [`EventType::ALL`]; at least one.
    pub events: Vec<EventType>,
    /// Of which devices.
    pub devices: Devices,
    /// Whether it hears anything.
    pub enabled: bool,
    /// Further headers of each request; their values may be secrets.
    pub headers: Headers,
}

const FIELDS: [&str; 7] = [
    "url", "events", "serial", "group", "selector", "enabled", "headers",
];

impl WebhookDescription {
    /// Reads a webhook from an object; `url` and `events` are needed.
    ///
    /// # Errors
    /// A message per field that is missing, unknown or wrong.
    pub fn parse(fields: Document, limits: Limits) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let (mut url, mut events, mut devices, mut enabled, mut headers) =
            (None, None, None, true, Headers::default());
        for (field, value) in fields {
            let outcome = match (field.as_str(), value) {
                (known, Value::Null) if FIELDS.contains(&known) => Ok(()),
                ("url", Value::String(text)) => Endpoint::parse(&text, limits.url)
                    .map(|read| url = Some(read))
                    .map_err(|error| error.to_string()),
                ("events", Value::Array(items)) => types(&items).map(|read| events = Some(read)),
                ("events", _) => Err("must be a list".to_owned()),
                ("serial" | "group" | "selector", Value::String(text)) => {
                    of(&field, &text).and_then(|read| match devices.replace(read) {
                        None => Ok(()),
                        Some(_) => Err("only one of serial, group and selector".to_owned()),
                    })
                }
                ("enabled", Value::Bool(read)) => {
                    enabled = read;
                    Ok(())
                }
                ("enabled", _) => Err("must be true or false".to_owned()),
                ("headers", Value::Object(read)) => match Headers::parse(&read, limits.headers) {
                    Ok(read) => {
                        headers = read;
                        Ok(())
                    }
                    Err(wrong) => {
                        let wrong = wrong.into_iter();
                        errors.extend(wrong.map(|(name, message)| (format!("headers.{name}"), message)));
                        Ok(())
                    }
                },
                ("headers", _) => Err("must be an object".to_owned()),
                ("url" | "serial" | "group" | "selector", _) => Err("must be a text".to_owned()),
                (field, _) => Err(unknown(field).to_owned()),
            };
            if let Err(message) = outcome {
                errors.insert(field, message);
            }
        }
        let mut needed = |field: &str, given: bool| {
            if !given && !errors.contains_key(field) {
                errors.insert(field.to_owned(), "is needed".to_owned());
            }
        };
        needed("url", url.is_some());
        needed("events", events.is_some());
        match (url, events) {
            (Some(url), Some(events)) if errors.is_empty() => Ok(Self {
                url,
                events,
                devices: devices.unwrap_or(Devices::All),
                enabled,
                headers,
            }),
            _ => Err(errors),
        }
    }

    /// The webhook with a merge patch (RFC 7396) applied; `null` for a header drops it, for a field it brings the default
    /// back. One of `serial`, `group` and `selector` replaces another.
    ///
    /// # Errors
    /// A message per field that is unknown or wrong.
    pub fn patched(&self, patch: &Patch, limits: Limits) -> Result<Self, FieldErrors> {
        // A null for a field that doesn't exist would vanish in the merge, and with it the mistake.
        let mut errors = FieldErrors::new();
        for field in patch.keys().filter(|field| !FIELDS.contains(field)) {
            errors.insert(field.to_owned(), unknown(field).to_owned());
        }
        let mut fields = self.to_document();
        let devices = ["serial", "group", "selector"];
        if patch.keys().any(|key| devices.contains(&key)) {
            fields.retain(|field, _| !devices.contains(&field.as_str()));
        }
        match Self::parse(patch.apply(&fields), limits) {
            Ok(patched) if errors.is_empty() => Ok(patched),
            Ok(_) => Err(errors),
            Err(more) => Err(errors.into_iter().chain(more).collect()),
        }
    }

    /// The webhook as an object, with the values of its headers: for this program alone.
    fn to_document(&self) -> Document {
        let mut fields = self.shown();
        fields.insert("headers".to_owned(), self.headers.to_value());
        fields
    }

    /// The webhook as an object for people, without the values of its headers.
    pub fn shown(&self) -> Document {
        let events: Vec<&str> = self.events.iter().map(|kind| kind.as_str()).collect();
        let names: Vec<&str> = self.headers.names().collect();
        let mut fields = Document::from_iter([
            ("url".to_owned(), self.url.as_str().into()),
            ("events".to_owned(), events.into()),
            ("enabled".to_owned(), self.enabled.into()),
            ("headers".to_owned(), names.into()),
        ]);
        let devices = match &self.devices {
            Devices::All => None,
            Devices::Serial(serial) => Some(("serial", serial.to_string())),
            Devices::Group(group) => Some(("group", group.to_string())),
            Devices::Selector(selector) => Some(("selector", selector.to_string())),
        };
        fields.extend(devices.map(|(field, text)| (field.to_owned(), text.into())));
        fields
    }
}

fn unknown(field: &str) -> &'static str {
    match field {
        "name" => "can't be changed",
        "secret" => "is changed with POST /webhooks/{name}/secret",
        _ => "unknown field",
    }
}

/// Of which devices, by the field's own rule.
fn of(field: &str, text: &str) -> Result<Devices, String> {
    match field {
        "serial" => text
            .parse()
            .map(Devices::Serial)
            .map_err(|error: crate::serial::InvalidSerial| error.to_string()),
        "group" => text
            .parse()
            .map(Devices::Group)
            .map_err(|error: crate::group::InvalidName| error.to_string()),
        _ => text
            .parse()
            .map(Devices::Selector)
            .map_err(|error: crate::selector::InvalidSelector| error.to_string()),
    }
}

/// The types of a list, each once.
fn types(items: &[Value]) -> Result<Vec<EventType>, String> {
    let mut wanted = Vec::new();
    for item in items {
        let text = item.as_str().ok_or("must be a list of texts")?;
        match text.parse::<EventType>() {
            Ok(EventType::Telemetry) => {
                return Err(
                    "telemetry is too much for webhooks: read it over REST or MQTT, or follow GET /events"
                        .to_owned(),
                );
            }
            Ok(kind) => wanted.push(kind),
            Err(_) => {
                let known: Vec<_> = possible().map(EventType::as_str).collect();
                return Err(format!(
                    "{text:?} is no type of event; known: {}",
                    known.join(", ")
                ));
            }
        }
    }
    if wanted.is_empty() {
        return Err("at least one".to_owned());
    }
    Ok(possible().filter(|kind| wanted.contains(kind)).collect())
}

/// The types that a webhook may hear.
fn possible() -> impl Iterator<Item = EventType> {
    let all = EventType::ALL.iter().copied();
    all.filter(|kind| *kind != EventType::Telemetry)
}
