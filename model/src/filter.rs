//! Topic filters: parsing and matching as [MQTT-4.7] says, with shared subscriptions of MQTT 5 (section 4.8.2).

use std::{fmt, str::FromStr, sync::Arc};

use crate::{
    serial::Serial,
    topic::{DiscoveryPrefix, is_response, second_level, settings_levels},
};

/// The most levels a filter may have; our deepest topic has five.
pub const MAX_LEVELS: usize = 16;

/// A well-formed topic filter, with the share group taken off.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TopicFilter {
    share: Option<Arc<str>>,
    filter: Arc<str>,
}

/// Why a text is not a topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// [MQTT-4.7.3-1]: at least one character.
    #[error("a topic filter has at least one character")]
    Empty,
    /// [MQTT-4.7.1-2], [MQTT-4.7.1-3]: `#` stands alone at the end, `+` alone in its level.
    #[error("`#` must be the last level and `+` a whole level")]
    Wildcard,
    /// [MQTT-4.8.2-1]: `$share/{name}/{filter}`, the name without wildcards.
    #[error("a shared subscription is $share/name/filter")]
    Share,
    /// More than [`MAX_LEVELS`].
    #[error("too many levels")]
    TooDeep,
}

/// Which devices a filter can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// One device: its second level is that serial.
    Device(Serial),
    /// Many: its second level is a wildcard (`devices/+/...`, `devices/#`).
    Fleet,
    /// Many: what Home Assistant is told of them.
    Discovery,
    /// No device: answers to what the subscriber itself asks ([`crate::topic::ResponseTopic`]).
    Responses,
    /// None: it matches no topic of ours, or also foreign ones (`#`, `+/x`, `other/...`).
    Nothing,
}

impl TopicFilter {
    /// The filter without its `$share/{name}/` prefix.
    pub fn as_str(&self) -> &str {
        &self.filter
    }

    /// The share name of a shared subscription.
    pub fn share(&self) -> Option<&str> {
        self.share.as_deref()
    }

    /// Which devices this filter can reach, discovery being below `prefix`.
    pub fn reach(&self, prefix: &DiscoveryPrefix) -> Reach {
        if prefix.below(&self.filter).is_some() {
            return Reach::Discovery;
        }
        if is_response(&self.filter) {
            return Reach::Responses;
        }
        match second_level(self.filter.split('/')) {
            Some("#" | "+") => Reach::Fleet,
            Some(serial) => serial.parse().map_or(Reach::Nothing, Reach::Device),
            None => Reach::Nothing,
        }
    }

    /// Whether a message on `topic` is to be delivered to this filter's subscriber.
    ///
    /// A filter that begins with a wildcard doesn't match a topic that begins with `$` [MQTT-4.7.2-1].
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.filter.starts_with(['+', '#']) {
            return false;
        }
        self.matches_levels(topic.split('/'))
    }

    /// The same for the topic of a device's settings.
    pub fn matches_settings(&self, serial: &Serial) -> bool {
        self.matches_levels(settings_levels(serial))
    }

    fn matches_levels<'a>(&self, mut levels: impl Iterator<Item = &'a str>) -> bool {
        for wanted in self.filter.split('/') {
            match (wanted, levels.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl FromStr for TopicFilter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        let (share, filter) = match text.strip_prefix("$share/") {
            Some(rest) => {
                let (name, filter) = rest.split_once('/').ok_or(InvalidFilter::Share)?;
                if name.is_empty() || name.contains(['+', '#']) || filter.is_empty() {
                    return Err(InvalidFilter::Share);
                }
                (Some(name.into()), filter)
            }
            None => (None, text),
        };
        if filter.is_empty() {
            return Err(InvalidFilter::Empty);
        }
        let count = filter.split('/').count();
        if count > MAX_LEVELS {
            return Err(InvalidFilter::TooDeep);
        }
        for (index, level) in filter.split('/').enumerate() {
            let last = index + 1 == count;
            let well = match level {
                "#" => last,
                "+" => true,
                _ => !level.contains(['+', '#']),
            };
            if !well {
                return Err(InvalidFilter::Wildcard);
            }
        }
        Ok(Self {
            share,
            filter: filter.into(),
        })
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.share {
            Some(share) => write!(f, "$share/{share}/{}", self.filter),
            None => f.write_str(&self.filter),
        }
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> TopicFilter {
        text.parse().unwrap()
    }

    #[test]
    fn the_settings_of_a_device_are_matched_by_their_levels() {
        let serial: Serial = "A-1".parse().unwrap();
        for text in [
            "devices/A-1/settings",
            "devices/+/settings",
            "+/+/settings",
            "devices/#",
            "#",
            "devices/A-1/settings/#",
            "devices/A-1",
            "devices/A-1/settings/ack",
            "devices/A-2/settings",
        ] {
            let filter = filter(text);
            let matches = filter.matches("devices/A-1/settings");
            assert_eq!(filter.matches_settings(&serial), matches, "{text}");
        }
    }

    #[test]
    fn matches_as_the_standard_says() {
        for (wanted, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/x", true),
            ("devices/A/settings", "devices/A/settings/ack", false),
        ] {
            assert_eq!(filter(wanted).matches(topic), expected, "{wanted} on {topic}");
        }
    }

    #[test]
    fn malformed_filters_are_refused() {
        for (text, error) in [
            ("", InvalidFilter::Empty),
            ("a/#/b", InvalidFilter::Wildcard),
            ("a#", InvalidFilter::Wildcard),
            ("a/b+", InvalidFilter::Wildcard),
            ("$share/", InvalidFilter::Share),
            ("$share/g", InvalidFilter::Share),
            ("$share/g/", InvalidFilter::Share),
            ("$share//a", InvalidFilter::Share),
            ("$share/g+/a", InvalidFilter::Share),
        ] {
            assert_eq!(text.parse::<TopicFilter>(), Err(error), "{text}");
        }
        assert_eq!(
            "a/".repeat(MAX_LEVELS).parse::<TopicFilter>(),
            Err(InvalidFilter::TooDeep)
        );
    }

    #[test]
    fn reach_names_the_one_device_a_filter_can_hear() {
        let prefix = DiscoveryPrefix::default();
        let reach = |text: &str| filter(text).reach(&prefix);
        assert_eq!(reach("devices/A/#"), Reach::Device("A".parse().unwrap()));
        assert_eq!(
            reach("$share/g/devices/A/telemetry"),
            Reach::Device("A".parse().unwrap())
        );
        assert_eq!(reach("devices/+/telemetry"), Reach::Fleet);
        assert_eq!(reach("devices/#"), Reach::Fleet);
        for discovery in [
            "homeassistant/#",
            "homeassistant/+/+/config",
            "homeassistant/status",
        ] {
            assert_eq!(reach(discovery), Reach::Discovery, "{discovery}");
        }
        for responses in ["responses/#", "responses/ops/1", "responses/+/x"] {
            assert_eq!(reach(responses), Reach::Responses, "{responses}");
        }
        for nothing in [
            "responses",
            "#",
            "homeassistant",
            "+/A/settings",
            "devices",
            "$SYS/#",
            "devices/a b/x",
        ] {
            assert_eq!(reach(nothing), Reach::Nothing, "{nothing}");
        }
    }

    /// The rule written a second time, as a recursion over levels.
    fn reference(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            ([], []) | (["#"], _) => true,
            (["+", filter @ ..], [_, topic @ ..]) => reference(filter, topic),
            ([wanted, filter @ ..], [level, topic @ ..]) => wanted == level && reference(filter, topic),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_reference(wanted in "([ab+]/){0,3}[ab+#]", topic in "([ab]/){0,3}[ab]") {
            let expected = reference(
                &wanted.split('/').collect::<Vec<_>>(),
                &topic.split('/').collect::<Vec<_>>(),
            );
            prop_assert_eq!(filter(&wanted).matches(&topic), expected);
        }

        #[test]
        fn parsing_never_panics_and_round_trips(text in "[$a-c/+#share]{0,24}") {
            if let Ok(parsed) = text.parse::<TopicFilter>() {
                prop_assert_eq!(parsed.to_string(), text);
            }
        }
    }
}
