//! What the edge may be told: every limit, with the default that a server facing the internet wants.

use std::time::Duration;

use setpoint_model::topic::DiscoveryPrefix;

/// The edge's limits. The API's configuration section `mqtt` maps onto it; [`Config::default`] is the truth for
/// the defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Router shards: a device belongs to one of them by its serial, 1 to 1,024.
    pub shards: usize,

    /// Below which topics Home Assistant is told of devices.
    pub discovery: DiscoveryPrefix,

    /// Connections at once in all, those that have not said CONNECT yet included.
    pub max_sessions: usize,
    /// Connections at once from one address.
    pub max_sessions_per_address: usize,
    /// Live sessions of one device; it needs another client id for each.
    pub max_sessions_per_device: usize,
    /// Whether the limits per address also hold for loopback addresses. Behind a proxy on the same machine every
    /// client has such an address, so they don't by default.
    pub limit_loopback: bool,

    /// How long a connection may take from being accepted (TLS included) to its CONNECT.
    pub connect_timeout: Duration,
    /// How long bytes may wait for a client that doesn't read before its session is ended.
    pub write_timeout: Duration,
    /// The largest packet a client may send, in bytes after the fixed header.
    pub max_packet_size: u32,

    /// Packets per second that one client may send; faster is first slowed down, see `rate_patience`.
    pub max_messages_per_second: u32,
    /// Bytes per second that one client may send.
    pub max_bytes_per_second: u32,
    /// How long a client may stay above its rates, slowed down, before its session is ended.
    pub rate_patience: Duration,

    /// Subscriptions of one session of a device.
    pub max_subscriptions: usize,
    /// Subscriptions of one session of an operator: Home Assistant has three for each device.
    pub max_operator_subscriptions: usize,
    /// Messages of one client that may wait for their acknowledgement by the server: the Receive Maximum of
    /// MQTT 5 [MQTT-3.2.2.3.3], and the point where the edge stops reading from any client.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages on their way to one client without its acknowledgement, if the client doesn't ask for
    /// fewer.
    pub max_in_flight: u16,
    /// Topic aliases a client may set [MQTT-3.2.2.3.8], and the most it is sent if it allows more.
    pub topic_alias_maximum: u16,

    /// The longest keep-alive in seconds; an MQTT 5 client that asks for more is told this one. It bounds how long
    /// a device that vanished still counts as online; for devices that sleep between their words, raise it.
    pub max_keep_alive: u16,
    /// What an MQTT 5 client that asks for no keep-alive is told to use, in seconds; `None` lets it.
    pub keep_alive_for_none: Option<u16>,

    /// The longest session expiry an MQTT 5 client may have.
    pub max_session_expiry: Duration,
    /// How long the session of an MQTT 3.1.1 client with clean session 0 outlives its connection.
    pub v3_session_expiry: Duration,
    /// Sessions of one device that may wait for it to come back; beyond them the one longest gone is dropped.
    pub max_stored_sessions_per_device: usize,
    /// Stored sessions of operators in all; kept to within a factor of two, for they are counted in groups.
    pub max_stored_operator_sessions: usize,

    /// Messages that wait for a connected client; QoS 0 is dropped beyond it, and a client whose QoS 1 and 2
    /// messages overflow it is disconnected.
    pub outbound_queue_messages: usize,
    /// Bytes of payload that wait for a connected client.
    pub outbound_queue_bytes: usize,
    /// QoS 1 and 2 messages kept for a device, over all of its sessions whose client is away; the oldest are dropped
    /// beyond it. For an operator's session alike.
    pub offline_queue_messages: usize,
    /// Bytes of payload kept so.
    pub offline_queue_bytes: usize,
    /// How long a message is kept so.
    pub offline_queue_age: Duration,

    /// Retained messages that clients, not the server, may have in place per device.
    pub max_retained_per_device: usize,
    /// Bytes of payload of those.
    pub max_retained_bytes_per_device: usize,

    /// Publishes to forbidden topics within a minute that end an MQTT 3.1.1 session, up to 60; 0 never does.
    pub max_denied_per_minute: u32,

    /// Failed logins from one address within `failed_login_window` before it must wait.
    pub max_failed_logins_per_address: u32,
    /// Failed logins for one user name from one address within `failed_login_window` before it must wait.
    pub max_failed_logins_per_serial: u32,
    /// The window those are counted in.
    pub failed_login_window: Duration,
    /// How long the first wait is; it doubles with each further one, up to 32 times.
    pub failed_login_backoff: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: 64,
            discovery: DiscoveryPrefix::default(),
            max_sessions: 100_000,
            max_sessions_per_address: 1_000,
            max_sessions_per_device: 16,
            limit_loopback: false,
            connect_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(20),
            max_packet_size: 256 * 1024,
            max_messages_per_second: 5_000,
            max_bytes_per_second: 8 * 1024 * 1024,
            rate_patience: Duration::from_secs(30),
            max_subscriptions: 100,
            max_operator_subscriptions: 5_000,
            receive_maximum: 64,
            max_in_flight: 100,
            topic_alias_maximum: 16,
            max_keep_alive: 60,
            keep_alive_for_none: Some(1_800),
            max_session_expiry: Duration::from_secs(7 * 86_400),
            v3_session_expiry: Duration::from_secs(86_400),
            max_stored_sessions_per_device: 4,
            max_stored_operator_sessions: 1_000,
            outbound_queue_messages: 10_000,
            outbound_queue_bytes: 8 * 1024 * 1024,
            offline_queue_messages: 1_000,
            offline_queue_bytes: 1024 * 1024,
            offline_queue_age: Duration::from_secs(7 * 86_400),
            max_retained_per_device: 16,
            max_retained_bytes_per_device: 64 * 1024,
            max_denied_per_minute: 3,
            max_failed_logins_per_address: 100,
            max_failed_logins_per_serial: 10,
            failed_login_window: Duration::from_secs(60),
            failed_login_backoff: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Checks what a type can't: that every number makes sense.
    ///
    /// # Errors
    /// One sentence that names the field.
    pub fn check(&self) -> Result<(), &'static str> {
        let rules = [
            ((1..=1024).contains(&self.shards), "shards must be 1 to 1024"),
            (
                self.max_packet_size >= 1024,
                "max_packet_size must be at least 1024",
            ),
            (
                self.max_packet_size <= 0x0FFF_FFFF,
                "max_packet_size must be at most 268435455",
            ),
            (self.receive_maximum > 0, "receive_maximum must be at least 1"),
            (self.max_in_flight > 0, "max_in_flight must be at least 1"),
            (self.max_sessions > 0, "max_sessions must be at least 1"),
            (
                self.max_messages_per_second > 0,
                "max_messages_per_second must be at least 1",
            ),
            (
                self.max_bytes_per_second >= 1024,
                "max_bytes_per_second must be at least 1024",
            ),
            (
                self.max_denied_per_minute <= 60,
                "max_denied_per_minute must be at most 60",
            ),
            (self.max_keep_alive > 0, "max_keep_alive must be at least 1"),
            (
                !self.connect_timeout.is_zero(),
                "connect_timeout must not be zero",
            ),
            (!self.write_timeout.is_zero(), "write_timeout must not be zero"),
        ];
        rules
            .iter()
            .find(|(holds, _)| !holds)
            .map_or(Ok(()), |(_, rule)| Err(*rule))
    }
}
