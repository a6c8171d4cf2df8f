//! From the session's queue to the socket.

use std::{
    num::NonZeroU16,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::{
    types::{Publish, QoS},
    v5::{Packet, PublishAck2, PublishAck2Reason, PublishProperties},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{connection::Connection, finish::End, outbound::Next, state::Delivery};
use crate::{backend::Version, metrics::Dropped};

/// Bytes to write beyond which no more messages are added.
const WRITE: usize = 32 * 1024;

impl<S> Connection<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Adds messages to what is to be written.
    pub(super) fn fill(&mut self) {
        if self.output.len() >= WRITE {
            return;
        }
        let live = Arc::clone(&self.live);
        let mut state = live.session.lock();
        // Taken over between two polls: what waits belongs to the next connection.
        if !state
            .live
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, &live))
        {
            return;
        }
        let now = Instant::now();
        while self.output.len() < WRITE {
            let Some(next) = state.next(&self.live.info.identity, self.window, now, &self.core.metrics)
            else {
                return;
            };
            match next {
                Next::Publish { delivery, id, dup } => {
                    if self.send(delivery, id, dup, now) {
                        continue;
                    }
                    self.core.metrics.dropped(Dropped::TooLarge);
                    if let Some(id) = id {
                        // [MQTT-3.1.2-25]: as if it had been delivered.
                        state.abandon(id);
                    }
                }
                Next::Release(packet_id) => {
                    let reason_code = PublishAck2Reason::Success;
                    let ack = PublishAck2 {
                        packet_id,
                        reason_code,
                        properties: Vec::new(),
                        reason_string: None,
                    };
                    self.wire.encode(Packet::PublishRelease(ack), 0, &mut self.output);
                }
            }
        }
    }

    /// Encodes one message; `false` if it is larger than the client takes.
    fn send(&mut self, delivery: Delivery, packet_id: Option<NonZeroU16>, dup: bool, now: Instant) -> bool {
        let Delivery {
            message,
            qos,
            retain,
            ids,
            shared: _,
        } = delivery;
        let alias = self.alias(&message.name);
        let properties = (self.wire.version() == Version::V5).then(|| {
            let mut properties = message
                .properties
                .as_deref()
                .cloned()
                .unwrap_or_else(PublishProperties::default);
            properties.subscription_ids = ids;
            properties.message_expiry_interval = message.remaining_expiry(now);
            properties.topic_alias = alias.map(|(alias, _)| alias);
            properties
        });
        let known = alias.is_some_and(|(_, known)| known);
        let publish = Publish {
            dup: dup && qos != QoS::AtMostOnce,
            retain,
            qos,
            topic: if known {
                ByteString::new()
            } else {
                message.name.clone()
            },
            packet_id,
            payload: message.payload.clone(),
            properties,
        };
        let sent = self.wire.encode(
            Packet::Publish(Box::new(publish)),
            self.max_packet,
            &mut self.output,
        );
        if sent {
            if alias.is_some() && !known {
                // A copy, so that it does not pin the packet it came in.
                self.told_aliases.push(ByteString::from(&*message.name));
            }
            self.core
                .metrics
                .sent(message.topic.channel, message.payload.len());
            self.live.traffic.messages_out.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// The alias of a topic, and whether the client was told already; the first topics have one, as many as the
    /// client allows [MQTT-3.1.2-26].
    fn alias(&self, name: &ByteString) -> Option<(NonZeroU16, bool)> {
        let index = self.told_aliases.iter().position(|told| told == name);
        let next = self.told_aliases.len();
        let index = index.or((next < self.max_told_aliases).then_some(next))?;
        let alias = u16::try_from(index + 1).ok().and_then(NonZeroU16::new)?;
        Some((alias, index < next))
    }

    pub(super) fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while !self.output.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.output) {
                Poll::Ready(Ok(written @ 1..)) => {
                    self.output.advance(written);
                    let count = u64::try_from(written).unwrap_or(0);
                    self.live.traffic.bytes_out.fetch_add(count, Ordering::Relaxed);
                    self.blocked = None;
                    self.unflushed = true;
                    moved = true;
                }
                Poll::Ready(_) => return Err(End::Lost),
                Poll::Pending => {
                    self.blocked.get_or_insert_with(Instant::now);
                    return Ok(moved);
                }
            }
        }
        if moved {
            self.output = BytesMut::new();
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    self.blocked = None;
                }
                Poll::Ready(Err(_)) => return Err(End::Lost),
                Poll::Pending => {
                    self.blocked.get_or_insert_with(Instant::now);
                }
            }
        }
        Ok(moved)
    }
}
