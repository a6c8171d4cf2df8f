//! `[http]`.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::{error::Invalid, plaintext, units};

/// The HTTP port.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Its address.
    pub listen: SocketAddr,
    /// The largest request body, in bytes.
    #[serde(deserialize_with = "units::size")]
    pub max_body: usize,
    /// The longest a request may take.
    #[serde(deserialize_with = "units::duration")]
    pub request_timeout: Duration,
    /// The longest a client may take to send a request's headers.
    #[serde(deserialize_with = "units::duration")]
    pub header_timeout: Duration,
    /// How long an answer may wait for a client that doesn't read it.
    #[serde(deserialize_with = "units::duration")]
    pub write_timeout: Duration,
    /// Connections at once.
    pub max_connections: usize,
}

impl Http {
    pub(super) fn validate(&self, allow_plaintext: bool) -> Result<(), Invalid> {
        plaintext("http.listen", self.listen, allow_plaintext)?;
        if self.max_connections == 0 {
            return Err(Invalid::new("http.max_connections", "at least 1"));
        }
        if self.request_timeout.is_zero() {
            return Err(Invalid::new("http.request_timeout", "more than 0s"));
        }
        if self.header_timeout.is_zero() {
            return Err(Invalid::new("http.header_timeout", "more than 0s"));
        }
        if self.write_timeout.is_zero() {
            return Err(Invalid::new("http.write_timeout", "more than 0s"));
        }
        Ok(())
    }
}
