//! Topic names: the only place that builds or parses one.

use std::{fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

use crate::serial::Serial;

/// The first level of every topic.
const ROOT: &str = "devices";

/// The first level of every response topic.
const RESPONSES: &str = "responses";

/// The longest response topic, in bytes.
pub const MAX_RESPONSE_TOPIC: usize = 256;

/// Where an operator's MQTT 5 client wants the answer to a request (section 4.10): `responses/` and anything behind it.
/// Only the session that asked hears the answer, so clients need not agree on who has which topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResponseTopic(String);

impl ResponseTopic {
    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ResponseTopic {
    type Err = UnknownTopic;

    fn from_str(text: &str) -> Result<Self, UnknownTopic> {
        if is_response(text) && text.len() <= MAX_RESPONSE_TOPIC && !text.contains(['+', '#', '\0']) {
            Ok(Self(text.to_owned()))
        } else {
            Err(UnknownTopic)
        }
    }
}

impl fmt::Display for ResponseTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a topic or filter is of response topics alone.
pub(crate) fn is_response(text: &str) -> bool {
    text.strip_prefix(RESPONSES)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|rest| !rest.is_empty())
}

/// The first levels of the topics on which Home Assistant finds devices; `homeassistant` unless it is told otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DiscoveryPrefix(Arc<str>);

/// The text is not a prefix for discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("1 to 64 of A-Z a-z 0-9 _ - and / between levels; not devices or responses")]
pub struct InvalidPrefix;

/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 64;

impl DiscoveryPrefix {
    /// A topic's name: the one below this prefix for a discovery document, its own otherwise.
    ///
    /// Home Assistant takes no dot there, so one in a serial is written `_2E`.
    pub fn name(&self, topic: &Topic) -> String {
        match topic.channel {
            Channel::Discovery => {
                let object = topic.serial.as_str().replace('.', "_2E");
                format!("{}/device/{object}/config", self.0)
            }
            channel => match channel.path() {
                // In one piece: a storm of connects makes one of these for each.
                Some(path) => [ROOT, "/", topic.serial.as_str(), "/", path].concat(),
                None => topic.to_string(),
            },
        }
    }

    /// Whether this is where Home Assistant itself says that it comes and goes (its birth and will messages).
    pub fn is_status(&self, topic: &str) -> bool {
        self.below(topic) == Some("status")
    }

    /// What stands behind the prefix in a topic or filter.
    pub(crate) fn below<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.strip_prefix(&*self.0)?.strip_prefix('/')
    }
}

impl Default for DiscoveryPrefix {
    fn default() -> Self {
        Self("homeassistant".into())
    }
}

impl FromStr for DiscoveryPrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let level = |level: &str| {
            !level.is_empty()
                && level
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        let taken = text
            .split('/')
            .next()
            .is_some_and(|first| [ROOT, RESPONSES].contains(&first));
        if text.len() <= MAX_PREFIX && !taken && text.split('/').all(level) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidPrefix)
        }
    }
}

/// What a topic of a device carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// The whole effective settings document, to the device; retained.
    Settings,
    /// The device's acknowledgement of a settings version.
    SettingsAck,
    /// A merge patch from an operator's MQTT client.
    SettingsSet,
    /// Samples from the device.
    Telemetry,
    /// Online or not, written by the broker alone; retained.
    Presence,
    /// Commands to the device.
    Commands,
    /// The device's answer to the command of this id.
    CommandResult(Uuid),
    /// The firmware the device should run; retained.
    Firmware,
    /// The device's progress with its firmware.
    FirmwareStatus,
    /// What Home Assistant is told of the device; retained. Its name has a prefix of its own ([`DiscoveryPrefix::name`]).
    Discovery,
}

/// Who writes a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The server alone.
    Server,
    /// The device, or an operator on its behalf.
    Device,
    /// An operator alone.
    Operator,
}

impl Channel {
    /// Who may publish to this channel.
    pub fn writer(self) -> Writer {
        match self {
            Self::Settings | Self::Presence | Self::Commands | Self::Firmware | Self::Discovery => {
                Writer::Server
            }
            Self::SettingsAck | Self::Telemetry | Self::CommandResult(_) | Self::FirmwareStatus => {
                Writer::Device
            }
            Self::SettingsSet => Writer::Operator,
        }
    }

    /// What stands behind the serial in its topics; `None` where that holds an id, or is not below the serial.
    fn path(self) -> Option<&'static str> {
        match self {
            Self::Settings => Some("settings"),
            Self::SettingsAck => Some("settings/ack"),
            Self::SettingsSet => Some("settings/set"),
            Self::Telemetry => Some("telemetry"),
            Self::Presence => Some("presence"),
            Self::Commands => Some("commands"),
            Self::Firmware => Some("firmware"),
            Self::FirmwareStatus => Some("firmware/status"),
            Self::CommandResult(_) | Self::Discovery => None,
        }
    }

    /// A short stable name, for metrics and logs: it never holds an id.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::SettingsAck => "settings_ack",
            Self::SettingsSet => "settings_set",
            Self::Telemetry => "telemetry",
            Self::Presence => "presence",
            Self::Commands => "commands",
            Self::CommandResult(_) => "command_result",
            Self::Firmware => "firmware",
            Self::FirmwareStatus => "firmware_status",
            Self::Discovery => "discovery",
        }
    }
}

/// A topic of DESIGN section 3: `devices/{serial}/{channel}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    /// The device it belongs to.
    pub serial: Serial,
    /// What it carries.
    pub channel: Channel,
}

/// The text is not a topic of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a topic of this server")]
pub struct UnknownTopic;

impl Topic {
    /// The topic of `channel` of the device `serial`.
    pub fn new(serial: Serial, channel: Channel) -> Self {
        Self { serial, channel }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}/{}/", self.serial)?;
        match self.channel {
            Channel::CommandResult(id) => write!(f, "commands/{id}/result"),
            // For logs; its name on MQTT is DiscoveryPrefix's to tell.
            Channel::Discovery => f.write_str("discovery"),
            channel => f.write_str(channel.path().unwrap_or_default()),
        }
    }
}

impl FromStr for Topic {
    type Err = UnknownTopic;

    fn from_str(text: &str) -> Result<Self, UnknownTopic> {
        Self::read(text, None)
    }
}

impl Topic {
    /// Reads a topic's name, as `parse` does. A topic of the device `own` shares its serial, which costs nothing.
    ///
    /// # Errors
    /// When no channel of a device has this name.
    pub fn read(text: &str, own: Option<&Serial>) -> Result<Self, UnknownTopic> {
        let mut levels = text.split('/');
        if levels.next() != Some(ROOT) {
            return Err(UnknownTopic);
        }
        let level = levels.next().ok_or(UnknownTopic)?;
        let serial = match own {
            Some(own) if own.as_str() == level => own.clone(),
            _ => level.parse().map_err(|_| UnknownTopic)?,
        };
        let channel = match (levels.next(), levels.next(), levels.next()) {
            (Some("settings"), None, None) => Channel::Settings,
            (Some("settings"), Some("ack"), None) => Channel::SettingsAck,
            (Some("settings"), Some("set"), None) => Channel::SettingsSet,
            (Some("telemetry"), None, None) => Channel::Telemetry,
            (Some("presence"), None, None) => Channel::Presence,
            (Some("commands"), None, None) => Channel::Commands,
            (Some("commands"), Some(id), Some("result")) => {
                Channel::CommandResult(id.parse().map_err(|_| UnknownTopic)?)
            }
            (Some("firmware"), None, None) => Channel::Firmware,
            (Some("firmware"), Some("status"), None) => Channel::FirmwareStatus,
            _ => return Err(UnknownTopic),
        };
        if levels.next().is_some() {
            Err(UnknownTopic)
        } else {
            Ok(Self { serial, channel })
        }
    }
}

/// The levels of the topic of a device's settings.
pub(crate) fn settings_levels(serial: &Serial) -> impl Iterator<Item = &str> {
    [ROOT, serial.as_str(), "settings"].into_iter()
}

/// The device a topic or filter names in its second level, or `None` for a wildcard or a foreign root.
pub(crate) fn second_level<'a>(mut levels: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    (levels.next() == Some(ROOT)).then(|| levels.next()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_reads_back_as_written() {
        let serial: Serial = "HOME-1".parse().unwrap();
        let channels = [
            Channel::Settings,
            Channel::SettingsAck,
            Channel::SettingsSet,
            Channel::Telemetry,
            Channel::Presence,
            Channel::Commands,
            Channel::CommandResult(Uuid::from_u128(7)),
            Channel::Firmware,
            Channel::FirmwareStatus,
        ];
        for channel in channels {
            let topic = Topic::new(serial.clone(), channel);
            assert_eq!(DiscoveryPrefix::default().name(&topic), topic.to_string());
            assert_eq!(topic.to_string().parse(), Ok(topic));
        }
    }

    #[test]
    fn discovery_has_a_prefix_of_its_own() {
        let prefix: DiscoveryPrefix = "home/assistant".parse().unwrap();
        let named = |serial: &str, channel| prefix.name(&Topic::new(serial.parse().unwrap(), channel));
        assert_eq!(
            named("A-1", Channel::Discovery),
            "home/assistant/device/A-1/config"
        );
        assert_eq!(
            named("A.1", Channel::Discovery),
            "home/assistant/device/A_2E1/config"
        );
        assert_eq!(named("A.1", Channel::Settings), "devices/A.1/settings");
        assert!(prefix.is_status("home/assistant/status") && !prefix.is_status("homeassistant/status"));
        for text in [
            "",
            "a//b",
            "a/",
            "/a",
            "#",
            "a b",
            "devices",
            "responses/x",
            "$SYS",
        ] {
            assert_eq!(text.parse::<DiscoveryPrefix>(), Err(InvalidPrefix), "{text}");
        }
        // Nobody but the server writes there: it is no topic that a client could name.
        assert_eq!("devices/A/discovery".parse::<Topic>(), Err(UnknownTopic));
    }

    #[test]
    fn response_topics_have_a_prefix_and_no_wildcards() {
        for text in ["responses/1", "responses/ops/set/é"] {
            assert_eq!(text.parse::<ResponseTopic>().unwrap().as_str(), text);
        }
        let long = format!("responses/{}", "x".repeat(MAX_RESPONSE_TOPIC));
        for text in [
            "responses",
            "responses/",
            "responses/+",
            "responses/a/#",
            "devices/A/settings",
            "answers/1",
            &long,
        ] {
            assert_eq!(text.parse::<ResponseTopic>(), Err(UnknownTopic), "{text}");
        }
    }

    #[test]
    fn foreign_topics_are_refused() {
        for text in [
            "",
            "devices",
            "devices/",
            "devices/HOME-1",
            "devices/HOME-1/",
            "devices/HOME-1/settings/",
            "devices/HOME-1/settings/ack/x",
            "/devices/HOME-1/settings",
            "devices/é/settings",
            "devices/HOME-1/commands/1/result",
            "Devices/HOME-1/settings",
            "$SYS/x",
        ] {
            assert_eq!(text.parse::<Topic>(), Err(UnknownTopic), "{text}");
        }
    }
}
