//! The fixed header: where a packet ends, and whether it may come from a client at all.

use rmqtt_codec::v5::DisconnectReasonCode;

use super::Breach;
use crate::backend::Version;

/// The length in bytes of the packet at the head of `buffer`, fixed header included, or `None` while there are too
/// few bytes to tell.
///
/// Looks at the type, its flags [MQTT-2.2.2-1] and the remaining length (at most four bytes, at most `limit`)
/// before a byte of the body has come, so that nothing is kept for a packet that would be refused.
pub(crate) fn frame_length(buffer: &[u8], version: Version, limit: u32) -> Result<Option<usize>, Breach> {
    let Some((first, rest)) = buffer.split_first() else {
        return Ok(None);
    };
    check_first_byte(*first, version)?;
    let mut length = 0_u32;
    for (index, byte) in rest.iter().take(4).enumerate() {
        length |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            check_length(*first, length, version, limit)?;
            let body = usize::try_from(length).unwrap_or(usize::MAX);
            return Ok(Some(body.saturating_add(index + 2)));
        }
    }
    if rest.len() >= 4 {
        Err(Breach::malformed("a remaining length of more than four bytes"))
    } else {
        Ok(None)
    }
}

fn check_first_byte(first: u8, version: Version) -> Result<(), Breach> {
    let flags = first & 0x0F;
    let wanted = match first >> 4 {
        1 | 4 | 5 | 7 | 12 | 14 => 0,
        6 | 8 | 10 => 0b0010,
        3 => {
            return match flags {
                f if f & 0b0110 == 0b0110 => Err(Breach::malformed("QoS 3")),
                f if f & 0b1110 == 0b1000 => Err(Breach::malformed("DUP with QoS 0")),
                _ => Ok(()),
            };
        }
        15 if version == Version::V5 => 0,
        2 | 9 | 11 | 13 => return Err(Breach::protocol("a packet that only a server sends")),
        _ => return Err(Breach::malformed("a packet type that does not exist")),
    };
    if flags == wanted {
        Ok(())
    } else {
        Err(Breach::malformed("reserved flags of the fixed header"))
    }
}

fn check_length(first: u8, length: u32, version: Version, limit: u32) -> Result<(), Breach> {
    if length > limit {
        return Err(Breach {
            code: DisconnectReasonCode::PacketTooLarge,
            text: "packet too large",
        });
    }
    let empty = first >> 4 == 12 || (first >> 4 == 14 && version == Version::V3);
    if empty && length > 0 {
        return Err(Breach::malformed("a body where there is none"));
    }
    Ok(())
}
