//! `[mqtt]`: listeners and the limits of the edge.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::Deserialize;
use setpoint_broker::transport::tls;
use setpoint_model::models;

use super::{error::Invalid, mqtt_limits::Limits, plaintext, units};

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
    /// Limits of the edge.
    pub limits: Limits,
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
    /// Whether a client without a certificate is refused.
    pub client_required: bool,
    /// The model of devices that their certificates make; `None` if they make none.
    pub enrol_model: Option<models::Name>,
    /// How many are made within a minute at most.
    pub enrol_per_minute: u32,
}

impl Tls {
    /// The files of the listener, when a certificate is set.
    pub fn files(&self) -> Option<tls::Files> {
        Some(tls::Files {
            certificate: self.cert.clone()?,
            key: self.key.clone()?,
            client_ca: self.client_ca.clone(),
            client_required: self.client_required,
        })
    }
}

impl Mqtt {
    /// What the broker is told of it.
    pub fn broker(&self) -> setpoint_broker::Config {
        self.limits.broker(self.shards)
    }

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
        if self.tls.client_required && self.tls.client_ca.is_none() {
            return Err(Invalid::new(
                "mqtt.tls.client_ca",
                "needed with mqtt.tls.client_required",
            ));
        }
        if self.tls.enrol_model.is_some() && self.tls.client_ca.is_none() {
            return Err(Invalid::new(
                "mqtt.tls.client_ca",
                "needed with mqtt.tls.enrol_model",
            ));
        }
        if self.tls.enrol_per_minute == 0 {
            return Err(Invalid::new("mqtt.tls.enrol_per_minute", "at least 1"));
        }
        if !(1..=1024).contains(&self.shards) {
            return Err(Invalid::new("mqtt.shards", "1 to 1024"));
        }
        match self.broker().check() {
            Ok(()) => Ok(()),
            Err(rule) => Err(Invalid::new("mqtt.limits", rule)),
        }
    }
}
