//! `[http]`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

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
    /// Where people and devices reach this server; from the request without it.
    pub public_url: Option<String>,
    /// Proxies whose word for a client's address is taken.
    pub trusted_proxies: Vec<IpAddr>,
    /// How fast clients may ask.
    pub limits: RequestLimits,
}

/// How fast clients may ask.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestLimits {
    /// Requests of one address in a second, in the long run.
    pub per_address: u32,
    /// Requests of one token or session in a second, in the long run.
    pub per_token: u32,
    /// How many seconds' worth may come at once.
    pub burst: u32,
    /// Whether they also hold for loopback addresses.
    pub limit_loopback: bool,
}

impl Http {
    pub(super) fn validate(&self, allow_plaintext: bool) -> Result<(), Invalid> {
        plaintext("http.listen", self.listen, allow_plaintext)?;
        if self.max_connections == 0 {
            return Err(Invalid::new("http.max_connections", "at least 1"));
        }
        for (key, value) in [
            ("http.limits.per_address", self.limits.per_address),
            ("http.limits.per_token", self.limits.per_token),
            ("http.limits.burst", self.limits.burst),
        ] {
            if value == 0 {
                return Err(Invalid::new(key, "at least 1"));
            }
        }
        let http = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        if self.public_url.as_ref().is_some_and(|url| !http(url)) {
            return Err(Invalid::new(
                "http.public_url",
                "an address such as \"https://things.example\"",
            ));
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
