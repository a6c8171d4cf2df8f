//! What people say about a schedule: when it holds, what it sets, over which others.

use serde_json::Value;

use super::Plan;
use crate::{
    device::FieldErrors,
    settings::{Document, Patch},
};

/// The fields there are.
const FIELDS: [&str; 8] = [
    "days",
    "from",
    "to",
    "starts_at",
    "ends_at",
    "settings",
    "enabled",
    "priority",
];

/// All of a schedule but its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// When it holds.
    pub plan: Plan,
    /// What it sets. Whether the model knows these settings is not checked here.
    pub settings: Document,
    /// Whether it holds at all.
    pub enabled: bool,
    /// Of schedules that hold at once the one with the highest wins.
    pub priority: i32,
}

impl Definition {
    /// Reads a definition: a plan and `settings` are needed; without more it is enabled, of priority 0.
    ///
    /// # Errors
    /// A message per field that is missing, unknown or wrong.
    pub fn parse(mut fields: Document) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let plan = Plan::take(&mut fields).map_err(|wrong| errors.extend(wrong));
        let (mut settings, mut enabled, mut priority) = (None, true, 0);
        for (field, value) in fields {
            let outcome = match (field.as_str(), value) {
                // Those of the plan that are still there were reported, or are null.
                ("days" | "from" | "to" | "starts_at" | "ends_at", _) => Ok(()),
                ("enabled" | "priority", Value::Null) => Ok(()),
                ("settings", Value::Object(values)) => {
                    settings = Some(values);
                    Ok(())
                }
                ("settings", _) => Err("must be an object"),
                ("enabled", Value::Bool(flag)) => {
                    enabled = flag;
                    Ok(())
                }
                ("enabled", _) => Err("must be true or false"),
                ("priority", value) => match value.as_i64().and_then(|number| i32::try_from(number).ok()) {
                    Some(number) => {
                        priority = number;
                        Ok(())
                    }
                    None => Err("must be a whole number of 32 bits"),
                },
                _ => Err("unknown field"),
            };
            if let Err(message) = outcome {
                errors.insert(field, message.to_owned());
            }
        }
        if settings.is_none() {
            errors
                .entry("settings".to_owned())
                .or_insert_with(|| "is needed".to_owned());
        }
        match (plan, settings) {
            (Ok(plan), Some(settings)) if errors.is_empty() => Ok(Self {
                plan,
                settings,
                enabled,
                priority,
            }),
            _ => Err(errors),
        }
    }

    /// The definition with a merge patch (RFC 7396) applied, also within `settings`; `null` brings a field's default
    /// back. A weekly plan becomes a single period by `null` for its three fields beside the two new ones.
    ///
    /// # Errors
    /// A message per field that is then missing, unknown or wrong.
    pub fn patched(&self, patch: &Patch) -> Result<Self, FieldErrors> {
        // A null for a field that doesn't exist would vanish in the merge, and with it the mistake.
        let unknown = patch.keys().filter(|field| !FIELDS.contains(field));
        let unknown: FieldErrors = unknown
            .map(|field| (field.to_owned(), "unknown field".to_owned()))
            .collect();
        match Self::parse(patch.apply(&self.to_document())) {
            Ok(patched) if unknown.is_empty() => Ok(patched),
            Ok(_) => Err(unknown),
            Err(more) => Err(unknown.into_iter().chain(more).collect()),
        }
    }

    /// The definition as fields.
    pub fn to_document(&self) -> Document {
        let mut fields = self.plan.to_document();
        fields.insert("settings".to_owned(), Value::Object(self.settings.clone()));
        fields.insert("enabled".to_owned(), self.enabled.into());
        fields.insert("priority".to_owned(), self.priority.into());
        fields
    }
}
