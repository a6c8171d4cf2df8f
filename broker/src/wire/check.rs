//! What the codec lets through although the standards don't.

use bytestring::ByteString;
use rmqtt_codec::{
    types::Publish,
    v5::{DisconnectReasonCode, Packet},
};

use super::Breach;
use crate::backend::Version;

/// Checks a packet that the codec took from `frame`.
pub(super) fn packet(packet: &Packet, frame: &[u8], version: Version) -> Result<(), Breach> {
    match packet {
        Packet::Publish(publish) => publish_packet(publish, version),
        Packet::Subscribe(subscribe) => {
            if version == Version::V3 {
                v3_options(frame)?;
            }
            subscribe.topic_filters.iter().try_for_each(|(name, options)| {
                filter(name)?;
                // [MQTT-3.8.3-4] of MQTT 5: with a shared subscription the publisher can't be told apart.
                if options.no_local && name.starts_with("$share/") {
                    return Err(Breach::protocol("No Local on a shared subscription"));
                }
                Ok(())
            })
        }
        Packet::Unsubscribe(unsubscribe) => unsubscribe.topic_filters.iter().try_for_each(filter),
        Packet::Connect(_) => Err(Breach::protocol("a second CONNECT")),
        Packet::Auth(_) => Err(Breach::protocol("AUTH without an authentication method")),
        Packet::PublishAck(_)
        | Packet::PublishReceived(_)
        | Packet::PublishRelease(_)
        | Packet::PublishComplete(_)
        | Packet::PingRequest
        | Packet::Disconnect(_) => Ok(()),
        Packet::ConnectAck(_)
        | Packet::SubscribeAck(_)
        | Packet::UnsubscribeAck(_)
        | Packet::PingResponse => Err(Breach::protocol("a packet that only a server sends")),
    }
}

fn publish_packet(publish: &Publish, version: Version) -> Result<(), Breach> {
    text(&publish.topic)?;
    if publish.topic.contains(['+', '#']) {
        return Err(Breach {
            code: DisconnectReasonCode::TopicNameInvalid,
            text: "a wildcard in a topic name",
        });
    }
    let alias = publish.properties.as_ref().and_then(|p| p.topic_alias);
    if publish.topic.is_empty() && (version == Version::V3 || alias.is_none()) {
        return Err(Breach::protocol("an empty topic name without an alias"));
    }
    let Some(properties) = &publish.properties else {
        return Ok(());
    };
    if !properties.subscription_ids.is_empty() {
        return Err(Breach::protocol("a subscription identifier from a client"));
    }
    match &properties.response_topic {
        Some(topic) if topic.is_empty() || topic.contains(['+', '#']) => {
            Err(Breach::protocol("a response topic that is no topic name"))
        }
        _ => Ok(()),
    }
}

/// A topic filter has at least one character [MQTT-4.7.3-1].
fn filter(filter: &ByteString) -> Result<(), Breach> {
    if filter.is_empty() {
        return Err(Breach::protocol("an empty topic filter"));
    }
    text(filter)
}

/// U+0000 may not stand in any text [MQTT-1.5.4-2].
pub(super) fn text(text: &ByteString) -> Result<(), Breach> {
    if text.as_bytes().contains(&0) {
        Err(Breach::malformed("U+0000 in a text"))
    } else {
        Ok(())
    }
}

/// The reserved bits of a requested QoS must be zero in MQTT 3.1.1 [MQTT-3.8.3-4]; the codec masks them.
fn v3_options(frame: &[u8]) -> Result<(), Breach> {
    let header = frame
        .iter()
        .skip(1)
        .position(|byte| byte & 0x80 == 0)
        .map_or(frame.len(), |last| last + 2);
    let mut rest = frame.get(header + 2..).unwrap_or_default();
    while let [high, low, body @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match body.get(length..) {
            Some([options, after @ ..]) if options & 0b1111_1100 == 0 => rest = after,
            _ => return Err(Breach::malformed("reserved bits of a requested QoS")),
        }
    }
    Ok(())
}
