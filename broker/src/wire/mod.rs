//! MQTT on the wire: both versions, made strict, in terms of MQTT 5 packets.
//!
//! The codec is rmqtt's; this module frames, converts 3.1.1 to and from 5.0, and refuses what the codec lets
//! through although the standards don't.

mod check;
mod frame;
mod greeting;
mod properties;
#[cfg(test)]
mod tests;
mod v3;

use std::{
    num::NonZeroU16,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::BytesMut;
use rmqtt_codec::{
    error::DecodeError,
    v5::{Disconnect, DisconnectReasonCode, Packet, PublishAck},
};
use tokio_util::codec::{Decoder, Encoder};

use crate::backend::Version;

pub(crate) use self::{
    frame::frame_length,
    greeting::{Greeting, HEAD, Unwelcome, greet, speaks_v5},
};

/// A breach of the protocol, which ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Breach {
    /// What an MQTT 5 client is told.
    pub(crate) code: DisconnectReasonCode,
    /// What the log says.
    pub(crate) text: &'static str,
}

impl Breach {
    /// Bytes that are no packet [MQTT5-4.13.1].
    pub(crate) const fn malformed(text: &'static str) -> Self {
        Self {
            code: DisconnectReasonCode::MalformedPacket,
            text,
        }
    }

    /// A packet that may not come, or not now, or not with this content.
    pub(crate) const fn protocol(text: &'static str) -> Self {
        Self {
            code: DisconnectReasonCode::ProtocolError,
            text,
        }
    }
}

/// Reads and writes the packets of one connection, once its version is known.
#[derive(Debug)]
pub(crate) enum Wire {
    /// MQTT 3.1 and 3.1.1.
    V3(rmqtt_codec::v3::Codec),
    /// MQTT 5.0.
    V5(rmqtt_codec::v5::Codec),
}

impl Wire {
    /// A codec without a memory of its own. Sizes are checked by [`frame_length`] on the way in and by the caller
    /// of [`Self::encode`] on the way out.
    pub(crate) fn new(version: Version) -> Self {
        match version {
            Version::V3 => Self::V3(rmqtt_codec::v3::Codec::new(0)),
            Version::V5 => Self::V5(rmqtt_codec::v5::Codec::new(0, 0)),
        }
    }

    /// The version this wire speaks.
    pub(crate) fn version(&self) -> Version {
        match self {
            Self::V3(_) => Version::V3,
            Self::V5(_) => Version::V5,
        }
    }

    /// Reads one whole packet, as [`frame_length`] measured it.
    ///
    /// The bytes are copied once, into an allocation of their own size, so that a payload which is kept for long
    /// pins nothing but its own packet.
    pub(crate) fn decode(&mut self, frame: &[u8]) -> Result<Packet, Breach> {
        if let Some(packet) = short(frame) {
            return Ok(packet);
        }
        let packet = self.decode_by_codec(frame)?;
        check::packet(&packet, frame, self.version())?;
        Ok(packet)
    }

    fn decode_by_codec(&mut self, frame: &[u8]) -> Result<Packet, Breach> {
        let mut bytes = BytesMut::from(frame);
        if self.version() == Version::V5 {
            properties::check(&mut bytes)?;
        }
        // The codec has no known panic; should one be found, it ends this session alone.
        catch_unwind(AssertUnwindSafe(|| match self {
            Self::V3(codec) => codec.decode(&mut bytes).map(|p| p.map(|(p, _)| v3::to_v5(p))),
            Self::V5(codec) => codec.decode(&mut bytes).map(|p| p.map(|(p, _)| p)),
        }))
        .map_err(|_| Breach::malformed("the codec panicked"))?
        .map_err(|error| breach(&error))?
        .ok_or(Breach::malformed("a packet shorter than it says"))
    }

    /// Appends one packet to `out`. What MQTT 3.1.1 has no word for is left out.
    ///
    /// Returns `false`, with `out` as it was, if the packet can't be written or is larger than `limit` bytes (0: no
    /// limit).
    pub(crate) fn encode(&mut self, packet: Packet, limit: u32, out: &mut BytesMut) -> bool {
        let before = out.len();
        let written = match self {
            Self::V3(codec) => match v3::from_v5(packet) {
                Some(packet) => codec.encode(packet, out).is_ok(),
                None => true,
            },
            Self::V5(codec) => codec.encode(packet, out).is_ok(),
        };
        let fits = limit == 0 || out.len() - before <= usize::try_from(limit).unwrap_or(usize::MAX);
        if !(written && fits) {
            out.truncate(before);
        }
        written && fits
    }
}

/// The packets that come most often and are the same few bytes in both versions: without the copy and the boxes that
/// the codec needs for the others.
fn short(frame: &[u8]) -> Option<Packet> {
    match *frame {
        [0x40, 2, high, low] => {
            let packet_id = NonZeroU16::new(u16::from_be_bytes([high, low]))?;
            Some(Packet::PublishAck(PublishAck {
                packet_id,
                ..PublishAck::default()
            }))
        }
        [0xC0, 0] => Some(Packet::PingRequest),
        [0xE0, 0] => Some(Packet::Disconnect(Disconnect::default())),
        _ => None,
    }
}

/// The reason code of MQTT 5 for what the codec refused.
fn breach(error: &DecodeError) -> Breach {
    match error {
        DecodeError::InvalidTopicFilter => Breach::protocol("no topic filter, or an empty one"),
        DecodeError::InvalidTopicName => Breach::protocol("an empty topic name"),
        DecodeError::MaxSizeExceeded { .. } => Breach {
            code: DisconnectReasonCode::PacketTooLarge,
            text: "packet too large",
        },
        DecodeError::Utf8Error => Breach::malformed("text that is not UTF-8"),
        DecodeError::UnsupportedPacketType => Breach::malformed("a packet type or flags that do not exist"),
        _ => Breach::malformed("malformed packet"),
    }
}
