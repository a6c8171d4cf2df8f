//! Who may publish and subscribe to what on MQTT (DESIGN section 3), in one place.

use std::{
    collections::HashSet,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use uuid::Uuid;

use crate::{
    filter::{Reach, TopicFilter},
    role::Role,
    serial::Serial,
    topic::{DiscoveryPrefix, Topic, Writer},
};

/// An authenticated MQTT client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A device, by its token or certificate.
    Device(Serial),
    /// A person or program with an API token of scope `mqtt`.
    Operator(Arc<Operator>),
}

/// A person or program with an API token, as MQTT knows them. Two are the same if their token is.
#[derive(Debug)]
pub struct Operator {
    /// The API token it signed in with.
    pub token: Uuid,
    /// That token's name, for logs and history.
    pub name: String,
    /// The person who made the token, if one did.
    pub user: Option<Uuid>,
    /// What that person is.
    pub role: Role,
    /// Whether it may publish to `settings/set`.
    pub sets: bool,
    /// Whether it may publish on a device's behalf.
    pub speaks: bool,
    /// Whose devices it reaches, as things stand.
    pub view: Arc<View>,
}

/// Which devices somebody may know of while they listen. Whoever made it keeps it up to date.
#[derive(Debug)]
pub struct View {
    /// These alone; `None` for all there are.
    devices: Option<RwLock<HashSet<Serial>>>,
    ended: AtomicBool,
}

impl View {
    /// Of all devices.
    pub fn of_all() -> Self {
        Self {
            devices: None,
            ended: AtomicBool::new(false),
        }
    }

    /// Of none, until it is told of some.
    pub fn of_own() -> Self {
        Self {
            devices: Some(RwLock::default()),
            ended: AtomicBool::new(false),
        }
    }

    /// Whether this device may be known of now.
    pub fn sees(&self, serial: &Serial) -> bool {
        !self.has_ended()
            && self.devices.as_ref().is_none_or(|devices| {
                devices
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .contains(serial)
            })
    }

    /// Whether it is of all devices.
    pub fn is_of_all(&self) -> bool {
        self.devices.is_none()
    }

    /// Puts these devices in the place of those before; nothing happens to a view of all.
    pub fn replace(&self, serials: HashSet<Serial>) {
        if let Some(devices) = &self.devices {
            *devices.write().unwrap_or_else(PoisonError::into_inner) = serials;
        }
    }

    /// Nothing may be seen any more.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether it ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Operator {
    /// One who may do everything that operators may, for every device.
    pub fn everywhere(token: Uuid, name: impl Into<String>) -> Self {
        Self {
            token,
            name: name.into(),
            user: None,
            role: Role::Operator,
            sets: true,
            speaks: true,
            view: Arc::new(View::of_all()),
        }
    }
}

impl PartialEq for Operator {
    fn eq(&self, other: &Self) -> bool {
        self.token == other.token
    }
}

impl Eq for Operator {}

impl Identity {
    /// Whether this client may subscribe to `filter`.
    ///
    /// A device may hear itself, `devices/{itself}/#` or narrower, and shares with nobody. An operator may hear
    /// `devices/#` or narrower; one who may not know of every device gets what is theirs of it, and shares with
    /// nobody either. It is the same with what Home Assistant is told, below `prefix`. Answers to its own requests every
    /// operator may hear.
    pub fn may_subscribe(&self, filter: &TopicFilter, prefix: &DiscoveryPrefix) -> bool {
        self.may_subscribe_to(filter, &filter.reach(prefix))
    }

    /// The same where it is known what `filter` reaches.
    pub fn may_subscribe_to(&self, filter: &TopicFilter, reach: &Reach) -> bool {
        match (self, reach) {
            (_, Reach::Nothing) | (Self::Device(_), Reach::Fleet | Reach::Discovery | Reach::Responses) => {
                false
            }
            (Self::Operator(operator), Reach::Responses) => {
                filter.share().is_none() && !operator.view.has_ended()
            }
            (Self::Device(own), Reach::Device(serial)) => own == serial && filter.share().is_none(),
            (Self::Operator(operator), reach) => {
                let view = &operator.view;
                let named = match reach {
                    Reach::Device(serial) => view.sees(serial),
                    _ => !view.has_ended(),
                };
                named && (view.is_of_all() || filter.share().is_none())
            }
        }
    }

    /// Whether a message of this device may reach this client now: to be asked at every delivery, since the answer
    /// may change after SUBSCRIBE.
    pub fn may_hear(&self, serial: &Serial) -> bool {
        match self {
            // Its subscriptions are of itself alone.
            Self::Device(_) => true,
            Self::Operator(operator) => operator.view.sees(serial),
        }
    }

    /// Whether this client may publish to `topic`.
    pub fn may_publish(&self, topic: &Topic) -> bool {
        match (self, topic.channel.writer()) {
            (_, Writer::Server) | (Self::Device(_), Writer::Operator) => false,
            (Self::Device(own), Writer::Device) => *own == topic.serial,
            (Self::Operator(operator), Writer::Device) => {
                operator.speaks && operator.view.sees(&topic.serial)
            }
            (Self::Operator(operator), Writer::Operator) => {
                operator.sets && operator.view.sees(&topic.serial)
            }
        }
    }

    /// Whether this client may say that it is Home Assistant, which comes and goes: such a message goes nowhere.
    pub fn may_announce(&self, topic: &str, prefix: &DiscoveryPrefix) -> bool {
        matches!(self, Self::Operator(_)) && prefix.is_status(topic)
    }

    /// The device this client is, if it is one.
    pub fn serial(&self) -> Option<&Serial> {
        match self {
            Self::Device(serial) => Some(serial),
            Self::Operator(_) => None,
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
        Identity::Operator(Operator::everywhere(Uuid::nil(), "ops").into())
    }

    /// Of the devices A and C, which may be set and not spoken for.
    fn owner() -> (Identity, Arc<View>) {
        let view = Arc::new(View::of_own());
        view.replace(["A", "C"].map(|serial| serial.parse().unwrap()).into());
        let owner = Operator {
            role: Role::Owner,
            speaks: false,
            view: Arc::clone(&view),
            ..Operator::everywhere(Uuid::nil(), "anna")
        };
        (Identity::Operator(owner.into()), view)
    }

    #[test]
    fn a_device_hears_itself_only_and_an_owner_their_own() {
        for (filter, device_may, operator_may, owner_may) in [
            ("devices/A/#", true, true, true),
            ("devices/A/settings", true, true, true),
            ("devices/A/+", true, true, true),
            ("devices/B/settings", false, true, false),
            ("devices/+/settings", false, true, true),
            ("devices/#", false, true, true),
            ("$share/g/devices/A/#", false, true, false),
            ("$share/g/devices/#", false, true, false),
            ("#", false, false, false),
            ("+/A/settings", false, false, false),
            ("other/A", false, false, false),
            ("homeassistant/#", false, true, true),
            ("homeassistant/device/+/config", false, true, true),
            ("$share/g/homeassistant/#", false, true, false),
            ("responses/#", false, true, true),
            ("responses/ops/1", false, true, true),
            ("$share/g/responses/#", false, false, false),
            ("$SYS/#", false, false, false),
        ] {
            let filter = filter.parse().unwrap();
            let prefix = DiscoveryPrefix::default();
            assert_eq!(device().may_subscribe(&filter, &prefix), device_may, "{filter}");
            assert_eq!(
                operator().may_subscribe(&filter, &prefix),
                operator_may,
                "{filter}"
            );
            assert_eq!(owner().0.may_subscribe(&filter, &prefix), owner_may, "{filter}");
        }
    }

    #[test]
    fn nobody_but_the_server_writes_what_the_server_writes() {
        for (topic, device_may, operator_may, owner_may) in [
            ("devices/A/telemetry", true, true, false),
            ("devices/A/settings/ack", true, true, false),
            (
                "devices/A/commands/00000000-0000-0000-0000-000000000001/result",
                true,
                true,
                false,
            ),
            ("devices/A/firmware/status", true, true, false),
            ("devices/B/telemetry", false, true, false),
            ("devices/A/settings/set", false, true, true),
            ("devices/B/settings/set", false, true, false),
            ("devices/A/settings", false, false, false),
            ("devices/A/presence", false, false, false),
            ("devices/A/commands", false, false, false),
            ("devices/A/firmware", false, false, false),
        ] {
            let topic = topic.parse().unwrap();
            assert_eq!(device().may_publish(&topic), device_may, "{topic}");
            assert_eq!(operator().may_publish(&topic), operator_may, "{topic}");
            assert_eq!(owner().0.may_publish(&topic), owner_may, "{topic}");
        }
    }

    #[test]
    fn operators_alone_may_be_home_assistant() {
        let prefix = DiscoveryPrefix::default();
        assert!(operator().may_announce("homeassistant/status", &prefix));
        assert!(!operator().may_announce("homeassistant/device/A/config", &prefix));
        assert!(!device().may_announce("homeassistant/status", &prefix));
    }

    #[test]
    fn a_right_that_ends_ends_at_once() {
        let (owner, view) = owner();
        let (a, c): (Serial, Serial) = ("A".parse().unwrap(), "C".parse().unwrap());
        let set: Topic = "devices/A/settings/set".parse().unwrap();
        assert!(owner.may_hear(&a) && owner.may_publish(&set));
        view.replace(HashSet::from([c.clone()]));
        assert!(!owner.may_hear(&a) && !owner.may_publish(&set) && owner.may_hear(&c));
        view.end();
        assert!(
            !owner.may_hear(&c)
                && !owner.may_subscribe(&"devices/#".parse().unwrap(), &DiscoveryPrefix::default())
        );
    }
}
