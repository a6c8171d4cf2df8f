//! Where the configuration comes from, given from outside so that a test has its own.

use std::path::PathBuf;

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Value},
};
use serde::de::DeserializeOwned;

use super::ConfigError;

/// Every key with its default and an explanation.
pub const DEFAULTS: &str = include_str!("../../../config/default.toml");

/// What every environment variable of ours begins with.
const PREFIX: &str = "SETPOINT_";
/// The name of the environment among figment's sources.
pub(super) const ENVIRONMENT: &str = "environment";
/// The name of the flags among figment's sources.
pub(super) const FLAGS: &str = "flags";

/// Where the configuration comes from, beside the compiled-in defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file named on the command line, which must exist.
    pub file: Option<PathBuf>,
    /// The file that is read when it exists and no other is named.
    pub default_file: Option<PathBuf>,
    /// Environment variables; those that don't begin with `SETPOINT_` are passed over.
    pub environment: Vec<(String, String)>,
    /// Keys and values from the command line: `http.listen`, `127.0.0.1:0`.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// Those of this process: `./setpoint.toml` and its environment.
    pub fn of_process() -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Self {
            default_file: Some("setpoint.toml".into()),
            environment,
            ..Self::default()
        }
    }

    /// Adds a key as a flag does.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.push((key.into(), value.into()));
        self
    }

    /// Reads all of them into one value.
    pub(super) fn extract<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let defaults = Figment::from(Toml::string(DEFAULTS));
        let mut figment = defaults.clone();
        if let Some(path) = &self.file {
            std::fs::File::open(path).map_err(|source| ConfigError::File {
                path: path.clone(),
                source,
            })?;
            figment = figment.merge(Toml::file_exact(path));
        } else if let Some(path) = self.default_file.as_ref().filter(|path| path.exists()) {
            figment = figment.merge(Toml::file_exact(path));
        }
        let environment = self.environment.iter().filter_map(|(name, value)| {
            let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase().replace("__", ".");
            Some((key, value.clone()))
        });
        figment = figment.merge(Pairs::new(ENVIRONMENT, environment, &defaults));
        figment = figment.merge(Pairs::new(FLAGS, self.flags.iter().cloned(), &defaults));
        figment
            .extract()
            .map_err(|error| ConfigError::of_key(&error, &self.environment))
    }
}

/// The environment variable of a key: `SETPOINT_HTTP__LISTEN`.
pub(super) fn variable(path: &[String]) -> String {
    format!("{PREFIX}{}", path.join("__").to_ascii_uppercase())
}

/// Keys with values that are all text at first.
struct Pairs {
    name: &'static str,
    values: Dict,
}

impl Pairs {
    /// A value stays text unless its default is a number, a boolean, a list or a table: a password of digits is no number.
    fn new(name: &'static str, pairs: impl Iterator<Item = (String, String)>, defaults: &Figment) -> Self {
        let mut values = Dict::new();
        for (key, text) in pairs {
            let value = match defaults.find_value(&key) {
                Ok(Value::Num(..) | Value::Bool(..) | Value::Array(..) | Value::Dict(..)) => {
                    text.parse().unwrap_or_else(|_| Value::from(text))
                }
                _ => Value::from(text),
            };
            let levels: Vec<&str> = key.split('.').collect();
            insert(&mut values, &levels, value);
        }
        Self { name, values }
    }
}

fn insert(dict: &mut Dict, levels: &[&str], value: Value) {
    match levels {
        [] => {}
        [last] => {
            dict.insert((*last).to_owned(), value);
        }
        [first, rest @ ..] => {
            let entry = dict
                .entry((*first).to_owned())
                .or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}

impl Provider for Pairs {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}
