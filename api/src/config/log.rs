//! `[log]`.

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use super::error::Invalid;

/// The log, written to stderr.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A level, or levels per part: `info,setpoint_broker=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

impl Log {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        match EnvFilter::try_new(&self.level) {
            Ok(_) => Ok(()),
            Err(error) => Err(Invalid::new("log.level", error.to_string())),
        }
    }
}
