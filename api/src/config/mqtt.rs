//! `[mqtt]`: listeners and the limits of the edge.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;

use super::{error::Invalid, plaintext, units};

/// The port of MQTT over TLS (IANA `secure-mqtt`).
const TLS_PORT: u16 = 8883;

/// The MQTT ports and what their clients may do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// MQTT over TCP; `None` for none.
    #[serde(deserialize_with = "units::listen")]
    pub listen: Option<SocketAddr>,
    /// The path of MQTT over WebSocket on the HTTP port; `None` for none.
    #[serde(deserialize_with = "units::path")]
    pub websocket: Option<String>,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Router shards.
    pub shards: usize,
    /// The longest from the connection to a complete CONNECT.
    #[serde(deserialize_with = "units::duration")]
    pub connect_timeout: Duration,
    /// The longest keep-alive.
    #[serde(deserialize_with = "units::duration")]
    pub max_keep_alive: Duration,
    /// The longest a write may take.
    #[serde(deserialize_with = "units::duration")]
    pub write_timeout: Duration,
    /// The largest packet from a client, in bytes.
    #[serde(deserialize_with = "units::size")]
    pub max_packet: usize,
    /// Sessions in all.
    pub max_sessions: usize,
    /// Sessions from one address.
    pub max_sessions_per_address: usize,
    /// Sessions of one device.
    pub max_sessions_per_device: usize,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Unacknowledged messages per direction and session.
    pub max_inflight: u16,
    /// A session's steady rate of messages.
    pub max_messages_per_second: u32,
    /// A session's steady rate of bytes.
    #[serde(deserialize_with = "units::size")]
    pub max_bytes_per_second: usize,
    /// Messages waiting for one session.
    pub max_queue: usize,
    /// Failed logins per minute from one address.
    pub max_failed_logins_per_address: u32,
    /// Failed logins per minute for one serial.
    pub max_failed_logins_per_serial: u32,
    /// How long a session outlives its connection.
    #[serde(deserialize_with = "units::duration")]
    pub max_session_expiry: Duration,
    /// Messages kept for a session without a connection.
    pub max_offline_messages: usize,
    /// Messages to forbidden topics in a minute that end a 3.1.1 session.
    pub max_denied_publishes: u32,
    /// MQTT over TLS.
    pub tls: Tls,
}

/// MQTT over TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Its address; port 8883 of `mqtt.listen`'s address unless given.
    pub listen: Option<SocketAddr>,
    /// The certificate chain, a PEM file.
    pub cert: Option<PathBuf>,
    /// Its private key, a PEM file.
    pub key: Option<PathBuf>,
    /// The CA of client certificates, a PEM file.
    pub client_ca: Option<PathBuf>,
}

impl Mqtt {
    /// The address of MQTT over TLS, when a certificate is set.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.cert.as_ref()?;
        let ip = self
            .listen
            .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip());
        Some(self.tls.listen.unwrap_or(SocketAddr::new(ip, TLS_PORT)))
    }

    pub(super) fn validate(&self, allow_plaintext: bool) -> Result<(), Invalid> {
        if let Some(address) = self.listen {
            plaintext("mqtt.listen", address, allow_plaintext)?;
        }
        if let Some(path) = &self.websocket {
            let plain = path
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b));
            if !path.starts_with('/') || path.len() < 2 || !plain {
                return Err(Invalid::new(
                    "mqtt.websocket",
                    "a path such as \"/mqtt\", or \"off\"",
                ));
            }
        }
        match (&self.tls.cert, &self.tls.key) {
            (Some(_), None) => return Err(Invalid::new("mqtt.tls.key", "needed with mqtt.tls.cert")),
            (None, Some(_)) => return Err(Invalid::new("mqtt.tls.cert", "needed with mqtt.tls.key")),
            (None, None) if self.tls.listen.is_some() => {
                return Err(Invalid::new("mqtt.tls.cert", "needed with mqtt.tls.listen"));
            }
            (None, None) if self.tls.client_ca.is_some() => {
                return Err(Invalid::new("mqtt.tls.cert", "needed with mqtt.tls.client_ca"));
            }
            _ => {}
        }
        if !(1..=1024).contains(&self.shards) {
            return Err(Invalid::new("mqtt.shards", "1 to 1024"));
        }
        if !(256..=268_435_455).contains(&self.max_packet) {
            return Err(Invalid::new("mqtt.max_packet", "256 B to 256 MiB"));
        }
        if !(1..=u64::from(u16::MAX)).contains(&self.max_keep_alive.as_secs()) {
            return Err(Invalid::new("mqtt.max_keep_alive", "1s to 65535s"));
        }
        let positive = [
            ("mqtt.connect_timeout", !self.connect_timeout.is_zero()),
            ("mqtt.write_timeout", !self.write_timeout.is_zero()),
            ("mqtt.max_sessions", self.max_sessions > 0),
            ("mqtt.max_sessions_per_address", self.max_sessions_per_address > 0),
            ("mqtt.max_sessions_per_device", self.max_sessions_per_device > 0),
            ("mqtt.max_subscriptions", self.max_subscriptions > 0),
            ("mqtt.max_inflight", self.max_inflight > 0),
            ("mqtt.max_messages_per_second", self.max_messages_per_second > 0),
            ("mqtt.max_bytes_per_second", self.max_bytes_per_second > 0),
            ("mqtt.max_queue", self.max_queue > 0),
            (
                "mqtt.max_failed_logins_per_address",
                self.max_failed_logins_per_address > 0,
            ),
            (
                "mqtt.max_failed_logins_per_serial",
                self.max_failed_logins_per_serial > 0,
            ),
            ("mqtt.max_denied_publishes", self.max_denied_publishes > 0),
        ];
        match positive.into_iter().find(|(_, well)| !well) {
            Some((key, _)) => Err(Invalid::new(key, "more than 0")),
            None => Ok(()),
        }
    }
}
