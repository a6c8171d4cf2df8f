//! What a device does with what it hears, free of any transport: settings, commands and firmware.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Settings by key.
pub type Settings = Map<String, Value>;

/// The shortest interval between two samples that a device will keep to.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// The interval a device reports at before its settings say otherwise.
const FACTORY_INTERVAL: Duration = Duration::from_secs(60);

/// A settings document as it arrives on `devices/{serial}/settings`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SettingsDocument {
    /// The document's version.
    pub version: u64,
    /// The whole effective settings.
    pub settings: Settings,
}

/// Why the device doesn't run one of its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// As an HTTP status.
    pub code: u16,
    /// In words, for people.
    pub message: String,
}

/// What the device publishes on `devices/{serial}/settings/ack`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Acknowledgement {
    /// The version it answers.
    pub version: u64,
    /// What the device now runs.
    pub settings: Arc<Settings>,
    /// The keys it refused.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, Refusal>,
}

/// What became of a settings document.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// It was applied, in whole or in part; this is to be published.
    Applied(Acknowledgement),
    /// It is older than the version the device already heard in this session.
    Stale {
        /// The version that arrived.
        version: u64,
        /// The version the device runs.
        current: u64,
    },
}

/// A payload that the device can't read.
#[derive(Debug, thiserror::Error)]
#[error("unreadable payload: {0}")]
pub struct Unreadable(#[from] serde_json::Error);

/// A command as it arrives on `devices/{serial}/commands`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Command {
    /// Names the topic of its result.
    pub id: Uuid,
    /// What to do.
    pub name: String,
    /// With what.
    #[serde(default)]
    pub params: Value,
    /// Not after this.
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
}

/// What the device answers to a command.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommandResult {
    /// As an HTTP status: 200, or 410 for a command that came too late.
    pub code: u16,
    /// The command's result.
    pub body: Value,
}

/// The firmware a device should run, as it arrives on `devices/{serial}/firmware`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FirmwareOffer {
    /// The version to install.
    pub version: String,
}

/// Progress with a firmware, for `devices/{serial}/firmware/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirmwareStatus {
    /// The version in question.
    pub version: String,
    /// Where the device stands.
    pub state: FirmwareState,
    /// Per cent of the present state, where that means something.
    pub progress: Option<u8>,
    /// What went wrong, in words.
    pub message: Option<String>,
}

/// The states a firmware passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FirmwareState {
    /// It is being fetched.
    Downloading,
    /// It is being written.
    Installing,
    /// The device runs it.
    Installed,
}

/// The mind of one device.
#[derive(Debug, Clone)]
pub struct Behaviour {
    refused_keys: BTreeSet<String>,
    running: Arc<Settings>,
    version: Option<u64>,
    heard_in_session: Option<u64>,
    firmware: Option<String>,
}

impl Behaviour {
    /// A device of the model `home` as it leaves the factory, which will refuse to change `refused_keys`.
    pub fn new(refused_keys: impl IntoIterator<Item = String>) -> Self {
        let factory = [
            ("privacyMode", json!(false)),
            ("reportInterval", json!(FACTORY_INTERVAL.as_secs())),
            ("temperatureUnit", json!("celsius")),
            ("label", json!("")),
        ];
        Self {
            refused_keys: refused_keys.into_iter().collect(),
            running: Arc::new(
                factory
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect(),
            ),
            version: None,
            heard_in_session: None,
            firmware: None,
        }
    }

    /// What the device runs now.
    pub fn running(&self) -> &Arc<Settings> {
        &self.running
    }

    /// The last version it applied.
    pub fn version(&self) -> Option<u64> {
        self.version
    }

    /// To be called on every CONNACK: the order of versions is only known within one session, and a server
    /// restored from a backup may start again below the version a device last saw.
    pub fn session_began(&mut self) {
        self.heard_in_session = None;
    }

    /// Applies a settings document.
    ///
    /// A refused key keeps the value it has; when it has that value already there is nothing to refuse.
    /// A repeated version is acknowledged again, since the first acknowledgement may have been lost.
    pub fn hear_settings(&mut self, document: SettingsDocument) -> Heard {
        let SettingsDocument {
            version,
            mut settings,
        } = document;
        if let Some(current) = self.heard_in_session.filter(|current| version < *current) {
            return Heard::Stale { version, current };
        }
        self.heard_in_session = Some(version);
        self.version = Some(version);
        let mut errors = BTreeMap::new();
        for key in &self.refused_keys {
            let Some(wanted) = settings.remove(key) else {
                continue;
            };
            let kept = self.running.get(key);
            if kept != Some(&wanted) {
                let refusal = Refusal {
                    code: 400,
                    message: "refused by the simulator".to_owned(),
                };
                errors.insert(key.clone(), refusal);
            }
            if let Some(kept) = kept {
                settings.insert(key.clone(), kept.clone());
            }
        }
        self.running = Arc::new(settings);
        Heard::Applied(Acknowledgement {
            version,
            settings: Arc::clone(&self.running),
            errors,
        })
    }

    /// How often the running settings ask for a sample.
    pub fn report_interval(&self) -> Duration {
        let seconds = self.running.get("reportInterval").and_then(Value::as_u64);
        seconds
            .map_or(FACTORY_INTERVAL, Duration::from_secs)
            .max(SHORTEST_INTERVAL)
    }

    /// Does what a command says. `echo` answers with its parameters, all others with an empty body.
    pub fn obey(&self, command: &Command, now: DateTime<Utc>) -> CommandResult {
        if command.expires_at.is_some_and(|deadline| deadline <= now) {
            return CommandResult {
                code: 410,
                body: json!({ "message": "expired before it arrived" }),
            };
        }
        let body = if command.name == "echo" {
            command.params.clone()
        } else {
            json!({})
        };
        CommandResult { code: 200, body }
    }

    /// The reports due while this firmware is installed, in order; a single `installed` when the device
    /// runs it already.
    pub fn install(&mut self, offer: FirmwareOffer) -> Vec<FirmwareStatus> {
        let FirmwareOffer { version } = offer;
        let steps: &[(FirmwareState, Option<u8>)] = if self.firmware.as_ref() == Some(&version) {
            &[(FirmwareState::Installed, Some(100))]
        } else {
            &[
                (FirmwareState::Downloading, Some(0)),
                (FirmwareState::Downloading, Some(50)),
                (FirmwareState::Downloading, Some(100)),
                (FirmwareState::Installing, None),
                (FirmwareState::Installed, Some(100)),
            ]
        };
        let status = |&(state, progress)| FirmwareStatus {
            version: version.clone(),
            state,
            progress,
            message: None,
        };
        let reports = steps.iter().map(status).collect();
        self.firmware = Some(version);
        reports
    }
}

/// Reads any payload of the server.
///
/// # Errors
/// When it isn't the JSON that the contract promises.
pub fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Unreadable> {
    Ok(serde_json::from_slice(payload)?)
}

#[cfg(test)]
mod tests;
