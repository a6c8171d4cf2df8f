//! Configuration: compiled-in defaults, a file, the environment and flags, in that order of precedence.
//!
//! `config/default.toml` names and explains every key. Each section refuses unknown keys and checks itself.

mod alerts;
mod bulk_changes;
mod database;
mod error;
mod home_assistant;
mod http;
mod limits;
mod log;
mod mqtt;
mod mqtt_limits;
mod oidc;
mod people;
mod sources;
mod units;
mod webhooks;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

pub use self::{
    alerts::Alerts,
    bulk_changes::BulkChanges,
    database::{Database, Embedded},
    error::ConfigError,
    home_assistant::HomeAssistant,
    http::{Http, RequestLimits},
    limits::{Events, Schedules, Settings, Telemetry, Timeline},
    log::{Log, LogFormat},
    mqtt::{Mqtt, Tls},
    mqtt_limits::Limits,
    oidc::Oidc,
    people::{Audit, Claiming, Factory, SignIn},
    sources::{DEFAULTS, Sources},
    webhooks::Webhooks,
};
use error::Invalid;

/// The whole configuration of one server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory of the embedded Postgres and the administrator's token.
    pub data_dir: PathBuf,
    /// Whether HTTP and MQTT without TLS may be reached from other machines.
    pub allow_plaintext: bool,
    /// The HTTP port.
    pub http: Http,
    /// The MQTT ports and what their clients may do.
    pub mqtt: Mqtt,
    /// Postgres.
    pub database: Database,
    /// Limits of settings.
    pub settings: Settings,
    /// Limits of schedules.
    pub schedules: Schedules,
    /// Limits of bulk changes.
    pub bulk_changes: BulkChanges,
    /// Limits and batches of telemetry.
    pub telemetry: Telemetry,
    /// Limits of alerts.
    pub alerts: Alerts,
    /// What Home Assistant is told of devices.
    pub home_assistant: HomeAssistant,
    /// Limits of the timeline of devices.
    pub timeline: Timeline,
    /// Limits of live events.
    pub events: Events,
    /// Limits of webhooks, and where they may go.
    pub webhooks: Webhooks,
    /// Where metrics are read.
    pub metrics: Metrics,
    /// How people sign in.
    pub sign_in: SignIn,
    /// How devices are claimed.
    pub claiming: Claiming,
    /// How files of factory serials are taken in.
    pub factory: Factory,
    /// The audit log.
    pub audit: Audit,
    /// The first administrator.
    pub admin: Admin,
    /// The log.
    pub log: Log,
}

/// Where metrics are read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// An address of its own, without sign-in.
    pub listen: Option<SocketAddr>,
}

/// The first administrator.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// The password at the first start; `None` for a random one.
    pub password: Option<String>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let config: Self = sources.extract()?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.http.validate(self.allow_plaintext)?;
        self.mqtt.validate(self.allow_plaintext)?;
        self.database.validate()?;
        self.settings.validate()?;
        self.schedules.validate()?;
        self.bulk_changes.validate()?;
        self.telemetry.validate()?;
        self.alerts.validate()?;
        self.home_assistant.validate()?;
        self.timeline.validate()?;
        self.events.validate()?;
        self.webhooks.validate()?;
        self.sign_in.validate()?;
        self.claiming.validate()?;
        self.factory.validate()?;
        self.audit.validate()?;
        self.log.validate()?;
        if let Some(address) = self.metrics.listen {
            plaintext("metrics.listen", address, self.allow_plaintext)?;
        }
        match &self.admin.password {
            Some(password) if password.chars().count() < MIN_PASSWORD => Err(Invalid::new(
                "admin.password",
                format!("at least {MIN_PASSWORD} characters"),
            )),
            _ => Ok(()),
        }
    }
}

/// The shortest password a person may have, in characters.
pub const MIN_PASSWORD: usize = 8;

/// An address without TLS is a loopback one, unless the network is trusted.
fn plaintext(key: &'static str, address: SocketAddr, allowed: bool) -> Result<(), Invalid> {
    if allowed || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(Invalid::new(
        key,
        format!(
            "{address} can be reached from other machines without encryption; listen on 127.0.0.1, or set \
             allow_plaintext = true if the network is trusted"
        ),
    ))
}
