//! What a client wants said when it goes without a word [MQTT-3.1.2.5].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rmqtt_codec::{
    types::QoS,
    v5::{LastWill, PublishProperties},
};
use setpoint_model::{Identity, Topic};

use crate::backend::SessionInfo;

/// A will that the topic rules allow.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) topic: Topic,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: Option<Box<PublishProperties>>,
    /// How long after the connection it is said [MQTT-3.1.3.2.2].
    pub(crate) delay: Duration,
}

/// A will that waits for its delay while its session is stored.
#[derive(Debug)]
pub(crate) struct DelayedWill {
    /// The connection that left it.
    pub(crate) connection: u64,
    pub(crate) will: Will,
    pub(crate) info: Arc<SessionInfo>,
}

impl Will {
    /// Takes the will out of a CONNECT; `None` if its client may not publish it.
    pub(crate) fn new(will: LastWill, identity: &Identity) -> Option<Self> {
        let topic: Topic = will.topic.parse().ok()?;
        if !identity.may_publish(&topic) {
            return None;
        }
        let properties = PublishProperties {
            correlation_data: will.correlation_data,
            message_expiry_interval: will.message_expiry_interval,
            content_type: will.content_type,
            user_properties: will.user_properties,
            is_utf8_payload: will.is_utf8_payload.unwrap_or(false),
            response_topic: will.response_topic,
            ..PublishProperties::default()
        };
        Some(Self {
            topic,
            payload: will.message,
            qos: will.qos,
            retain: will.retain,
            properties: (properties != PublishProperties::default()).then(|| Box::new(properties)),
            delay: Duration::from_secs(u64::from(will.will_delay_interval_sec.unwrap_or(0))),
        })
    }
}
