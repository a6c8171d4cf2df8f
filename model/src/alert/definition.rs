//! Rules as people describe them.

use std::{fmt, str::FromStr};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Condition, InvalidCondition, InvalidSpan, Span, Subject};
use crate::{
    Serial,
    device::FieldErrors,
    group::GroupName,
    models::Name as ModelName,
    settings::{Document, Patch},
};

/// The longest title, in characters.
pub const MAX_TITLE: usize = 200;

/// The fields of a rule beside its name.
const FIELDS: [&str; 6] = [
    "title",
    "condition",
    "scope",
    "severity",
    "enabled",
    "resolve_after",
];

/// How much a rule matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look at it.
    #[default]
    Warning,
    /// Somebody should do something now.
    Critical,
}

/// The text names no severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one of info, warning, critical")]
pub struct UnknownSeverity;

impl Severity {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl FromStr for Severity {
    type Err = UnknownSeverity;

    fn from_str(text: &str) -> Result<Self, UnknownSeverity> {
        let mut all = [Self::Info, Self::Warning, Self::Critical].into_iter();
        all.find(|severity| severity.as_str() == text)
            .ok_or(UnknownSeverity)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// For which devices a rule is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Scope {
    /// For all.
    #[default]
    All,
    /// For those of a model.
    Model(ModelName),
    /// For those that belong to a group.
    Group(GroupName),
    /// For the one of this serial.
    Serial(Serial),
}

impl Scope {
    /// As it is written: an object with one field, or none for all devices.
    pub fn to_json(&self) -> Value {
        match self {
            Self::All => json!({}),
            Self::Model(name) => json!({"model": name.as_str()}),
            Self::Group(name) => json!({"group": name.as_str()}),
            Self::Serial(serial) => json!({"serial": serial.as_str()}),
        }
    }

    /// Whether a device is among them.
    pub fn covers(&self, serial: &Serial, model: &str, groups: &[String]) -> bool {
        match self {
            Self::All => true,
            Self::Model(name) => name.as_str() == model,
            Self::Group(name) => groups.iter().any(|group| group == name.as_str()),
            Self::Serial(wanted) => wanted == serial,
        }
    }
}

/// What a rule says.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// What people call it; may be empty.
    pub title: String,
    /// What must be the case, and for how long.
    pub condition: Condition,
    /// For which devices.
    pub scope: Scope,
    /// How much it matters.
    pub severity: Severity,
    /// Whether it is looked at at all.
    pub enabled: bool,
    /// How long the condition must be over before an alert is resolved; `None` for what [`Self::resolve_after`] says.
    pub resolve_after: Option<Span>,
}

impl Definition {
    /// Reads a rule from an object; only `condition` is needed.
    ///
    /// # Errors
    /// A message per field that is missing, unknown or wrong.
    pub fn parse(fields: Document) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let mut condition = None;
        let (mut title, mut scope, mut severity) = (String::new(), Scope::All, Severity::default());
        let (mut enabled, mut resolve_after) = (true, None);
        for (field, value) in fields {
            let outcome = match (field.as_str(), value) {
                ("title" | "scope" | "severity" | "enabled" | "resolve_after", Value::Null) => Ok(()),
                ("title", Value::String(text)) => self::title(text).map(|read| title = read),
                ("condition", Value::String(text)) => text
                    .parse()
                    .map(|read| condition = Some(read))
                    .map_err(|error: InvalidCondition| error.to_string()),
                ("scope", Value::Object(read)) => self::scope(read).map(|read| scope = read),
                ("scope", _) => Err("must be an object".to_owned()),
                ("severity", Value::String(text)) => text
                    .parse()
                    .map(|read| severity = read)
                    .map_err(|error: UnknownSeverity| error.to_string()),
                ("enabled", Value::Bool(read)) => {
                    enabled = read;
                    Ok(())
                }
                ("enabled", _) => Err("must be true or false".to_owned()),
                ("resolve_after", Value::String(text)) => text
                    .parse()
                    .map(|read| resolve_after = Some(read))
                    .map_err(|error: InvalidSpan| error.to_string()),
                ("title" | "condition" | "severity" | "resolve_after", _) => Err("must be a text".to_owned()),
                ("name", _) => Err("can't be changed".to_owned()),
                _ => Err("unknown field".to_owned()),
            };
            if let Err(message) = outcome {
                errors.insert(field, message);
            }
        }
        match condition {
            Some(condition) if errors.is_empty() => Ok(Self {
                title,
                condition,
                scope,
                severity,
                enabled,
                resolve_after,
            }),
            None if !errors.contains_key("condition") => {
                errors.insert("condition".to_owned(), "is needed".to_owned());
                Err(errors)
            }
            _ => Err(errors),
        }
    }

    /// The rule with a merge patch (RFC 7396) applied; `null` for a field brings the default back. A `scope` takes the
    /// place of the one before, since it names one thing alone.
    ///
    /// # Errors
    /// A message per field that is unknown or wrong.
    pub fn patched(&self, patch: &Patch) -> Result<Self, FieldErrors> {
        // A null for a field that doesn't exist would vanish in the merge, and with it the mistake.
        let mut errors = FieldErrors::new();
        for field in patch.keys().filter(|field| !FIELDS.contains(field)) {
            let message = if field == "name" {
                "can't be changed"
            } else {
                "unknown field"
            };
            errors.insert(field.to_owned(), message.to_owned());
        }
        let mut before = self.to_document();
        if patch.keys().any(|field| field == "scope") {
            before.remove("scope");
        }
        match Self::parse(patch.apply(&before)) {
            Ok(patched) if errors.is_empty() => Ok(patched),
            Ok(_) => Err(errors),
            Err(more) => Err(errors.into_iter().chain(more).collect()),
        }
    }

    /// The rule as an object, without its name.
    pub fn to_document(&self) -> Document {
        Document::from_iter([
            ("title".to_owned(), self.title.clone().into()),
            ("condition".to_owned(), self.condition.to_string().into()),
            ("scope".to_owned(), self.scope.to_json()),
            ("severity".to_owned(), self.severity.as_str().into()),
            ("enabled".to_owned(), self.enabled.into()),
            (
                "resolve_after".to_owned(),
                self.resolve_after
                    .map_or(Value::Null, |span| span.to_string().into()),
            ),
        ])
    }

    /// How long the condition must be over before an alert is resolved. Unless the rule says otherwise: for values as
    /// long as they must be wrong before it fires; of a device that is there again it is known at once.
    pub fn resolve_after(&self) -> Span {
        self.resolve_after.unwrap_or(match self.condition.subject {
            Subject::Metrics(_) => self.condition.hold,
            Subject::Silence(_) | Subject::Offline | Subject::SettingsPending => Span::ZERO,
        })
    }
}

fn title(text: String) -> Result<String, String> {
    if text.chars().count() > MAX_TITLE || text.contains('\0') {
        return Err(format!("at most {MAX_TITLE} characters"));
    }
    Ok(text)
}

fn scope(fields: Document) -> Result<Scope, String> {
    const ONE: &str = "at most one of model, group and serial";
    if fields.len() > 1 {
        return Err(ONE.to_owned());
    }
    let Some((field, value)) = fields.into_iter().next() else {
        return Ok(Scope::All);
    };
    let Value::String(text) = value else {
        return Err(format!("{field}: must be a text"));
    };
    let of = |error: &dyn fmt::Display| format!("{field}: {error}");
    match field.as_str() {
        "model" => text
            .parse()
            .map(Scope::Model)
            .map_err(|error: <ModelName as FromStr>::Err| of(&error)),
        "group" => text
            .parse()
            .map(Scope::Group)
            .map_err(|error: <GroupName as FromStr>::Err| of(&error)),
        "serial" => text
            .parse()
            .map(Scope::Serial)
            .map_err(|error: <Serial as FromStr>::Err| of(&error)),
        _ => Err(ONE.to_owned()),
    }
}
