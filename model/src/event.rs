//! Live events: what goes on with devices, as it happens.

use std::{fmt, str::FromStr};

use serde::Serialize;

/// What an event tells of; the `event` field of a Server-Sent Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// A device came or went.
    Presence,
    /// A version of a device's settings was requested, published, delivered, applied or refused.
    Settings,
    /// Samples of a device were committed.
    Telemetry,
    /// A device answered a command.
    Commands,
    /// A device told how far its firmware update is.
    Firmware,
    /// An alert fired for a device, or is resolved.
    Alert,
}

impl EventType {
    /// Every type there is.
    pub const ALL: &[Self] = &[
        Self::Presence,
        Self::Settings,
        Self::Telemetry,
        Self::Commands,
        Self::Firmware,
        Self::Alert,
    ];

    /// Its name in streams and queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Settings => "settings",
            Self::Telemetry => "telemetry",
            Self::Commands => "commands",
            Self::Firmware => "firmware",
            Self::Alert => "alert",
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no type of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a type of event")]
pub struct UnknownEventType;

impl FromStr for EventType {
    type Err = UnknownEventType;

    fn from_str(text: &str) -> Result<Self, UnknownEventType> {
        let mut all = Self::ALL.iter().copied();
        all.find(|kind| kind.as_str() == text).ok_or(UnknownEventType)
    }
}

/// How far a version of settings has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingsStage {
    /// It is committed.
    Requested,
    /// It was handed to MQTT.
    Published,
    /// The device's PUBACK came in.
    Delivered,
    /// The device runs it.
    Applied,
    /// The device refused some of it.
    Refused,
    /// It has not been answered within the time expected of the device's model.
    Pending,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_back_as_written() {
        for kind in EventType::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert_eq!("Presence".parse::<EventType>(), Err(UnknownEventType));
    }
}
