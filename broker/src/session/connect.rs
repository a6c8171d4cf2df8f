//! From the first byte to CONNACK.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use bytestring::ByteString;
use rmqtt_codec::v5::{Connect, ConnectAck, ConnectAckReason, Packet};
use setpoint_model::{Identity, Serial, presence::DisconnectReason};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    time::{Instant, timeout, timeout_at},
};
use uuid::Uuid;

use super::{
    finish::{close, wind_up},
    live::Live,
    registry::{self, Claim, Newcomer},
    state::Session,
    will::Will,
};
use crate::{
    admission::{Place, Room},
    backend::{Authenticated, Backend, Login, Peer, Refusal, SessionEvent, SessionInfo, Version},
    broker::Core,
    metrics::Limit,
    wire::{self, Greeting, Unwelcome, Wire},
};

/// How long the backend may take to say who a client is.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that is taken over may take to go.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest client id, in bytes.
const MAX_CLIENT_ID: usize = 512;

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

/// Why a client does not get in.
enum Rejection {
    /// A refusal that the backend hears of too.
    Refusal(Refusal),
    /// Anything else, with its name for metrics.
    Other(ConnectAckReason, &'static str),
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl Rejection {
    fn reason(&self) -> (ConnectAckReason, &'static str) {
        match self {
            Self::Refusal(Refusal::NotAuthorized) => (ConnectAckReason::NotAuthorized, "not_authorized"),
            Self::Refusal(Refusal::ClientId) => (ConnectAckReason::ClientIdentifierNotValid, "client_id"),
            Self::Refusal(Refusal::Unavailable) => (ConnectAckReason::ServerUnavailable, "unavailable"),
            Self::Refusal(Refusal::TooManyAttempts) => (ConnectAckReason::QuotaExceeded, "too_many_attempts"),
            Self::Other(reason, name) => (*reason, name),
        }
    }
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
    let mut input = BytesMut::new();
    let frame = match timeout_at(
        deadline,
        first_packet(io, &mut input, core.config.max_packet_size),
    )
    .await
    {
        Ok(frame) => frame?,
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
            close(io, &mut BytesMut::new()).await;
            return None;
        }
        Err(Unwelcome::Refuse(version, reason, text)) => {
            tracing::debug!(address = %peer.address, text, "not welcome");
            core.metrics.refused("malformed");
            refuse(io, &mut Wire::new(version), reason).await;
            return None;
        }
    };
    drop(frame);
    let claimed = claimed_serial(&connect, &peer);
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
            tracing::info!(address = %peer.address, serial = ?claimed, reason = name, "connection refused");
            if let Rejection::Refusal(refusal) = rejection {
                backend.event(SessionEvent::Refused {
                    serial: claimed,
                    peer,
                    refusal,
                    at: core.clock.now(),
                });
            }
            refuse(io, &mut wire, reason).await;
            None
        }
    }
}

/// Reads one whole packet; what came with it stays in `input`. `None` if the other end closes or sends no packet.
async fn first_packet<S>(io: &mut S, input: &mut BytesMut, limit: u32) -> Option<BytesMut>
where
    S: AsyncRead + Unpin,
{
    loop {
        match wire::frame_length(input, Version::V5, limit) {
            Ok(Some(length)) if input.len() >= length => {
                let frame = input.split_to(length);
                // What is left has its own allocation: usually nothing.
                *input = BytesMut::from(&input[..]);
                return Some(frame);
            }
            Ok(_) => {}
            Err(_) => return None,
        }
        if io.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
}

/// The serial a client claims, for the log and the device's timeline.
fn claimed_serial(connect: &Connect, peer: &Peer) -> Option<Serial> {
    let name = connect.username.as_deref().or(peer.certificate.as_deref());
    name.and_then(|name| name.parse().ok())
}

/// A client that has its session.
struct Admitted {
    live: Arc<Live>,
    present: bool,
    will: Option<Box<Will>>,
    /// The client id the edge chose [MQTT-3.2.2-16].
    assigned: Option<ByteString>,
    expiry: Duration,
}

/// Everything that decides whether a client gets in, in order.
async fn admit(
    core: &Arc<Core>,
    backend: &Arc<dyn Backend>,
    connect: &Connect,
    peer: &Peer,
    room: Room,
    version: Version,
) -> Result<Admitted, Rejection> {
    if let Room::Refuse(limit) = room {
        core.metrics.limit(limit);
        return Err(Rejection::Other(ConnectAckReason::QuotaExceeded, "sessions"));
    }
    if core.closing.is_cancelled() {
        return Err(Rejection::Other(
            ConnectAckReason::ServerUnavailable,
            "shutting_down",
        ));
    }
    if connect.auth_method.is_some() {
        // [MQTT-4.12.0-1]: there is no enhanced authentication here.
        return Err(Rejection::Other(
            ConnectAckReason::BadAuthenticationMethod,
            "authentication_method",
        ));
    }
    let authenticated = authenticate(core, backend, connect, peer).await?;
    let identity = authenticated.identity.clone();
    let (client_id, assigned) = client_id(&identity, &connect.client_id)?;
    let will = match connect.last_will.clone() {
        Some(will) => {
            let will = Will::new(will, &identity);
            Some(Box::new(will.ok_or(Rejection::Other(
                ConnectAckReason::NotAuthorized,
                "will",
            ))?))
        }
        None => None,
    };
    let expiry = match version {
        Version::V3 if connect.clean_start => Duration::ZERO,
        Version::V3 => core.config.v3_session_expiry,
        Version::V5 => {
            let wanted = Duration::from_secs(u64::from(connect.session_expiry_interval_secs));
            wanted.min(core.config.max_session_expiry)
        }
    };
    let newcomer = Newcomer {
        identity,
        client_id,
        clean: connect.clean_start,
        expiry,
        id: core.number(),
    };
    let info = SessionInfo {
        id: Uuid::new_v4(),
        identity: newcomer.identity.clone(),
        client_id: newcomer.client_id.clone(),
        peer: peer.clone(),
        version,
        since: core.clock.now(),
        keep_alive: keep_alive(core, connect.keep_alive, version),
        clean: connect.clean_start,
    };
    let (live, present) = take(core, backend, &newcomer, &info).await?;
    if !backend.is_current(&authenticated) {
        leave_unstarted(core, &live).await;
        return Err(Refusal::NotAuthorized.into());
    }
    start(core, backend, &live).await;
    Ok(Admitted {
        live,
        present,
        will,
        assigned,
        expiry,
    })
}

async fn authenticate(
    core: &Core,
    backend: &Arc<dyn Backend>,
    connect: &Connect,
    peer: &Peer,
) -> Result<Authenticated, Rejection> {
    let address = peer.address.ip();
    let username = connect.username.as_ref().map(ToString::to_string);
    if !core.logins.may_try(address, username.as_deref()) {
        core.metrics.limit(Limit::FailedLogins);
        return Err(Refusal::TooManyAttempts.into());
    }
    let login = Login {
        peer: peer.clone(),
        client_id: connect.client_id.to_string(),
        username: username.clone(),
        password: connect.password.clone(),
    };
    let answer = timeout(AUTHENTICATION_TIMEOUT, backend.authenticate(login)).await;
    match answer.unwrap_or(Err(Refusal::Unavailable)) {
        Ok(authenticated) => {
            core.logins.succeeded(address, username.as_deref());
            Ok(authenticated)
        }
        Err(refusal) => {
            if refusal == Refusal::NotAuthorized {
                core.logins
                    .failed(address, username.as_deref(), &core.config, &core.metrics);
            }
            Err(refusal.into())
        }
    }
}

/// The client id to use, and whether the edge chose it. A device's begins with its serial: that is what keeps one
/// device from taking over another's session.
fn client_id(identity: &Identity, wanted: &ByteString) -> Result<(String, Option<ByteString>), Refusal> {
    if wanted.is_empty() {
        let random = Uuid::new_v4().simple();
        let chosen = match identity {
            Identity::Device(serial) => format!("{serial}:{random}"),
            Identity::Operator { .. } => format!("operator:{random}"),
        };
        let assigned = ByteString::from(chosen.as_str());
        return Ok((chosen, Some(assigned)));
    }
    let owned = identity
        .serial()
        .is_none_or(|serial| serial.owns_client_id(wanted));
    if owned && wanted.len() <= MAX_CLIENT_ID {
        Ok((wanted.to_string(), None))
    } else {
        Err(Refusal::ClientId)
    }
}

/// The keep-alive in force, in seconds; 0 is none.
fn keep_alive(core: &Core, wanted: u16, version: Version) -> u16 {
    match (version, wanted) {
        (Version::V3, wanted) => wanted,
        (Version::V5, 0) => core.config.keep_alive_for_none.unwrap_or(0),
        (Version::V5, wanted) => wanted.min(core.config.max_keep_alive),
    }
}

/// Takes the session of the client id, ending the connection that has it [MQTT-3.1.4-3].
async fn take(
    core: &Arc<Core>,
    backend: &Arc<dyn Backend>,
    newcomer: &Newcomer,
    info: &SessionInfo,
) -> Result<(Arc<Live>, bool), Rejection> {
    let serial = newcomer.identity.serial();
    let mut successor = false;
    let deadline = Instant::now() + TAKE_OVER_TIMEOUT;
    loop {
        let connect = |session: Arc<Session>| Arc::new(Live::new(core.number(), info.clone(), session));
        let claim = match serial {
            Some(serial) => core
                .shard(serial)
                .lock()
                .claim(serial, newcomer, successor, core, connect),
            None => {
                let mut bucket = core.operators.bucket(&newcomer.client_id);
                registry::claim(&mut bucket, newcomer, usize::MAX, connect)
            }
        };
        match claim {
            Claim::Taken {
                live,
                present,
                discarded,
            } => {
                for session in discarded {
                    if serial.is_none() {
                        core.forget_operator(&session);
                    }
                    wind_up(core, backend, &session).await;
                }
                return Ok((live, present));
            }
            Claim::Busy(old) => {
                successor = true;
                let gone = old.gone();
                old.end(DisconnectReason::TakenOver, false);
                drop(old);
                if timeout_at(deadline, gone).await.is_ok() {
                    continue;
                }
                give_up(core, backend, serial).await;
                return Err(Rejection::Other(ConnectAckReason::ServerBusy, "take_over"));
            }
            Claim::TooMany => {
                if successor {
                    give_up(core, backend, serial).await;
                }
                core.metrics.limit(Limit::SessionsPerDevice);
                return Err(Rejection::Other(
                    ConnectAckReason::QuotaExceeded,
                    "sessions_per_device",
                ));
            }
        }
    }
}

/// A successor that does not make it: nobody else is about to take over because of it.
async fn give_up(core: &Core, backend: &Arc<dyn Backend>, serial: Option<&Serial>) {
    let Some(serial) = serial else { return };
    let shard = core.shard(serial);
    let permit = shard.reserve().await.ok();
    let settled = shard.lock().give_up(serial, permit, core);
    if let Some((session, reason)) = settled.orphaned {
        backend.event(SessionEvent::Ended {
            session,
            reason,
            others: false,
            at: core.clock.now(),
        });
    }
}

/// The client is in: its device is online.
async fn start(core: &Core, backend: &Arc<dyn Backend>, live: &Arc<Live>) {
    let serial = live.info.identity.serial();
    match serial {
        Some(serial) => {
            let shard = core.shard(serial);
            let permit = shard.reserve().await.ok();
            shard.lock().start(serial, live, permit, core);
        }
        None => live.set_started(),
    }
    core.metrics
        .session_started(live.info.peer.transport, live.info.version);
    backend.event(SessionEvent::Started(Arc::clone(&live.info)));
    let hears = serial.is_some_and(|serial| {
        live.session
            .lock()
            .subscriptions
            .iter()
            .any(|s| s.hears_settings(serial))
    });
    if hears {
        let session = Arc::clone(&live.info);
        backend.event(SessionEvent::SettingsSubscription {
            session,
            subscribed: true,
        });
    }
}

/// A client whose credential was revoked while it connected.
async fn leave_unstarted(core: &Core, live: &Arc<Live>) {
    live.session.lock().discard = true;
    super::finish::leave(core, live, DisconnectReason::CredentialRevoked).await;
}

/// CONNACK for a client that is in [MQTT-3.2.2.3].
fn welcome(core: &Core, wire: &mut Wire, connect: &Connect, admitted: &Admitted) -> BytesMut {
    let config = &core.config;
    let wanted = Duration::from_secs(u64::from(connect.session_expiry_interval_secs));
    let capped = u32::try_from(admitted.expiry.as_secs()).unwrap_or(u32::MAX);
    let keep_alive = admitted.live.info.keep_alive;
    let ack = ConnectAck {
        session_present: admitted.present,
        session_expiry_interval_secs: (admitted.expiry < wanted).then_some(capped),
        receive_max: config
            .receive_maximum
            .try_into()
            .unwrap_or(std::num::NonZeroU16::MAX),
        max_packet_size: Some(config.max_packet_size.saturating_add(5)),
        assigned_client_id: admitted.assigned.clone(),
        topic_alias_max: config.topic_alias_maximum,
        shared_subscription_available: admitted.live.info.identity.serial().is_none(),
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
