//! A device's acknowledgement of a settings version (`devices/{serial}/settings/ack`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Status,
    document::{self, Document, Limits, Malformed},
};

/// The longest message a device may give for one key, in characters.
pub const MAX_MESSAGE: usize = 500;

/// What a device says about one key that it did not apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object of `code` and `message`")]
pub struct KeyError {
    /// The device's own code; 400 by habit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// The device's own words.
    #[serde(default)]
    pub message: String,
}

impl KeyError {
    /// What to show people: the message, or the code where there is none.
    pub fn text(&self) -> String {
        match (self.message.as_str(), self.code) {
            ("", Some(code)) => format!("code {code}"),
            ("", None) => "refused by the device".to_owned(),
            (message, _) => message.to_owned(),
        }
    }
}

/// Setting key to the device's reason for not applying it.
pub type Errors = BTreeMap<String, KeyError>;

/// An acknowledgement, well formed but not yet held against what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The version it acknowledges.
    pub version: i64,
    /// What the device now runs; `None` says "exactly that version".
    pub settings: Option<Document>,
    /// What it did not apply.
    pub errors: Errors,
}

/// Why an acknowledgement counts for nothing. The text is what the device's timeline shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not a JSON object within the limits.
    #[error("the acknowledgement is {0}")]
    Malformed(Malformed),
    /// A JSON object of another shape.
    #[error("the acknowledgement is not of the documented shape: {0}")]
    Shape(String),
    /// A version that does not exist yet.
    #[error("version {version} does not exist yet: the newest is {current}")]
    Future {
        /// The version acknowledged.
        version: i64,
        /// The newest one.
        current: i64,
    },
    /// A version from before the device's first one, perhaps of a deleted device of the same serial.
    #[error("version {version} was never this device's: its first is {first}")]
    NeverIssued {
        /// The version acknowledged.
        version: i64,
        /// The device's first.
        first: i64,
    },
    /// Older than one that was acknowledged already.
    #[error("version {version} is stale: {last} was acknowledged already")]
    Stale {
        /// The version acknowledged.
        version: i64,
        /// The last one acknowledged before.
        last: i64,
    },
    /// Keys that the device's model doesn't have.
    #[error("unknown settings: {}", keys.join(", "))]
    UnknownKeys {
        /// The keys, in order.
        keys: Vec<String>,
    },
}

impl Rejection {
    /// A short stable name, for metrics and programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(Malformed::TooLarge { .. }) => "too_large",
            Self::Malformed(_) => "malformed",
            Self::Shape(_) => "shape",
            Self::Future { .. } => "future_version",
            Self::NeverIssued { .. } => "never_issued",
            Self::Stale { .. } => "stale",
            Self::UnknownKeys { .. } => "unknown_keys",
        }
    }
}

/// What an acknowledgement is held against.
#[derive(Debug, Clone, Copy)]
pub struct Issued {
    /// The device's first version.
    pub first: i64,
    /// Its newest version.
    pub current: i64,
    /// The last version it acknowledged.
    pub acknowledged: Option<i64>,
}

impl Ack {
    /// Reads an acknowledgement; `limits` are those of a settings document.
    ///
    /// # Errors
    /// [`Rejection::Malformed`] and [`Rejection::Shape`].
    pub fn parse(text: &[u8], limits: Limits) -> Result<Self, Rejection> {
        #[derive(Deserialize)]
        // A misspelt `errors` would turn a refusal into silence, so nothing unknown is let pass.
        #[serde(deny_unknown_fields)]
        struct Shape {
            version: i64,
            settings: Option<Document>,
            errors: Option<Errors>,
        }
        let text = document::parse(text, limits.of_ack()).map_err(Rejection::Malformed)?;
        let Shape {
            version,
            settings,
            errors,
        } = serde_json::from_value(Value::Object(text))
            .map_err(|error| Rejection::Shape(error.to_string()))?;
        if version < 1 {
            return Err(Rejection::Shape("`version` begins with 1".to_owned()));
        }
        let errors = errors.unwrap_or_default();
        if let Some((key, _)) = errors
            .iter()
            .find(|(_, error)| error.message.chars().count() > MAX_MESSAGE)
        {
            let key: String = key.chars().take(64).collect();
            return Err(Rejection::Shape(format!(
                "the message for `{key}` is over {MAX_MESSAGE} characters"
            )));
        }
        Ok(Self {
            version,
            settings,
            errors,
        })
    }

    /// What the device runs by its own account: `settings`, or without them the acknowledged version less what it
    /// refused. For a key whose value changed since that version, what it `reported` before stands.
    pub fn running(&self, reported: Option<&Document>, document: &Document, status: &Status) -> Document {
        if let Some(settings) = &self.settings {
            return settings.clone();
        }
        let keys = document.iter().filter_map(|(key, wanted)| {
            let stood = status
                .get(key)
                .is_some_and(|status| status.version <= self.version);
            let value = if stood && !self.errors.contains_key(key) {
                Some(wanted)
            } else {
                reported.and_then(|reported| reported.get(key))
            };
            value.map(|value| (key.clone(), value.clone()))
        });
        keys.collect()
    }

    /// Holds the acknowledgement against what was issued to the device; `known` tells its settings' keys.
    ///
    /// The same version may be acknowledged again, with the same or another outcome.
    ///
    /// # Errors
    /// The first of the [`Rejection`]s that applies; it must then change nothing.
    pub fn check(&self, issued: Issued, known: impl Fn(&str) -> bool) -> Result<(), Rejection> {
        let version = self.version;
        if version > issued.current {
            return Err(Rejection::Future {
                version,
                current: issued.current,
            });
        }
        if version < issued.first {
            return Err(Rejection::NeverIssued {
                version,
                first: issued.first,
            });
        }
        if let Some(last) = issued.acknowledged.filter(|last| version < *last) {
            return Err(Rejection::Stale { version, last });
        }
        let named = self
            .settings
            .iter()
            .flat_map(Document::keys)
            .chain(self.errors.keys());
        let mut unknown: Vec<String> = named
            .filter(|key| !known(key))
            .map(|key| key.chars().take(64).collect())
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        unknown.sort();
        unknown.dedup();
        unknown.truncate(10);
        Err(Rejection::UnknownKeys { keys: unknown })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::{diff::diff, testing::document};

    fn parse(text: &str) -> Result<Ack, Rejection> {
        Ack::parse(text.as_bytes(), Limits::default())
    }

    #[test]
    fn reads_the_documented_shape() {
        let text = r#"{"version":42,"settings":{"reportInterval":60},
                       "errors":{"reportInterval":{"code":400,"message":"10..300 only"}}}"#;
        let errors = Errors::from([(
            "reportInterval".into(),
            KeyError {
                code: Some(400),
                message: "10..300 only".into(),
            },
        )]);
        let settings = Some(document(json!({"reportInterval": 60})));
        assert_eq!(
            parse(text),
            Ok(Ack {
                version: 42,
                settings,
                errors
            })
        );
        let bare = Ack {
            version: 1,
            settings: None,
            errors: Errors::new(),
        };
        assert_eq!(parse(r#"{"version":1}"#), Ok(bare.clone()));
        assert_eq!(parse(r#"{"version":1,"settings":null,"errors":null}"#), Ok(bare));
    }

    #[test]
    fn another_shape_is_refused_by_name() {
        for text in [
            r#"{}"#,
            r#"{"version":"1"}"#,
            r#"{"version":1.5}"#,
            r#"{"version":0}"#,
            r#"{"version":-1}"#,
            r#"{"version":1e30}"#,
            r#"{"version":1,"settings":[]}"#,
            r#"{"version":1,"error":{}}"#,
            r#"{"version":1,"errors":{"a":"no"}}"#,
            r#"{"version":1,"errors":{"a":{"code":"x"}}}"#,
            r#"{"version":1,"errors":{"a":{"reason":"x"}}}"#,
        ] {
            assert_eq!(parse(text).unwrap_err().code(), "shape", "{text}");
        }
        let long = format!(
            r#"{{"version":1,"errors":{{"a":{{"message":"{}"}}}}}}"#,
            "é".repeat(MAX_MESSAGE + 1)
        );
        assert_eq!(parse(&long).unwrap_err().code(), "shape");
        for text in ["", "[]", "{", r#"{"version":1,"version":1}"#] {
            assert_eq!(parse(text).unwrap_err().code(), "malformed", "{text}");
        }
        let large = format!(
            r#"{{"version":1,"settings":{{"a":"{}"}}}}"#,
            "x".repeat(64 * 1024)
        );
        assert_eq!(parse(&large).unwrap_err().code(), "too_large");
    }

    #[test]
    fn each_impossible_version_has_its_own_answer() {
        let issued = Issued {
            first: 5,
            current: 9,
            acknowledged: Some(7),
        };
        let check = |version| {
            Ack {
                version,
                settings: None,
                errors: Errors::new(),
            }
            .check(issued, |_| true)
        };
        assert_eq!(
            check(10),
            Err(Rejection::Future {
                version: 10,
                current: 9
            })
        );
        assert_eq!(check(4), Err(Rejection::NeverIssued { version: 4, first: 5 }));
        assert_eq!(check(6), Err(Rejection::Stale { version: 6, last: 7 }));
        for version in 7..=9 {
            assert_eq!(check(version), Ok(()), "{version}");
        }
        assert_eq!(
            check(10).unwrap_err().to_string(),
            "version 10 does not exist yet: the newest is 9"
        );
    }

    #[test]
    fn what_the_device_runs_is_what_it_says_or_what_it_acknowledged() {
        let at = chrono::DateTime::UNIX_EPOCH;
        let first = document(json!({"a": 1, "b": 1, "c": 1}));
        let second = document(json!({"a": 1, "b": 2, "c": 1}));
        let status = Status::default().changed(&diff(&Document::new(), &first), 1, at);
        let status = status.changed(&diff(&first, &second), 2, at);
        let errors = Errors::from([("c".to_owned(), KeyError::default())]);
        let bare = Ack {
            version: 1,
            settings: None,
            errors,
        };
        let before = document(json!({"b": 0}));
        assert_eq!(
            bare.running(Some(&before), &second, &status),
            document(json!({"a": 1, "b": 0}))
        );
        assert_eq!(bare.running(None, &second, &status), document(json!({"a": 1})));
        let full = Ack {
            settings: Some(document(json!({"a": 9}))),
            ..bare
        };
        assert_eq!(
            full.running(Some(&before), &second, &status),
            document(json!({"a": 9}))
        );
    }

    #[test]
    fn unknown_keys_are_named_wherever_they_stand() {
        let ack = Ack {
            version: 1,
            settings: Some(document(json!({"b": 1, "known": 2}))),
            errors: Errors::from([
                ("a".into(), KeyError::default()),
                ("b".into(), KeyError::default()),
            ]),
        };
        let issued = Issued {
            first: 1,
            current: 1,
            acknowledged: None,
        };
        let rejection = ack.check(issued, |key| key == "known").unwrap_err();
        assert_eq!(rejection.to_string(), "unknown settings: a, b");
    }
}
