//! What is wrong with a configuration, in one line.

use std::path::PathBuf;

use figment::error::Kind;

use super::sources::{ENVIRONMENT, FLAGS, variable};

/// Keys whose values are never shown.
const SECRET: &[&str] = &["admin.password", "database.url", "sign_in.oidc.client_secret"];

/// Why the configuration can't be used. One line, for the person at the terminal; never a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file given with `--config` can't be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key is unknown, missing or of the wrong kind, or a file isn't TOML.
    #[error("{0}")]
    Key(String),
    /// A value breaks a rule.
    #[error(transparent)]
    Value(#[from] Invalid),
}

/// A value that breaks its section's rule.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {message}")]
pub struct Invalid {
    key: &'static str,
    message: String,
}

impl Invalid {
    pub(super) fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self {
            key,
            message: message.into(),
        }
    }
}

impl ConfigError {
    /// What figment found; `environment` is where it looked for variables.
    pub(super) fn of_key(error: &figment::Error, environment: &[(String, String)]) -> Self {
        Self::Key(describe(error, environment))
    }
}

/// `http.lisen: unknown key; known: listen, max_body (in ./setpoint.toml)`.
fn describe(error: &figment::Error, environment: &[(String, String)]) -> String {
    let mut path = error.path.clone();
    let message = match &error.kind {
        Kind::UnknownField(field, known) => {
            if path.last() != Some(field) {
                path.push(field.clone());
            }
            format!("unknown key; known: {}", known.join(", "))
        }
        Kind::MissingField(field) => {
            path.push(field.to_string());
            "needs a value".to_owned()
        }
        // The TOML parser draws a picture of several lines; its first and last say it all.
        Kind::Message(text) => match text.lines().collect::<Vec<_>>().as_slice() {
            [first, .., last] => format!("{first}: {last}"),
            _ => text.clone(),
        },
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("{expected} is needed, not {found}")
        }
        other => other.to_string(),
    };
    let key = path.join(".");
    let message = if SECRET.contains(&key.as_str()) {
        "not valid".to_owned()
    } else {
        message
    };
    let from = match &error.metadata {
        None => String::new(),
        Some(metadata) => match (&metadata.source, &*metadata.name) {
            (Some(source), _) => format!(" (in {source})"),
            (None, ENVIRONMENT) => {
                let name = variable(&path);
                // An unknown section is found before the key in it, whose variable has a longer name.
                let found = environment
                    .iter()
                    .find(|(found, _)| found.to_ascii_uppercase().starts_with(&name));
                format!(
                    " (environment variable {})",
                    found.map_or(&name, |(found, _)| found)
                )
            }
            (None, FLAGS) => " (on the command line)".to_owned(),
            _ => String::new(),
        },
    };
    if key.is_empty() {
        format!("{message}{from}")
    } else {
        format!("{key}: {message}{from}")
    }
}
