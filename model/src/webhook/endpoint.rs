//! Where a webhook's events go.

use std::{fmt, net::IpAddr};

use url::{Host, Url};

/// An absolute `http` or `https` URL without user, password or fragment, in its normal form (WHATWG): `0x7f.1` as a host is
/// `127.0.0.1` here.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

/// The host of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// It says itself where it is.
    Address(IpAddr),
    /// It is looked up.
    Name(String),
}

/// Why a text is no endpoint. Never repeats it: a URL may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Longer than the limit.
    #[error("at most {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// No URL, or one without a host.
    #[error("must be a URL such as https://example.com/hook")]
    NotAUrl,
    /// Another scheme.
    #[error("must begin with https:// or http://")]
    Scheme,
    /// A user or a password in it.
    #[error("must not hold a user name or password; use headers")]
    Credentials,
    /// A fragment, which is never sent.
    #[error("must not have a fragment (#...)")]
    Fragment,
}

impl Endpoint {
    /// Reads an endpoint of at most `limit` bytes.
    ///
    /// # Errors
    /// See [`InvalidEndpoint`].
    pub fn parse(text: &str, limit: usize) -> Result<Self, InvalidEndpoint> {
        if text.len() > limit {
            return Err(InvalidEndpoint::TooLong { limit });
        }
        let url = Url::parse(text).map_err(|_| InvalidEndpoint::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidEndpoint::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidEndpoint::Credentials);
        }
        if url.fragment().is_some() {
            return Err(InvalidEndpoint::Fragment);
        }
        if !url.has_host() {
            return Err(InvalidEndpoint::NotAUrl);
        }
        // Escapes make it longer.
        if url.as_str().len() > limit {
            return Err(InvalidEndpoint::TooLong { limit });
        }
        Ok(Self(url))
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it is reached without TLS.
    pub fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// Its host.
    pub fn destination(&self) -> Destination {
        match self.0.host() {
            Some(Host::Ipv4(address)) => Destination::Address(address.into()),
            Some(Host::Ipv6(address)) => Destination::Address(address.into()),
            Some(Host::Domain(name)) => Destination::Name(name.to_owned()),
            // There always is one.
            None => Destination::Name(String::new()),
        }
    }

    /// The host and port, for logs: a path may hold a secret.
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.origin()).finish()
    }
}
