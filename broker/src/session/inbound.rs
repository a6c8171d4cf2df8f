//! What a client sends.

use std::{
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use rmqtt_codec::{
    types::{Publish, QoS},
    v5::{
        Disconnect, DisconnectReasonCode, Packet, PublishAck, PublishAck2, PublishAck2Reason,
        PublishAckReason, PublishProperties,
    },
};
use setpoint_model::Topic;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    connection::Connection,
    finish::End,
    outbound::Acknowledged,
    received::Arrival,
    window::{Answer, Answered, Kind},
};
use crate::{
    backend::{Ack, Backend, Inbound, Outcome, Version},
    message::Message,
    metrics::Limit,
    wire::Breach,
};

/// QoS 2 messages of an MQTT 3.1.1 client, which knows no Receive Maximum, between PUBLISH and PUBREL.
const MAX_RECEIVED_V3: usize = 1_024;

impl<'a, S> Connection<'a, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Does what a packet asks for.
    pub(super) fn handle(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.publish(*publish)?,
            Packet::PublishAck(ack) => self.published(&ack)?,
            Packet::PublishReceived(ack) => self.received(&ack)?,
            Packet::PublishRelease(ack) => self.release(ack.packet_id),
            Packet::PublishComplete(ack) => self.live.session.lock().release(ack.packet_id),
            Packet::Subscribe(subscribe) => self.subscribe(subscribe)?,
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe)?,
            Packet::PingRequest => {
                self.wire.encode(Packet::PingResponse, 0, &mut self.output);
            }
            Packet::Disconnect(disconnect) => return Err(self.disconnect(&disconnect)),
            // The wire lets none of these through.
            Packet::Connect(_)
            | Packet::ConnectAck(_)
            | Packet::SubscribeAck(_)
            | Packet::UnsubscribeAck(_)
            | Packet::PingResponse
            | Packet::Auth(_) => return Err(Breach::protocol("a packet that may not come now").into()),
        }
        Ok(())
    }

    fn publish(&mut self, mut publish: Publish) -> Result<(), End> {
        self.live.traffic.messages_in.fetch_add(1, Ordering::Relaxed);
        self.resolve_alias(&mut publish)?;
        let kind = match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => Kind::Ack(id),
            (QoS::ExactlyOnce, Some(id)) => Kind::Received(id),
            _ => Kind::None,
        };
        let identity = &self.live.info.identity;
        let allowed = Topic::read(&publish.topic, identity.serial())
            .ok()
            .filter(|topic| identity.may_publish(topic));
        if let Kind::Received(id) = kind
            && !self.arrive(id)?
        {
            return Ok(());
        }
        self.check_receive_maximum(kind)?;
        let Some(topic) = allowed else {
            let identity = &self.live.info.identity;
            if identity.may_announce(&publish.topic, &self.core.config.discovery) {
                self.live.ack(kind).complete(Outcome::Accepted);
                return Ok(());
            }
            return self.deny(kind, &publish.topic);
        };
        self.core.metrics.received(topic.channel, publish.payload.len());
        self.take(kind, topic, publish);
        Ok(())
    }

    /// Puts the name in place of its alias [MQTT-3.3.2.3.4].
    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), End> {
        let Some(alias) = publish.properties.as_mut().and_then(|p| p.topic_alias.take()) else {
            return Ok(());
        };
        let invalid = Breach {
            code: DisconnectReasonCode::TopicAliasInvalid,
            text: "a topic alias out of range",
        };
        if alias.get() > self.core.config.topic_alias_maximum {
            return Err(invalid.into());
        }
        let index = usize::from(alias.get() - 1);
        if publish.topic.is_empty() {
            let name = self.aliases.get(index).filter(|name| !name.is_empty());
            publish.topic = name
                .cloned()
                .ok_or(Breach::protocol("a topic alias that stands for nothing"))?;
        } else {
            if self.aliases.len() <= index {
                self.aliases.resize(index + 1, bytestring::ByteString::new());
            }
            if let Some(place) = self.aliases.get_mut(index) {
                // A copy, so that it does not pin the packet it came in.
                *place = bytestring::ByteString::from(&*publish.topic);
            }
        }
        Ok(())
    }

    /// Notes a QoS 2 PUBLISH; whether it is to be taken [MQTT-4.3.3-10].
    fn arrive(&mut self, id: NonZeroU16) -> Result<bool, End> {
        let arrival = self.live.session.lock().received.arrive(id, self.live.number);
        match arrival {
            Arrival::New => return Ok(true),
            Arrival::Again => {
                let answer = Answer::Outcome(Outcome::Accepted);
                self.live
                    .window(|window| window.push(Kind::Received(id), Some(answer)));
            }
            Arrival::Pending => {
                let slot = self.live.window(|window| window.push(Kind::Received(id), None));
                self.live
                    .session
                    .lock()
                    .received
                    .answer_also(id, Arc::clone(&self.live), slot);
            }
            Arrival::Repeated => {}
        }
        Ok(false)
    }

    /// An MQTT 5 client may not have more on their way than it was told [MQTT-3.3.4-7]. Those of QoS 1 it can't:
    /// the connection is not read any further; those of QoS 2 count until PUBREL.
    fn check_receive_maximum(&mut self, kind: Kind) -> Result<(), End> {
        let received = self.live.session.lock().received.len();
        let exceeded = match (self.live.info.version, kind) {
            (_, Kind::None) => false,
            _ if received == 0 => false,
            (Version::V5, kind) => {
                let others = received - usize::from(matches!(kind, Kind::Received(_)));
                let acks = self.live.window(|window| window.awaiting_ack());
                others + acks >= usize::from(self.core.config.receive_maximum)
            }
            (Version::V3, _) => received > MAX_RECEIVED_V3,
        };
        if exceeded {
            self.core.metrics.limit(Limit::ReceiveMaximum);
            let code = DisconnectReasonCode::ReceiveMaximumExceeded;
            return Err(Breach {
                code,
                text: "more messages than the Receive Maximum",
            }
            .into());
        }
        Ok(())
    }

    /// Hands a message to the watchers and to the backend.
    fn take(&mut self, kind: Kind, topic: Topic, publish: Publish) {
        let properties = publish.properties.filter(|p| *p != PublishProperties::default());
        let respond_to = properties.as_ref().and_then(|p| {
            p.response_topic
                .as_ref()
                .map(|t| (t.to_string(), p.correlation_data.clone()))
        });
        let (core, backend) = (self.core, self.backend);
        let shard = core.shard(&topic.serial);
        // Most telemetry is heard by nobody but the backend: then it is no message.
        let heard = publish.retain || shard.lock().may_hear(&topic.serial, &publish.topic);
        let inbound = Inbound {
            session: Arc::clone(&self.live.info),
            topic: topic.clone(),
            payload: publish.payload.clone(),
            at: core.clock.now(),
            respond_to,
        };
        let ack: Ack = self.live.ack(kind);
        if !heard {
            self.pending = hand_over(backend, inbound, ack);
            return;
        }
        let message = Message {
            topic,
            name: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            receipt: None,
            properties: properties.map(Box::new),
            publisher: Some(self.live.session.id),
            at: Instant::now(),
            sequence: 0,
            restored: false,
            told: AtomicBool::new(false),
        };
        self.pending = match shard.try_reserve() {
            Some(permit) => {
                shard
                    .lock()
                    .admit(message, Some(permit), &core.config, &core.metrics);
                hand_over(backend, inbound, ack)
            }
            None => Some(Box::pin(async move {
                // Not heard by watchers if the edge is shutting down; the backend has it all the same.
                let _ = core.publish(message).await;
                backend.inbound(inbound, ack).await;
            })),
        };
    }

    /// Acknowledges, in order of arrival, what the server is done with.
    pub(super) fn acknowledge(&mut self) -> Result<bool, End> {
        let mut any = false;
        let mut now = None;
        while let Some(Answered { kind, answer, since }) = self.live.window(|window| window.pop()) {
            any = true;
            if answer == Answer::Lost {
                return Err(End::Unanswered);
            }
            let packet = match kind {
                Kind::None => continue,
                Kind::Ack(id) => Packet::PublishAck(verdict(id, &answer)),
                Kind::Received(id) => Packet::PublishReceived(verdict(id, &answer)),
            };
            let now = *now.get_or_insert_with(Instant::now);
            self.core
                .metrics
                .acknowledged(now.saturating_duration_since(since));
            self.answer(packet);
        }
        Ok(any)
    }

    /// Encodes an acknowledgement. It has no properties that could be left out, so the client's largest packet does
    /// not count.
    fn answer(&mut self, packet: Packet) {
        self.wire.encode(packet, 0, &mut self.output);
    }

    /// PUBACK.
    fn published(&mut self, ack: &PublishAck) -> Result<(), End> {
        let acknowledged = self.live.session.lock().acknowledge(ack.packet_id);
        if u8::from(ack.reason_code) >= 0x80 && matches!(acknowledged, Acknowledged::Message(_)) {
            // It got there, but the client could not take it.
            return Ok(());
        }
        self.delivered(acknowledged).map(drop)
    }

    /// PUBREC [MQTT-4.3.3-4].
    fn received(&mut self, ack: &PublishAck) -> Result<(), End> {
        if u8::from(ack.reason_code) >= 0x80 {
            self.live.session.lock().abandon(ack.packet_id);
            return Ok(());
        }
        let acknowledged = self.live.session.lock().receive(ack.packet_id);
        let known = self.delivered(acknowledged)?;
        let reason_code = if known {
            PublishAck2Reason::Success
        } else {
            PublishAck2Reason::PacketIdNotFound
        };
        let release = PublishAck2 {
            packet_id: ack.packet_id,
            reason_code,
            ..PublishAck2::default()
        };
        self.wire
            .encode(Packet::PublishRelease(release), 0, &mut self.output);
        Ok(())
    }

    /// Tells the backend that the device has a message it wanted a receipt for; whether there was one at all.
    fn delivered(&mut self, acknowledged: Acknowledged) -> Result<bool, End> {
        let message = match acknowledged {
            Acknowledged::Message(message) => message,
            // A late acknowledgement from before a reconnect does no harm.
            Acknowledged::Unknown => return Ok(false),
            Acknowledged::Mismatch => return Err(Breach::protocol("the wrong acknowledgement").into()),
        };
        let own = self.live.info.identity.serial() == Some(&message.topic.serial);
        if let (true, Some(receipt)) = (own, message.receipt) {
            if let Some(version) = super::state::settings_receipt(&message) {
                let mut state = self.live.session.lock();
                state.settings_acked = state.settings_acked.max(Some(version));
            }
            if !message.told.swap(true, Ordering::Relaxed) {
                self.backend.delivered(&message.topic, receipt);
            }
        }
        Ok(true)
    }

    /// PUBREL [MQTT-4.3.3-12].
    fn release(&mut self, packet_id: NonZeroU16) {
        let known = self.live.session.lock().received.release(packet_id);
        let reason_code = if known {
            PublishAck2Reason::Success
        } else {
            PublishAck2Reason::PacketIdNotFound
        };
        let complete = PublishAck2 {
            packet_id,
            reason_code,
            ..PublishAck2::default()
        };
        self.wire
            .encode(Packet::PublishComplete(complete), 0, &mut self.output);
    }

    /// DISCONNECT [MQTT-3.14].
    fn disconnect(&mut self, disconnect: &Disconnect) -> End {
        if let Some(wanted) = disconnect.session_expiry_interval_secs {
            let mut state = self.live.session.lock();
            if state.expiry.is_zero() && wanted > 0 {
                return Breach::protocol("a session expiry after none [MQTT-3.14.2-2]").into();
            }
            state.expiry = Duration::from_secs(u64::from(wanted)).min(self.core.config.max_session_expiry);
        }
        End::Disconnect {
            will: disconnect.reason_code != DisconnectReasonCode::NormalDisconnection,
        }
    }
}

/// Gives a message to the backend; what is left to wait for, if anything is.
fn hand_over(backend: &dyn Backend, inbound: Inbound, ack: Ack) -> Option<BoxFuture<'_, ()>> {
    backend
        .inbound_at_once(inbound, ack)
        .map(|(inbound, ack)| backend.inbound(inbound, ack))
}

/// PUBACK or PUBREC for what became of a message.
///
/// No reason string: there are clients that take an acknowledgement with properties for malformed (those of the
/// Eclipse Paho interoperability suite among them). The sentence stands in the device's timeline.
fn verdict(packet_id: NonZeroU16, answer: &Answer) -> PublishAck {
    let reason_code = match answer {
        Answer::Outcome(Outcome::Accepted) => PublishAckReason::Success,
        Answer::Outcome(Outcome::Invalid(_)) => PublishAckReason::PayloadFormatInvalid,
        Answer::Denied => PublishAckReason::NotAuthorized,
        Answer::Lost => PublishAckReason::UnspecifiedError,
    };
    PublishAck {
        packet_id,
        reason_code,
        properties: Vec::new(),
        reason_string: None,
    }
}
