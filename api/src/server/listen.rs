//! The sockets a server listens on.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::{Addresses, StartError};
use crate::config::Config;

/// Connections that may wait to be accepted: thousands of devices come back at once. The system may allow fewer.
const BACKLOG: u32 = 4_096;

pub(super) struct Listeners {
    pub(super) http: TcpListener,
    pub(super) mqtt: Option<TcpListener>,
    pub(super) mqtt_tls: Option<TcpListener>,
    pub(super) metrics: Option<TcpListener>,
}

impl Listeners {
    /// Takes every address of the configuration.
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        let optional = |key, address: Option<SocketAddr>| address.map(|a| bind(key, a)).transpose();
        Ok(Self {
            http: bind("http.listen", config.http.listen)?,
            mqtt: optional("mqtt.listen", config.mqtt.listen)?,
            mqtt_tls: optional("mqtt.tls.listen", config.mqtt.tls_address())?,
            metrics: optional("metrics.listen", config.metrics.listen)?,
        })
    }

    /// Where they are; the system chose the port when the configuration says 0.
    pub(super) fn addresses(&self, config: &Config) -> Addresses {
        let address = |listener: &Option<TcpListener>| listener.as_ref().and_then(|l| l.local_addr().ok());
        Addresses {
            http: self.http.local_addr().unwrap_or(config.http.listen),
            mqtt: address(&self.mqtt),
            mqtt_tls: address(&self.mqtt_tls),
            websocket: config.mqtt.websocket.clone(),
            metrics: address(&self.metrics),
        }
    }
}

pub(crate) fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // A restart must not wait for old connections to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| StartError::Listen { key, address, source })
}
