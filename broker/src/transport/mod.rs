//! How a client's bytes reach the edge: TCP, TLS, the PROXY protocol in front of either, and room for streams
//! that are accepted elsewhere (WebSocket).
//!
//! [`Acceptor::accept`] runs in the task of the new session, under the edge's connect time-out, so that a
//! client that never finishes its handshake holds up nobody else.

mod io;

use std::net::SocketAddr;

use tokio::net::TcpStream;

pub use self::io::{Duplex, Io};
use crate::backend::{Peer, Transport};

/// Why a connection ended before its first MQTT byte. Each ends that connection alone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The socket failed, or the client closed it before the handshake was done.
    #[error("connection lost before MQTT began: {0}")]
    Socket(#[from] std::io::Error),
}

impl Error {
    /// A name of fixed choice for counting: `socket`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Socket(_) => "socket",
        }
    }
}

/// Turns an accepted socket of one listener into a byte stream that carries MQTT.
#[derive(Debug, Clone)]
pub struct Acceptor {}

impl Acceptor {
    /// MQTT straight over TCP.
    pub fn plain() -> Self {
        Self {}
    }

    /// Does what stands between the socket and MQTT, and tells who the client is.
    ///
    /// It has no time-out of its own: the caller wraps it in the connect time-out.
    ///
    /// # Errors
    ///
    /// [`Error`], each of which ends this connection alone; [`Error::reason`] names it for a counter.
    pub async fn accept(&self, stream: TcpStream, from: SocketAddr) -> Result<(Io, Peer), Error> {
        // MQTT packets are small and each matters now: never wait to fill a segment.
        stream.set_nodelay(true)?;
        let peer = Peer { address: from, transport: Transport::Tcp, certificate: None };
        Ok((Io::Plain(stream), peer))
    }
}
