//! What happened to a device: the entries of its timeline.
//!
//! The kinds are a closed list, so that readers can rely on them; each carries its own facts.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{presence::DisconnectReason, serial::Serial};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $({ $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })? = $text:literal,)+) => {
        /// An entry's kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
        pub enum Kind {
            $($(#[$doc])* #[serde(rename = $text)] $name,)+
        }

        impl Kind {
            /// Every kind there is.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name in the database, in queries and in answers.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }

        /// What an entry tells, by kind.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum Facts {
            $($(#[$doc])* $name $({ $($(#[$field_doc])* $field: $type,)* })?,)+
        }

        impl Facts {
            /// The entry's kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$name { .. } => Kind::$name,)+ }
            }
        }
    };
}

kinds! {
    /// The device was created, or made itself known.
    Created {
        /// Who did it.
        actor: String,
    } = "created",
    /// It has a new token; the old one is dead.
    CredentialRotated {
        /// Who did it.
        actor: String,
    } = "credential_rotated",
    /// Its token is dead.
    CredentialRevoked {
        /// Who did it.
        actor: String,
    } = "credential_revoked",
    /// A session began.
    Connected {
        /// The session.
        session: Uuid,
        /// Its MQTT client id.
        client_id: String,
        /// Where it comes from: address and port.
        address: String,
        /// `tcp`, `tls` or `websocket`.
        transport: &'static str,
        /// `3.1.1` or `5.0`.
        protocol: &'static str,
    } = "connected",
    /// A session ended.
    Disconnected {
        /// The session.
        session: Uuid,
        /// Why.
        reason: DisconnectReason,
    } = "disconnected",
    /// Somebody tried to sign in as this device and was refused.
    LoginRefused {
        /// Where from: address and port.
        address: String,
        /// `tcp`, `tls` or `websocket`.
        transport: String,
        /// Why, for people.
        reason: String,
    } = "login_refused",
    /// Something showed this device's own credential after it was reported stolen, and was refused.
    StolenSeen {
        /// Where from: address and port.
        address: String,
        /// `tcp`, `tls`, `websocket` or `http`.
        transport: String,
    } = "stolen_seen",
    /// It tried to publish or subscribe where it may not.
    AccessDenied {
        /// The session.
        session: Uuid,
        /// What it tried: `publish devices/B/telemetry`.
        what: String,
    } = "access_denied",
    /// Its settings changed.
    SettingsChanged {
        /// The new version.
        version: i64,
        /// Who did it.
        actor: String,
        /// By which way: `rest`, `mqtt`, `schedule`.
        source: String,
    } = "settings_changed",
    /// A layer changed under it, but its settings could not follow: they stay as they are.
    SettingsWithheld {
        /// Who changed the layer.
        actor: String,
        /// By which way: `group`, `model`.
        source: String,
        /// Why, for people.
        reason: String,
    } = "settings_withheld",
    /// It has not answered a version of its settings within the time that its model is expected to.
    SettingsPending {
        /// The version.
        version: i64,
        /// What it waits for: a plain sentence.
        verdict: String,
    } = "settings_pending",
    /// It runs a version of its settings.
    SettingsApplied {
        /// The version.
        version: i64,
    } = "settings_applied",
    /// It refused some of its settings.
    SettingsRefused {
        /// The version.
        version: i64,
        /// Key -> what the device says.
        errors: Value,
    } = "settings_refused",
    /// It sent an acknowledgement of its settings that makes no sense.
    AckRejected {
        /// Why, for people.
        reason: String,
    } = "settings_ack_rejected",
    /// A change of its settings was refused: not valid, or made for another version than the current one.
    SettingsRejected {
        /// Who asked for it.
        actor: String,
        /// By which way: `rest`, `page`, `revert`.
        source: String,
        /// Why, for people.
        reason: String,
    } = "settings_rejected",
    /// Settings sent over MQTT were accepted.
    SettingsSetAccepted {
        /// Who sent them.
        actor: String,
        /// The version now in force; that of before, if they changed nothing.
        version: i64,
    } = "settings_set_accepted",
    /// Settings sent over MQTT were not valid.
    SettingsSetRejected {
        /// Who sent them.
        actor: String,
        /// Why, for people.
        reason: String,
    } = "settings_set_rejected",
    /// Telemetry that was wholly or partly not stored.
    TelemetryRejected {
        /// What is wrong, the first few.
        problems: Vec<String>,
        /// How many problems there are in all.
        count: usize,
        /// How many samples of the same message were stored.
        stored: usize,
    } = "telemetry_rejected",
    /// Its clock is ahead: samples from the future were stored at their arrival.
    ClockAhead {
        /// How many objects of one message were affected.
        items: usize,
    } = "clock_ahead",
    /// An alert fired.
    AlertFiring {
        /// The rule.
        alert: String,
        /// What people call it.
        title: String,
        /// How much it matters: `warning`.
        severity: String,
        /// What must be the case, and for how long.
        condition: String,
        /// Since when it is so.
        since: DateTime<Utc>,
        /// The values that were looked at, by metric.
        values: Value,
        /// What is wrong: a plain sentence.
        message: String,
    } = "alert_firing",
    /// An alert that fired is over.
    AlertResolved {
        /// The rule.
        alert: String,
        /// What people call it.
        title: String,
        /// How much it mattered: `warning`.
        severity: String,
        /// What had to be the case, and for how long.
        condition: String,
        /// Since when it was so; `null` where that is not known any more.
        since: Option<DateTime<Utc>>,
        /// The values that were looked at, by metric.
        values: Value,
        /// Why it is over.
        reason: crate::alert::Reason,
        /// How it is now: a plain sentence.
        message: String,
    } = "alert_resolved",
    /// It answered a command.
    CommandResult {
        /// The command.
        id: Uuid,
        /// What it answered.
        result: Value,
    } = "command_result",
    /// It told how far its firmware update is.
    FirmwareStatus {
        /// What it said.
        status: Value,
    } = "firmware_status",
    /// A message of the device could not be read.
    MessageRejected {
        /// The channel's name: `firmware_status`.
        channel: String,
        /// Why, for people.
        reason: String,
    } = "message_rejected",
}

impl Facts {
    /// The facts as the object that is stored and shown.
    pub fn to_json(&self) -> Value {
        match serde_json::to_value(self) {
            Ok(facts @ Value::Object(_)) => facts,
            // Every variant is a plain struct, so there is nothing else; an empty object keeps the entry.
            _ => Value::Object(serde_json::Map::new()),
        }
    }
}

/// The text names no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of timeline entry")]
pub struct UnknownKind;

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.as_str() == text)
            .ok_or(UnknownKind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The device.
    pub serial: Serial,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// What happened.
    pub facts: Facts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_back_as_written() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
        assert_eq!("rebooted".parse::<Kind>(), Err(UnknownKind));
    }

    #[test]
    fn facts_are_an_object_without_the_kind() {
        let facts = Facts::Disconnected {
            session: Uuid::nil(),
            reason: DisconnectReason::TakenOver,
        };
        assert_eq!(facts.kind().as_str(), "disconnected");
        assert_eq!(
            facts.to_json(),
            serde_json::json!({"session": "00000000-0000-0000-0000-000000000000", "reason": "taken_over"})
        );
    }
}
