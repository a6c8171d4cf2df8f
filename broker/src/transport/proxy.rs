//! The PROXY protocol, version 2: how a TCP load balancer tells the address of the client behind it.
//!
//! Specification: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2. Version 1 (text) is
//! refused: nothing that speaks it lacks version 2. Whoever can connect to a listener with this option can claim
//! any address, so such a listener belongs where only the load balancer reaches it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes before the addresses: signature, version and command, family and protocol, length.
const FIXED: usize = 16;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header accepted, in bytes: addresses, and room for the TLVs that balancers add (a client certificate
/// is the largest).
pub const LONGEST: usize = 4096;

/// Why a PROXY header was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection does not begin with the signature of version 2.
    #[error("no PROXY protocol version 2 header")]
    Missing,
    /// The signature is followed by another version than 2.
    #[error("PROXY protocol version {0} is not supported")]
    Version(u8),
    /// A command other than LOCAL and PROXY.
    #[error("PROXY command {0} is unknown")]
    Command(u8),
    /// An address family and protocol that is not TCP, or is unknown.
    #[error("PROXY address family {0:#04x} is not a TCP one")]
    Family(u8),
    /// The header says it is longer than [`LONGEST`].
    #[error("PROXY header of {0} bytes is too long")]
    TooLong(usize),
    /// The header is too short for the addresses of its family.
    #[error("PROXY header is too short for its addresses")]
    TooShort,
    /// The connection was closed within the header, or failed.
    #[error("connection lost within the PROXY header: {0}")]
    Socket(#[from] io::Error),
}

/// How far [`parse`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The header is not all there; it has at least this many bytes, always more than were given.
    Needs(usize),
    /// The header is complete.
    Done {
        /// The client's address; `None` when the balancer speaks for itself (LOCAL: a health check) or the address is
        /// of a kind that has no IP, in which case the socket's own address holds.
        source: Option<SocketAddr>,
        /// The header's length in bytes; MQTT or TLS begins after it.
        length: usize,
    },
}

/// Reads a header from the beginning of `bytes`, which may be incomplete. Never panics.
///
/// # Errors
///
/// As soon as the bytes so far can't become a header that is accepted.
pub fn parse(bytes: &[u8]) -> Result<Progress, Error> {
    let signature = SIGNATURE.iter().zip(bytes);
    if signature.clone().any(|(expected, actual)| expected != actual) {
        return Err(Error::Missing);
    }
    let version_and_command = bytes.get(12).copied();
    if let Some(byte) = version_and_command {
        if byte >> 4 != 2 {
            return Err(Error::Version(byte >> 4));
        }
        if byte & 0x0f > 1 {
            return Err(Error::Command(byte & 0x0f));
        }
    }
    let Some((&[.., command, family, high, low], rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Progress::Needs(FIXED));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED + length > LONGEST {
        return Err(Error::TooLong(FIXED + length));
    }
    // TLVs after the addresses, if any, are not looked at.
    let Some(addresses) = rest.get(..length) else {
        return Ok(Progress::Needs(FIXED + length));
    };
    let local = command & 0x0f == 0;
    let source = match family {
        // For LOCAL the family and addresses are to be ignored.
        _ if local => None,
        // AF_UNSPEC (the balancer does not know) and AF_UNIX (the client is on the balancer itself).
        0x00 | 0x31 => None,
        0x11 => {
            let (&ip, ports) = addresses.split_first_chunk::<4>().ok_or(Error::TooShort)?;
            Some(source(
                Ipv4Addr::from(ip).into(),
                ports.get(4..).unwrap_or_default(),
            )?)
        }
        0x21 => {
            let (&ip, ports) = addresses.split_first_chunk::<16>().ok_or(Error::TooShort)?;
            Some(source(
                Ipv6Addr::from(ip).into(),
                ports.get(16..).unwrap_or_default(),
            )?)
        }
        other => return Err(Error::Family(other)),
    };
    Ok(Progress::Done {
        source,
        length: FIXED + length,
    })
}

/// The source address from its IP and the port block: source port, destination port.
fn source(ip: IpAddr, ports: &[u8]) -> Result<SocketAddr, Error> {
    let &[high, low, _, _, ..] = ports else {
        return Err(Error::TooShort);
    };
    // An IPv4 client is the same client when a balancer writes it as ::ffff:192.0.2.1.
    Ok(SocketAddr::new(
        ip.to_canonical(),
        u16::from_be_bytes([high, low]),
    ))
}

/// Reads the header off the stream and nothing beyond it.
///
/// # Errors
///
/// [`Error`]; the stream is then of no further use.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, Error> {
    let mut header = Vec::with_capacity(FIXED + 36);
    loop {
        match parse(&header)? {
            Progress::Done { source, .. } => return Ok(source),
            Progress::Needs(length) => {
                let missing = length.saturating_sub(header.len()) as u64;
                if (&mut *stream).take(missing).read_buf(&mut header).await? == 0 {
                    return Err(Error::Socket(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
    }
}
