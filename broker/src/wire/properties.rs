//! The properties of MQTT 5 [MQTT5-2.2.2] and the options of its SUBSCRIBE: what the codec refuses with another reason
//! code than the standard names, and what it lets through.

use bytes::Buf;
use rmqtt_codec::v5::DisconnectReasonCode;

use super::Breach;

const PAYLOAD_FORMAT: u8 = 0x01;
const MESSAGE_EXPIRY: u8 = 0x02;
const SUBSCRIPTION_ID: u8 = 0x0B;
const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
const RECEIVE_MAXIMUM: u8 = 0x21;
const TOPIC_ALIAS: u8 = 0x23;
const USER_PROPERTY: u8 = 0x26;
const MAXIMUM_PACKET_SIZE: u8 = 0x27;

const MALFORMED: Breach = Breach::malformed("malformed properties");

/// Checks every block of properties in `frame`, a whole packet of a client. Whether a property may stand in its packet
/// is left to the codec, and so is what isn't there.
///
/// A message that expires at once [MQTT5-3.3.2.3.3] is given a second: the codec knows no expiry of zero.
pub(super) fn check(frame: &mut [u8]) -> Result<(), Breach> {
    let Some(first) = frame.first().copied() else {
        return Ok(());
    };
    let header = header(frame)?;
    let body = frame.get_mut(header..).unwrap_or_default();
    match first >> 4 {
        1 => connect(body),
        3 => {
            let id = if first & 0b0110 == 0 { 0 } else { 2 };
            let topic = text_length(body).ok_or(MALFORMED)?;
            block(body.get_mut(topic + id..).unwrap_or_default()).map(drop)
        }
        4..=7 if body.len() > 3 => block(body.get_mut(3..).unwrap_or_default()).map(drop),
        8 => {
            let rest = body.get_mut(2..).unwrap_or_default();
            let length = block(rest)?;
            options(rest.get(length..).unwrap_or_default())
        }
        10 => block(body.get_mut(2..).unwrap_or_default()).map(drop),
        14 | 15 if body.len() > 1 => block(body.get_mut(1..).unwrap_or_default()).map(drop),
        _ => Ok(()),
    }
}

/// The length of the fixed header, which is not longer than it must be [MQTT5-1.5.5-1].
fn header(frame: &[u8]) -> Result<usize, Breach> {
    let mut rest = frame.get(1..).unwrap_or_default();
    variable(&mut rest)?;
    Ok(frame.len() - rest.len())
}

fn connect(body: &mut [u8]) -> Result<(), Breach> {
    const WILL: u8 = 0b0000_0100;
    // Level, flags and keep-alive stand behind the name.
    let name = text_length(body).ok_or(MALFORMED)?;
    let will = body.get(name + 1).is_some_and(|flags| flags & WILL != 0);
    let rest = body.get_mut(name + 4..).unwrap_or_default();
    let length = block(rest)?;
    if !will {
        return Ok(());
    }
    let rest = rest.get_mut(length..).unwrap_or_default();
    let client_id = text_length(rest).ok_or(MALFORMED)?;
    block(rest.get_mut(client_id..).unwrap_or_default()).map(drop)
}

/// What is asked for with each topic filter of a SUBSCRIBE [MQTT5-3.8.3.1].
fn options(mut filters: &[u8]) -> Result<(), Breach> {
    const QOS: u8 = 0b0000_0011;
    const RETAIN_HANDLING: u8 = 0b0011_0000;
    while let Some(filter) = text_length(filters)
        && let Some([options, rest @ ..]) = filters.get(filter..)
    {
        if options & QOS == QOS || options & RETAIN_HANDLING == RETAIN_HANDLING {
            return Err(Breach::protocol("a QoS or retain handling of 3"));
        }
        filters = rest;
    }
    Ok(())
}

/// The length of a text or of binary data, its own two bytes included.
fn text_length(bytes: &[u8]) -> Option<usize> {
    bytes
        .first_chunk::<2>()
        .map(|length| 2 + usize::from(u16::from_be_bytes(*length)))
}

/// Checks the block at the head of `bytes`; how long it is. An empty rest is a block that isn't there.
fn block(bytes: &mut [u8]) -> Result<usize, Breach> {
    let whole = bytes.len();
    let mut rest = &*bytes;
    if rest.is_empty() {
        return Ok(0);
    }
    let length = usize::try_from(variable(&mut rest)?).unwrap_or(usize::MAX);
    let begin = whole - rest.len();
    let end = begin.saturating_add(length);
    let block = bytes.get_mut(begin..end).ok_or(MALFORMED)?;
    let mut seen = 0_u64;
    let mut at = 0;
    while let Some(id) = block.get(at).copied() {
        let value = block.get(at + 1..).unwrap_or_default();
        let length = value_length(id, value)?;
        let value = block.get(at + 1..at + 1 + length).ok_or(MALFORMED)?;
        let zero = value.iter().all(|byte| *byte == 0);
        match id {
            _ if id != USER_PROPERTY && seen & (1 << id) != 0 => {
                return Err(Breach::protocol("a property that is there twice"));
            }
            RECEIVE_MAXIMUM | MAXIMUM_PACKET_SIZE | SUBSCRIPTION_ID if zero => {
                return Err(Breach::protocol("a property that may not be zero"));
            }
            TOPIC_ALIAS if zero => {
                return Err(Breach {
                    code: DisconnectReasonCode::TopicAliasInvalid,
                    text: "a topic alias of zero",
                });
            }
            PAYLOAD_FORMAT | REQUEST_PROBLEM_INFORMATION | REQUEST_RESPONSE_INFORMATION
                if !matches!(value, [0 | 1]) =>
            {
                return Err(Breach::protocol("a property that is neither 0 nor 1"));
            }
            MESSAGE_EXPIRY if zero => {
                if let Some(last) = block.get_mut(at + 4) {
                    *last = 1;
                }
            }
            _ => {}
        }
        seen |= 1 << id;
        at += 1 + length;
    }
    Ok(end)
}

/// How long the value of a property is [MQTT5-2.2.2.2]. Texts are without U+0000 [MQTT5-1.5.4-2].
fn value_length(id: u8, bytes: &[u8]) -> Result<usize, Breach> {
    let text = |bytes: &[u8]| {
        let length = text_length(bytes).ok_or(MALFORMED)?;
        match bytes.get(2..length) {
            Some(text) if text.contains(&0) => Err(Breach::malformed("U+0000 in a text")),
            Some(_) => Ok(length),
            None => Err(MALFORMED),
        }
    };
    match id {
        PAYLOAD_FORMAT
        | REQUEST_PROBLEM_INFORMATION
        | REQUEST_RESPONSE_INFORMATION
        | 0x24
        | 0x25
        | 0x28..=0x2A => Ok(1),
        0x13 | RECEIVE_MAXIMUM | 0x22 | TOPIC_ALIAS => Ok(2),
        MESSAGE_EXPIRY | 0x11 | 0x18 | MAXIMUM_PACKET_SIZE => Ok(4),
        SUBSCRIPTION_ID => {
            let mut rest = bytes;
            variable(&mut rest)?;
            Ok(bytes.len() - rest.len())
        }
        0x03 | 0x08 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => text(bytes),
        // Binary data.
        0x09 | 0x16 => text_length(bytes).ok_or(MALFORMED),
        USER_PROPERTY => {
            let name = text(bytes)?;
            let value = text(bytes.get(name..).unwrap_or_default())?;
            Ok(name + value)
        }
        _ => Err(Breach::malformed("a property that does not exist")),
    }
}

/// Takes a variable byte integer off the head of `rest`: at most four bytes, and no more than it needs
/// [MQTT5-1.5.5-1].
fn variable(rest: &mut &[u8]) -> Result<u32, Breach> {
    let mut value = 0_u32;
    for index in 0..4 {
        let byte = rest.try_get_u8().map_err(|_| MALFORMED)?;
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return if byte == 0 && index > 0 {
                Err(Breach::malformed("a number that is longer than it must be"))
            } else {
                Ok(value)
            };
        }
    }
    Err(Breach::malformed("a number of more than four bytes"))
}
