//! `[mqtt.limits]`: what one client, one address and all of them together may take.

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// The limits of the edge; [`setpoint_broker::Config`] explains each under the same name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the same fields are documented in setpoint_broker::Config"
)]
pub struct Limits {
    pub max_sessions: usize,
    pub max_sessions_per_address: usize,
    pub max_sessions_per_device: usize,
    pub limit_loopback: bool,
    #[serde(deserialize_with = "units::duration")]
    pub connect_timeout: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub write_timeout: Duration,
    #[serde(deserialize_with = "units::size")]
    pub max_packet_size: u32,
    pub max_messages_per_second: u32,
    #[serde(deserialize_with = "units::size")]
    pub max_bytes_per_second: u32,
    #[serde(deserialize_with = "units::duration")]
    pub rate_patience: Duration,
    pub max_subscriptions: usize,
    /// Subscriptions of one session of an operator.
    pub max_operator_subscriptions: usize,
    pub receive_maximum: u16,
    pub max_in_flight: u16,
    pub topic_alias_maximum: u16,
    #[serde(deserialize_with = "units::seconds")]
    pub max_keep_alive: u16,
    #[serde(deserialize_with = "units::seconds_or_off")]
    pub keep_alive_for_none: Option<u16>,
    #[serde(deserialize_with = "units::duration")]
    pub max_session_expiry: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub v3_session_expiry: Duration,
    pub max_stored_sessions_per_device: usize,
    pub max_stored_operator_sessions: usize,
    pub outbound_queue_messages: usize,
    #[serde(deserialize_with = "units::size")]
    pub outbound_queue_bytes: usize,
    pub offline_queue_messages: usize,
    #[serde(deserialize_with = "units::size")]
    pub offline_queue_bytes: usize,
    #[serde(deserialize_with = "units::duration")]
    pub offline_queue_age: Duration,
    pub max_retained_per_device: usize,
    #[serde(deserialize_with = "units::size")]
    pub max_retained_bytes_per_device: usize,
    pub max_denied_per_minute: u32,
    pub max_failed_logins_per_address: u32,
    pub max_failed_logins_per_serial: u32,
    #[serde(deserialize_with = "units::duration")]
    pub failed_login_window: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub failed_login_backoff: Duration,
}

impl Limits {
    /// The broker's configuration with these limits. Every field is named, so that a new one can't be forgotten.
    pub(super) fn broker(&self, shards: usize) -> setpoint_broker::Config {
        setpoint_broker::Config {
            shards,
            discovery: setpoint_model::topic::DiscoveryPrefix::default(),
            max_sessions: self.max_sessions,
            max_sessions_per_address: self.max_sessions_per_address,
            max_sessions_per_device: self.max_sessions_per_device,
            limit_loopback: self.limit_loopback,
            connect_timeout: self.connect_timeout,
            write_timeout: self.write_timeout,
            max_packet_size: self.max_packet_size,
            max_messages_per_second: self.max_messages_per_second,
            max_bytes_per_second: self.max_bytes_per_second,
            rate_patience: self.rate_patience,
            max_subscriptions: self.max_subscriptions,
            max_operator_subscriptions: self.max_operator_subscriptions,
            receive_maximum: self.receive_maximum,
            max_in_flight: self.max_in_flight,
            topic_alias_maximum: self.topic_alias_maximum,
            max_keep_alive: self.max_keep_alive,
            keep_alive_for_none: self.keep_alive_for_none,
            max_session_expiry: self.max_session_expiry,
            v3_session_expiry: self.v3_session_expiry,
            max_stored_sessions_per_device: self.max_stored_sessions_per_device,
            max_stored_operator_sessions: self.max_stored_operator_sessions,
            outbound_queue_messages: self.outbound_queue_messages,
            outbound_queue_bytes: self.outbound_queue_bytes,
            offline_queue_messages: self.offline_queue_messages,
            offline_queue_bytes: self.offline_queue_bytes,
            offline_queue_age: self.offline_queue_age,
            max_retained_per_device: self.max_retained_per_device,
            max_retained_bytes_per_device: self.max_retained_bytes_per_device,
            max_denied_per_minute: self.max_denied_per_minute,
            max_failed_logins_per_address: self.max_failed_logins_per_address,
            max_failed_logins_per_serial: self.max_failed_logins_per_serial,
            failed_login_window: self.failed_login_window,
            failed_login_backoff: self.failed_login_backoff,
        }
    }
}
