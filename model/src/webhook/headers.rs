//! Further headers of a webhook's requests.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use crate::{device::FieldErrors, settings::Document};

/// The longest name and the longest value, in bytes.
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 1_024;

/// What the request itself, the connection and the signature need.
const RESERVED: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "accept-encoding",
];

/// Names in lower case, and values, which may be secrets: they are never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers(BTreeMap<String, String>);

impl Headers {
    /// Reads headers, at most `most`.
    ///
    /// # Errors
    /// A message per header that is wrong.
    pub fn parse(fields: &Document, most: usize) -> Result<Self, FieldErrors> {
        let (mut headers, mut errors) = (BTreeMap::new(), FieldErrors::new());
        for (name, value) in fields {
            let lower = name.to_ascii_lowercase();
            let outcome = match value {
                _ if !is_token(name) => Err("a name is 1 to 64 of letters, digits and - _ .".to_owned()),
                _ if RESERVED.contains(&lower.as_str()) || lower.starts_with("webhook-") => {
                    Err("is set by the server".to_owned())
                }
                Value::String(text) if is_value(text) => match headers.insert(lower, text.clone()) {
                    None => Ok(()),
                    Some(_) => Err("is given twice".to_owned()),
                },
                Value::String(_) => Err(format!(
                    "a value is at most {MAX_VALUE} visible ASCII characters and spaces, neither first nor last a space"
                )),
                _ => Err("must be a text".to_owned()),
            };
            if let Err(message) = outcome {
                errors.insert(name.chars().take(MAX_NAME).collect(), message);
            }
        }
        if headers.len() > most {
            let message = format!("more than {most} headers: webhooks.max_headers");
            errors.insert("*".to_owned(), message);
        }
        if errors.is_empty() {
            Ok(Self(headers))
        } else {
            Err(errors)
        }
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Names with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// As an object.
    pub fn to_value(&self) -> Value {
        let fields = self.0.iter();
        Value::Object(
            fields
                .map(|(name, value)| (name.clone(), value.as_str().into()))
                .collect(),
        )
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn is_token(name: &str) -> bool {
    let well = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(well)
}

fn is_value(text: &str) -> bool {
    text.len() <= MAX_VALUE && text.bytes().all(|b| (b' '..=b'~').contains(&b)) && text.trim() == text
}
