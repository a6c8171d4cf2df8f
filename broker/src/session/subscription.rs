//! What a session wants to hear.

use std::num::NonZeroU32;

use rmqtt_codec::types::QoS;
use setpoint_model::{Serial, TopicFilter};

/// One subscription of one session, shared with the shards that serve it.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Its topic filter, with the share name of a shared one.
    pub(crate) filter: TopicFilter,
    /// The highest QoS it is served with.
    pub(crate) qos: QoS,
    /// Not what the session itself published [MQTT-3.8.3-3].
    pub(crate) no_local: bool,
    /// Whether the RETAIN flag is forwarded as it was published [MQTT-3.8.3.1].
    pub(crate) retain_as_published: bool,
    /// What MQTT 5 puts on each message of this subscription [MQTT-3.3.4-3].
    pub(crate) id: Option<NonZeroU32>,
}

impl Subscription {
    /// Whether it hears the settings of `serial`.
    pub(crate) fn hears_settings(&self, serial: &Serial) -> bool {
        self.filter.share().is_none() && self.filter.matches_settings(serial)
    }
}
