//! How a client's bytes reach the edge: TCP, TLS, and the PROXY protocol in front of either.
//!
//! [`Acceptor::accept`] runs in the task of the new session, under the edge's connect time-out, so that a
//! client that never finishes its handshake holds up nobody else.

pub mod certificate;
mod io;
pub mod proxy;
pub mod reload;
pub mod tls;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

pub use self::{io::Io, reload::Certificates};
use crate::backend::{Peer, Transport};

/// Encrypted bytes that wait for a client that doesn't read, beyond those in its socket: one TLS record.
const TLS_BUFFER: usize = 16 * 1024;

/// Why a connection ended before its first MQTT byte. Each ends that connection alone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The socket failed, or the client closed it before the handshake was done.
    #[error("connection lost before MQTT began: {0}")]
    Socket(#[source] std::io::Error),
    /// The listener wants a PROXY header and the connection has none that is acceptable.
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    /// The TLS handshake failed.
    #[error("TLS handshake: {0}")]
    Tls(#[source] rustls::Error),
    /// The client certificate was verified, but can't be used.
    #[error("client certificate: {0}")]
    ClientCertificate(#[from] certificate::Error),
}

impl Error {
    /// A name of fixed choice for counting: `socket`, `proxy_header`, `tls_alert` (the client gave up, most often
    /// because it does not trust our certificate), `client_certificate` or `tls_handshake`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Socket(_) | Self::Proxy(proxy::Error::Socket(_)) => "socket",
            Self::Proxy(_) => "proxy_header",
            Self::Tls(rustls::Error::AlertReceived(_)) => "tls_alert",
            Self::Tls(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
            | Self::ClientCertificate(_) => "client_certificate",
            Self::Tls(_) => "tls_handshake",
        }
    }
}

impl From<std::io::Error> for Error {
    /// Takes a TLS error out of the I/O error in which `tokio_rustls` hands it over.
    fn from(error: std::io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::Tls(error),
            Err(error) => Self::Socket(error),
        }
    }
}

/// Turns an accepted socket of one listener into a byte stream that carries MQTT.
#[derive(Debug, Clone)]
pub struct Acceptor {
    certificates: Option<Arc<Certificates>>,
    proxy_protocol: bool,
}

impl Acceptor {
    /// MQTT straight over TCP.
    pub fn plain() -> Self {
        Self {
            certificates: None,
            proxy_protocol: false,
        }
    }

    /// MQTT over TLS with these certificates.
    pub fn tls(certificates: Arc<Certificates>) -> Self {
        Self {
            certificates: Some(certificates),
            proxy_protocol: false,
        }
    }

    /// Whether every connection must begin with a PROXY protocol header, version 2, whose address then counts
    /// as the client's. Only for a listener that nothing but the load balancer can reach.
    #[must_use]
    pub fn with_proxy_protocol(self, proxy_protocol: bool) -> Self {
        Self {
            proxy_protocol,
            ..self
        }
    }

    /// Does what stands between the socket and MQTT, and tells who the client is.
    ///
    /// It has no time-out of its own: the caller wraps it in the connect time-out.
    ///
    /// # Errors
    ///
    /// [`Error`], each of which ends this connection alone; [`Error::reason`] names it for a counter.
    pub async fn accept(&self, mut stream: TcpStream, from: SocketAddr) -> Result<(Io, Peer), Error> {
        // MQTT packets are small and each matters now: never wait to fill a segment.
        stream.set_nodelay(true)?;
        let proxied = if self.proxy_protocol {
            proxy::read(&mut stream).await?
        } else {
            None
        };
        let address = proxied.unwrap_or(SocketAddr::new(from.ip().to_canonical(), from.port()));
        let Some(certificates) = &self.certificates else {
            return Ok((
                Io::Plain(stream),
                Peer {
                    address,
                    transport: Transport::Tcp,
                    certificate: None,
                },
            ));
        };
        let acceptor = TlsAcceptor::from(certificates.config());
        let handshake = acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(TLS_BUFFER)));
        // Boxed so that a plain session's task does not carry the room for a handshake.
        let stream = Box::new(Box::pin(handshake).await?);
        let certificate = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            Some(leaf) => certificate::common_name(leaf)?,
            None => None,
        };
        Ok((
            Io::Tls(stream),
            Peer {
                address,
                transport: Transport::Tls,
                certificate,
            },
        ))
    }
}
