//! `[database]`.

use std::{fmt, path::PathBuf, time::Duration};

use serde::Deserialize;
use setpoint_store::ConnectOptions;

use super::{error::Invalid, units};

/// Postgres: one of the user's own, or the embedded one.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://...`; `None` for the embedded one.
    pub url: Option<String>,
    /// The most connections.
    pub max_connections: u32,
    /// Connections kept open when idle.
    pub min_connections: u32,
    /// How long a caller waits for a connection.
    #[serde(deserialize_with = "units::duration")]
    pub acquire_timeout: Duration,
    /// How long the start waits for a database that doesn't answer yet.
    #[serde(deserialize_with = "units::duration")]
    pub connect_timeout: Duration,
    /// The longest a statement may run; zero for no limit.
    #[serde(deserialize_with = "units::duration")]
    pub statement_timeout: Duration,
    /// The embedded Postgres.
    pub embedded: Embedded,
}

/// The embedded Postgres.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedded {
    /// The directory of its programs; `None` to find them.
    pub bin: Option<PathBuf>,
}

impl Database {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if self.max_connections < 4 {
            return Err(Invalid::new(
                "database.max_connections",
                "at least 4: requests and tasks share them",
            ));
        }
        if self.min_connections > self.max_connections {
            return Err(Invalid::new(
                "database.min_connections",
                "at most database.max_connections",
            ));
        }
        match &self.url {
            Some(url) => match url.parse::<ConnectOptions>() {
                Ok(_) => Ok(()),
                Err(error) => Err(Invalid::new("database.url", error.to_string())),
            },
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("embedded", &self.embedded)
            .finish_non_exhaustive()
    }
}
