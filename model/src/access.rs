//! Who may publish and subscribe to what on MQTT (DESIGN section 3), in one place.

use uuid::Uuid;

use crate::{
    filter::{Reach, TopicFilter},
    serial::Serial,
    topic::{Topic, Writer},
};

/// An authenticated MQTT client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A device, by its token or certificate.
    Device(Serial),
    /// A person or program with an API token of scope `mqtt`.
    Operator {
        /// The API token it signed in with.
        token: Uuid,
        /// That token's name, for logs and history.
        name: String,
    },
}

impl Identity {
    /// Whether this client may subscribe to `filter`.
    ///
    /// A device may hear itself, `devices/{itself}/#` or narrower, and shares with nobody; an operator may
    /// hear `devices/#` or narrower.
    pub fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        match (self, filter.reach()) {
            (Self::Device(own), Reach::Device(serial)) => *own == serial && filter.share().is_none(),
            (Self::Operator { .. }, Reach::Device(_) | Reach::Fleet) => true,
            _ => false,
        }
    }

    /// Whether this client may publish to `topic`.
    pub fn may_publish(&self, topic: &Topic) -> bool {
        match (self, topic.channel.writer()) {
            (_, Writer::Server) | (Self::Device(_), Writer::Operator) => false,
            (Self::Device(own), Writer::Device) => *own == topic.serial,
            (Self::Operator { .. }, Writer::Device | Writer::Operator) => true,
        }
    }

    /// The device this client is, if it is one.
    pub fn serial(&self) -> Option<&Serial> {
        match self {
            Self::Device(serial) => Some(serial),
            Self::Operator { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Identity {
        Identity::Device("A".parse().unwrap())
    }

    fn operator() -> Identity {
        Identity::Operator {
            token: Uuid::nil(),
            name: "ops".into(),
        }
    }

    #[test]
    fn a_device_hears_itself_only() {
        for (filter, device_may, operator_may) in [
            ("devices/A/#", true, true),
            ("devices/A/settings", true, true),
            ("devices/A/+", true, true),
            ("devices/B/settings", false, true),
            ("devices/+/settings", false, true),
            ("devices/#", false, true),
            ("$share/g/devices/A/#", false, true),
            ("#", false, false),
            ("+/A/settings", false, false),
            ("other/A", false, false),
            ("$SYS/#", false, false),
        ] {
            let filter = filter.parse().unwrap();
            assert_eq!(device().may_subscribe(&filter), device_may, "{filter}");
            assert_eq!(operator().may_subscribe(&filter), operator_may, "{filter}");
        }
    }

    #[test]
    fn nobody_but_the_server_writes_what_the_server_writes() {
        for (topic, device_may, operator_may) in [
            ("devices/A/telemetry", true, true),
            ("devices/A/settings/ack", true, true),
            (
                "devices/A/commands/00000000-0000-0000-0000-000000000001/result",
                true,
                true,
            ),
            ("devices/A/firmware/status", true, true),
            ("devices/B/telemetry", false, true),
            ("devices/A/settings/set", false, true),
            ("devices/A/settings", false, false),
            ("devices/A/presence", false, false),
            ("devices/A/commands", false, false),
            ("devices/A/firmware", false, false),
        ] {
            let topic = topic.parse().unwrap();
            assert_eq!(device().may_publish(&topic), device_may, "{topic}");
            assert_eq!(operator().may_publish(&topic), operator_may, "{topic}");
        }
    }
}
