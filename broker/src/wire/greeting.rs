//! CONNECT: finding the version, and every rule that the codec doesn't keep.

use bytes::{Buf, BytesMut};
use rmqtt_codec::v5::{Connect, ConnectAckReason, DisconnectReasonCode, Packet};

use super::{Breach, Wire, check, properties};
use crate::backend::Version;

/// A well-formed CONNECT.
#[derive(Debug)]
pub(crate) struct Greeting {
    /// Its content, in terms of MQTT 5.
    pub(crate) connect: Box<Connect>,
    /// The codec that read it and knows what it asked for.
    pub(crate) wire: Wire,
}

/// What came instead of a CONNECT.
#[derive(Debug)]
pub(crate) enum Unwelcome {
    /// Answer with this reason, then close.
    Refuse(Version, ConnectAckReason, &'static str),
    /// Close; the other end doesn't speak MQTT or is told nothing by it.
    Close(&'static str),
}

/// Reads the first packet of a connection, whole, as [`super::frame_length`] measured it.
pub(crate) fn greet(frame: &[u8]) -> Result<Greeting, Unwelcome> {
    if frame.first() != Some(&0x10) {
        return Err(Unwelcome::Close("the first packet is not CONNECT"));
    }
    // The one copy: what is kept of a CONNECT, such as a will, pins its own packet alone.
    let mut frame = BytesMut::from(frame);
    let body = frame
        .iter()
        .skip(1)
        .position(|byte| byte & 0x80 == 0)
        .map_or(frame.len(), |last| last + 2);
    let version = version(frame.get(body..).unwrap_or_default())?;
    let unwelcome = |breach: Breach| match (version, breach.code) {
        (Version::V3, _) => Unwelcome::Close(breach.text),
        (_, DisconnectReasonCode::ProtocolError) => {
            Unwelcome::Refuse(version, ConnectAckReason::ProtocolError, breach.text)
        }
        _ => Unwelcome::Refuse(version, ConnectAckReason::MalformedPacket, breach.text),
    };
    let layout = layout(frame.get(body..).unwrap_or_default(), version)
        .map_err(|text| unwelcome(Breach::malformed(text)))?;
    if version == Version::V5 {
        properties::check(&mut frame).map_err(unwelcome)?;
    }
    if version == Version::V3 && layout.anonymous && !layout.clean {
        // [MQTT-3.1.3-8]: without a client id there is nothing to find the session by.
        let text = "no client id, and no clean session";
        return Err(Unwelcome::Refuse(
            version,
            ConnectAckReason::ClientIdentifierNotValid,
            text,
        ));
    }
    // The codec refuses an empty client id without Clean Start in MQTT 5 too, where it is allowed.
    if let Some(flags) = frame.get_mut(body + layout.flags_at) {
        *flags |= CLEAN;
    }
    let mut wire = Wire::new(version);
    let packet = decode(&mut wire, &mut frame).map_err(unwelcome)?;
    let Packet::Connect(mut connect) = packet else {
        return Err(unwelcome(Breach::malformed("not a CONNECT")));
    };
    connect.clean_start = layout.clean;
    texts(&connect).map_err(unwelcome)?;
    Ok(Greeting { connect, wire })
}

/// How many bytes of a CONNECT of MQTT 5 tell that it is one, at most: fixed header, protocol name and level.
pub(crate) const HEAD: usize = 5 + 6 + 1;

/// Whether the [`HEAD`] of a packet is that of a CONNECT of MQTT 5.
pub(crate) fn speaks_v5(head: &[u8]) -> bool {
    let end = head.iter().skip(1).take(4).position(|byte| byte & 0x80 == 0);
    let body = end.and_then(|last| head.get(last + 2..)).unwrap_or_default();
    head.first() == Some(&0x10) && matches!(version(body), Ok(Version::V5))
}

/// As [`Wire::decode`], without the rule that a CONNECT may come only once.
fn decode(wire: &mut Wire, bytes: &mut BytesMut) -> Result<Packet, Breach> {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use tokio_util::codec::Decoder;

    catch_unwind(AssertUnwindSafe(|| match wire {
        Wire::V3(codec) => codec.decode(bytes).map(|p| p.map(|(p, _)| super::v3::to_v5(p))),
        Wire::V5(codec) => codec.decode(bytes).map(|p| p.map(|(p, _)| p)),
    }))
    .map_err(|_| Breach::malformed("the codec panicked"))?
    .map_err(|error| super::breach(&error))?
    .ok_or(Breach::malformed("a packet shorter than it says"))
}

const CLEAN: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS: u8 = 0b0001_1000;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USERNAME: u8 = 0b1000_0000;

/// The version by protocol name and level [MQTT-3.1.2-2].
fn version(body: &[u8]) -> Result<Version, Unwelcome> {
    match body {
        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] | [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, ..] => {
            Ok(Version::V3)
        }
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => Ok(Version::V5),
        [0, 4, b'M', b'Q', b'T', b'T', level, ..] | [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', level, ..] => {
            // A bridge of Mosquitto's sets the highest bit, and leaves it when it is told in its own version.
            let spoken = if level & 0x7F > 4 {
                Version::V5
            } else {
                Version::V3
            };
            let reason = ConnectAckReason::UnsupportedProtocolVersion;
            Err(Unwelcome::Refuse(
                spoken,
                reason,
                "a protocol version that does not exist",
            ))
        }
        _ => Err(Unwelcome::Close("not MQTT")),
    }
}

/// What of a CONNECT must be known before the codec reads it.
struct Layout {
    flags_at: usize,
    clean: bool,
    anonymous: bool,
}

/// Walks the fields of a CONNECT: its flags fit each other, and it ends where its last field ends.
fn layout(body: &[u8], version: Version) -> Result<Layout, &'static str> {
    const SHORT: &str = "a CONNECT shorter than its fields";
    let name = usize::from(*body.get(1).ok_or(SHORT)?);
    let flags_at = 2 + name + 1;
    let flags = *body.get(flags_at).ok_or(SHORT)?;
    if flags & 1 != 0 {
        return Err("the reserved flag of CONNECT");
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 || flags & WILL_QOS == WILL_QOS {
        return Err("flags of a will that is none");
    }
    if version == Version::V3 && flags & PASSWORD != 0 && flags & USERNAME == 0 {
        return Err("a password without a user name");
    }
    let mut rest = body.get(flags_at + 3..).ok_or(SHORT)?;
    if version == Version::V5 {
        skip_properties(&mut rest).ok_or(SHORT)?;
    }
    let anonymous = rest.starts_with(&[0, 0]);
    skip(&mut rest).ok_or(SHORT)?;
    if flags & WILL != 0 {
        if version == Version::V5 {
            skip_properties(&mut rest).ok_or(SHORT)?;
        }
        skip(&mut rest).ok_or(SHORT)?;
        skip(&mut rest).ok_or(SHORT)?;
    }
    for flag in [USERNAME, PASSWORD] {
        if flags & flag != 0 {
            skip(&mut rest).ok_or(SHORT)?;
        }
    }
    if rest.is_empty() {
        Ok(Layout {
            flags_at,
            clean: flags & CLEAN != 0,
            anonymous,
        })
    } else {
        Err("bytes after the last field of CONNECT")
    }
}

fn skip(rest: &mut &[u8]) -> Option<()> {
    let length = usize::from(rest.try_get_u16().ok()?);
    *rest = rest.get(length..)?;
    Some(())
}

fn skip_properties(rest: &mut &[u8]) -> Option<()> {
    let mut length = 0_usize;
    for index in 0..4 {
        let byte = rest.try_get_u8().ok()?;
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = rest.get(length..)?;
            return Some(());
        }
    }
    None
}

/// The texts of a CONNECT, and properties that fit each other.
fn texts(connect: &Connect) -> Result<(), Breach> {
    check::text(&connect.client_id)?;
    connect.username.as_ref().map_or(Ok(()), check::text)?;
    if connect.auth_method.is_none() && connect.auth_data.is_some() {
        return Err(Breach::protocol("authentication data without a method"));
    }
    connect
        .last_will
        .as_ref()
        .map_or(Ok(()), |will| check::text(&will.topic))
}
