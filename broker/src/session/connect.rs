//! From the first byte to CONNACK.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use rmqtt_codec::v5::{Connect, ConnectAck, ConnectAckReason, DisconnectReasonCode, Packet};
use setpoint_model::Serial;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::{
    admit::{Admitted, Rejection, admit},
    finish::close,
    live::Live,
    will::Will,
};
use crate::{
    admission::{Place, Room},
    backend::{Backend, Peer, SessionEvent, Version},
    broker::Core,
    metrics::Limit,
    wire::{self, Greeting, Unwelcome, Wire},
};

/// Room for the first read, in bytes: a CONNECT with a serial and a token in one piece.
const FIRST_READ: usize = 512;

/// As large as CONNACK gets, in bytes: all its properties, and a client id of a serial and 33 characters more.
const ROOMY_CONNACK: u32 = 128;

/// A client that is in: CONNACK is in `output`.
pub(crate) struct Welcome {
    pub(crate) live: Arc<Live>,
    pub(crate) wire: Wire,
    /// What came after CONNECT.
    pub(crate) input: BytesMut,
    pub(crate) output: BytesMut,
    /// How many QoS 1 and 2 messages the client takes at once.
    pub(crate) window: u16,
    /// The largest packet the client takes, in bytes; 0: any.
    pub(crate) max_packet: u32,
    /// How many topic aliases the client takes.
    pub(crate) aliases: u16,
    pub(crate) will: Option<Box<Will>>,
}

/// Brings a connection from its first byte to CONNACK; `None` if it doesn't get there, all said and closed.
pub(super) async fn connect<S>(
    core: &Arc<Core>,
    backend: &Arc<dyn Backend>,
    io: &mut S,
    peer: Peer,
    place: &mut Place,
    deadline: Instant,
) -> Option<Welcome>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let in_all = place.in_all(&core.config);
    let room = if in_all == Room::Free {
        place.from(peer.address.ip(), &core.config)
    } else {
        in_all
    };
    if let Room::Close(limit) = room {
        core.metrics.limit(limit);
        return None;
    }
    let mut input = BytesMut::with_capacity(FIRST_READ);
    let first = timeout_at(
        deadline,
        first_packet(io, &mut input, core.config.max_packet_size),
    );
    let frame = tokio::select! {
        // In this order: a packet that is there already costs no registration with the token that all share.
        biased;
        frame = first => frame,
        () = core.closing.cancelled() => return None,
    };
    let frame = match frame {
        Ok(Ok(frame)) => frame?,
        Ok(Err(breach)) => {
            unreadable(core, io, &mut input, breach, deadline).await;
            return None;
        }
        Err(_) => {
            core.metrics.limit(Limit::ConnectTimeout);
            return None;
        }
    };
    let Greeting { connect, mut wire } = match wire::greet(&frame) {
        Ok(greeting) => greeting,
        Err(Unwelcome::Close(text)) => {
            tracing::debug!(address = %peer.address, text, "not welcome");
            core.metrics.refused("malformed");
            Box::pin(close(io, &mut BytesMut::new())).await;
            return None;
        }
        Err(Unwelcome::Refuse(version, reason, text)) => {
            tracing::debug!(address = %peer.address, text, "not welcome");
            core.metrics.refused("malformed");
            Box::pin(refuse(io, &mut Wire::new(version), reason)).await;
            return None;
        }
    };
    drop(frame);
    match admit(core, backend, &connect, &peer, room, wire.version()).await {
        Ok(admitted) => {
            let output = welcome(core, &mut wire, &connect, &admitted);
            Some(Welcome {
                live: admitted.live,
                wire,
                input,
                output,
                window: connect
                    .receive_max
                    .map_or(u16::MAX, |max| max.get())
                    .min(core.config.max_in_flight),
                max_packet: connect.max_packet_size.map_or(0, |max| max.get()),
                aliases: connect.topic_alias_max,
                will: admitted.will,
            })
        }
        Err(rejection) => {
            let (reason, name) = rejection.reason();
            core.metrics.refused(name);
            let claimed = claimed_serial(&connect, &peer);
            if matches!(rejection, Rejection::TooManyAttempts) {
                // The flood that this is about should not become one of log lines.
                tracing::debug!(address = %peer.address, serial = ?claimed, reason = name, "connection refused");
            } else {
                tracing::info!(address = %peer.address, serial = ?claimed, reason = name, "connection refused");
            }
            if let Rejection::Refusal(refusal) = rejection {
                backend.event(SessionEvent::Refused {
                    serial: claimed,
                    peer,
                    refusal,
                    at: core.clock.now(),
                });
            }
            Box::pin(refuse(io, &mut wire, reason)).await;
            None
        }
    }
}

/// Reads one whole packet; what came with it stays in `input`. `None` if the other end closes.
async fn first_packet<S>(
    io: &mut S,
    input: &mut BytesMut,
    limit: u32,
) -> Result<Option<BytesMut>, wire::Breach>
where
    S: AsyncRead + Unpin,
{
    loop {
        match wire::frame_length(input, Version::V5, limit)? {
            Some(length) if input.len() >= length => {
                let frame = input.split_to(length);
                // What is left has its own allocation: usually nothing.
                *input = BytesMut::from(&input[..]);
                return Ok(Some(frame));
            }
            _ => {}
        }
        if matches!(io.read_buf(input).await, Ok(0) | Err(_)) {
            return Ok(None);
        }
    }
}

/// A first packet that is not even read. A CONNECT of MQTT 5 that is too large is told so [MQTT5-3.1.2-25].
async fn unreadable<S>(core: &Core, io: &mut S, input: &mut BytesMut, breach: wire::Breach, deadline: Instant)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    core.metrics.refused("malformed");
    if breach.code != DisconnectReasonCode::PacketTooLarge {
        return;
    }
    core.metrics.limit(Limit::PacketSize);
    let head = timeout_at(deadline, async {
        while input.len() < wire::HEAD && matches!(io.read_buf(input).await, Ok(1..)) {}
    });
    if head.await.is_ok() && wire::speaks_v5(input) {
        refuse(io, &mut Wire::new(Version::V5), ConnectAckReason::PacketTooLarge).await;
    }
}

/// The serial a client claims, for the log and the device's timeline.
pub(super) fn claimed_serial(connect: &Connect, peer: &Peer) -> Option<Serial> {
    let name = connect.username.as_deref().or(peer.certificate.as_deref());
    name.and_then(|name| name.parse().ok())
}

/// CONNACK for a client that is in [MQTT-3.2.2.3].
fn welcome(core: &Core, wire: &mut Wire, connect: &Connect, admitted: &Admitted) -> BytesMut {
    let config = &core.config;
    let wanted = Duration::from_secs(u64::from(connect.session_expiry_interval_secs));
    let capped = u32::try_from(admitted.expiry.as_secs()).unwrap_or(u32::MAX);
    let keep_alive = admitted.live.info.keep_alive;
    // A client with little room [MQTT5-3.1.2-24] is not told what it can do without.
    let roomy = connect
        .max_packet_size
        .is_none_or(|max| max.get() >= ROOMY_CONNACK);
    let ack = ConnectAck {
        session_present: admitted.present,
        session_expiry_interval_secs: (admitted.expiry < wanted).then_some(capped),
        receive_max: config
            .receive_maximum
            .try_into()
            .unwrap_or(std::num::NonZeroU16::MAX),
        max_packet_size: roomy.then_some(config.max_packet_size.saturating_add(5)),
        assigned_client_id: admitted.assigned.clone(),
        topic_alias_max: if roomy { config.topic_alias_maximum } else { 0 },
        shared_subscription_available: !roomy || admitted.live.info.identity.serial().is_none(),
        server_keepalive_sec: (keep_alive > 0).then_some(keep_alive),
        ..ConnectAck::default()
    };
    let mut output = BytesMut::new();
    wire.encode(Packet::ConnectAck(Box::new(ack)), 0, &mut output);
    output
}

/// CONNACK for a client that is not, then the end [MQTT-3.2.2-7].
async fn refuse<S>(io: &mut S, wire: &mut Wire, reason: ConnectAckReason)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ack = ConnectAck {
        reason_code: reason,
        ..ConnectAck::default()
    };
    let mut output = BytesMut::new();
    wire.encode(Packet::ConnectAck(Box::new(ack)), 0, &mut output);
    close(io, &mut output).await;
}
