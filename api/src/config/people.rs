//! `[sign_in]`, `[claiming]`, `[factory]` and `[audit]`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use setpoint_model::Role;

use super::{Oidc, error::Invalid, units};

/// The name of the server's key in the data directory.
const KEY_FILE: &str = "server-key";

/// How people sign in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// How long a session may be idle.
    #[serde(deserialize_with = "units::duration")]
    pub session_idle: Duration,
    /// How long a session holds at most.
    #[serde(deserialize_with = "units::duration")]
    pub session_lifetime: Duration,
    /// Failures at one account from one address within the window.
    pub max_failures: u32,
    /// That window.
    #[serde(deserialize_with = "units::duration")]
    pub failure_window: Duration,
    /// The roles whose people must have a second factor.
    pub require_totp_for: Vec<Role>,
    /// The file of the server's key; in the data directory without it.
    pub key_file: Option<PathBuf>,
    /// Sign-in with an OpenID Connect provider.
    pub oidc: Oidc,
}

/// How devices are claimed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claiming {
    /// Whether a serial that nobody knows becomes a device when it is claimed.
    pub create: bool,
    /// How long a code holds.
    #[serde(deserialize_with = "units::duration")]
    pub code_lifetime: Duration,
    /// How long a device waits between polls.
    #[serde(deserialize_with = "units::duration")]
    pub poll_interval: Duration,
    /// Wrong codes of one person within the window.
    pub max_attempts: u32,
    /// That window.
    #[serde(deserialize_with = "units::duration")]
    pub attempt_window: Duration,
    /// Claims waiting at once.
    pub max_waiting: i64,
    /// Where devices are told to connect; from the server's own ports without it.
    pub mqtt_url: Option<String>,
}

/// How files of factory serials are taken in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factory {
    /// The largest file, in bytes.
    #[serde(deserialize_with = "units::size")]
    pub max_import: u64,
    /// Files that may come in at once.
    pub max_imports: usize,
    /// How long whoever comes beyond that is told to wait.
    #[serde(deserialize_with = "units::duration")]
    pub retry_after: Duration,
}

/// The audit log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// How long entries are kept.
    #[serde(deserialize_with = "units::duration")]
    pub retention: Duration,
}

impl SignIn {
    /// The file of the server's key.
    pub fn key_file(&self, data_dir: &Path) -> PathBuf {
        let made = || data_dir.join(KEY_FILE);
        self.key_file.clone().unwrap_or_else(made)
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        minutes("sign_in.session_idle", self.session_idle)?;
        minutes("sign_in.session_lifetime", self.session_lifetime)?;
        self.oidc.validate()?;
        at_least_one("sign_in.max_failures", self.max_failures)
    }
}

impl Claiming {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        minutes("claiming.code_lifetime", self.code_lifetime)?;
        if !(1..=60).contains(&self.poll_interval.as_secs()) {
            return Err(Invalid::new("claiming.poll_interval", "1s to 60s"));
        }
        if self.max_waiting < 1 {
            return Err(Invalid::new("claiming.max_waiting", "at least 1"));
        }
        at_least_one("claiming.max_attempts", self.max_attempts)
    }
}

impl Factory {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if !(1..=64).contains(&self.max_imports) {
            return Err(Invalid::new("factory.max_imports", "1 to 64"));
        }
        Ok(())
    }
}

impl Audit {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        super::limits::days("audit.retention", self.retention)
    }
}

fn at_least_one(key: &'static str, value: u32) -> Result<(), Invalid> {
    if value == 0 {
        return Err(Invalid::new(key, "at least 1"));
    }
    Ok(())
}

/// Up to ten years: the time since must be a time.
fn minutes(key: &'static str, value: Duration) -> Result<(), Invalid> {
    if (1..=3_653 * 86_400).contains(&value.as_secs()) {
        Ok(())
    } else {
        Err(Invalid::new(key, "1s to 3653days"))
    }
}
