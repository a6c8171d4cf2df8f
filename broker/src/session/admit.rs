//! Who gets in: credentials, client id, will, and the session that goes with them.

use std::{sync::Arc, time::Duration};

use bytestring::ByteString;
use rmqtt_codec::v5::{Connect, ConnectAckReason, LastWill};
use setpoint_model::{Identity, Serial, presence::DisconnectReason};
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::{
    connect::claimed_serial,
    finish::{self, wind_up},
    live::Live,
    registry::{self, Claim, Newcomer},
    state::Session,
    will::Will,
};
use crate::{
    admission::Room,
    backend::{Authenticated, Backend, Login, Peer, Refusal, SessionEvent, SessionInfo, Version},
    broker::Core,
    metrics::Limit,
};

/// How long the backend may take to say who a client is.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that is taken over may take to go.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest client id, in bytes.
const MAX_CLIENT_ID: usize = 512;

/// Why a client does not get in.
pub(super) enum Rejection {
    /// A refusal that the backend hears of too.
    Refusal(Refusal),
    /// A login that is not even tried. The backend heard [`Refusal::TooManyAttempts`] once, when that began.
    TooManyAttempts,
    /// Anything else, with its name for metrics.
    Other(ConnectAckReason, &'static str),
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl Rejection {
    /// What the client is told, and the name for metrics.
    pub(super) fn reason(&self) -> (ConnectAckReason, &'static str) {
        match self {
            Self::Refusal(Refusal::NotAuthorized) => (ConnectAckReason::NotAuthorized, "not_authorized"),
            Self::Refusal(Refusal::ClientId) => (ConnectAckReason::ClientIdentifierNotValid, "client_id"),
            Self::Refusal(Refusal::Unavailable) => (ConnectAckReason::ServerUnavailable, "unavailable"),
            Self::TooManyAttempts | Self::Refusal(Refusal::TooManyAttempts) => {
                (ConnectAckReason::QuotaExceeded, "too_many_attempts")
            }
            Self::Other(reason, name) => (*reason, name),
        }
    }
}

/// A client that has its session.
pub(super) struct Admitted {
    pub(super) live: Arc<Live>,
    /// Whether it had the session before.
    pub(super) present: bool,
    pub(super) will: Option<Box<Will>>,
    /// The client id the edge chose [MQTT-3.2.2-16].
    pub(super) assigned: Option<ByteString>,
    /// How long its session outlives the connection.
    pub(super) expiry: Duration,
}

/// Everything that decides whether a client gets in, in order.
pub(super) async fn admit(
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
    if connect
        .max_packet_size
        .is_some_and(|max| max.get() < smallest_connack(connect))
    {
        // It can't even be told that it is in.
        return Err(Rejection::Other(
            ConnectAckReason::PacketTooLarge,
            "max_packet_size",
        ));
    }
    let authenticated = authenticate(core, backend, connect, peer).await?;
    let identity = authenticated.identity.clone();
    let (client_id, assigned) = client_id(&identity, &connect.client_id)?;
    let announced = |will: &LastWill| identity.may_announce(&will.topic, &core.config.discovery);
    let will = match connect.last_will.clone() {
        // Home Assistant's own, which goes nowhere.
        Some(will) if announced(&will) => None,
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
    let info = Arc::new(SessionInfo {
        id: Uuid::new_v4(),
        identity: newcomer.identity.clone(),
        client_id: newcomer.client_id.clone(),
        peer: peer.clone(),
        version,
        since: core.clock.now(),
        keep_alive: keep_alive(core, connect.keep_alive, version),
        clean: connect.clean_start,
    });
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

/// Bytes of a CONNACK with what a client must know: receive maximum, keep-alive, session expiry, and the client id if it
/// has none.
fn smallest_connack(connect: &Connect) -> u32 {
    if connect.client_id.is_empty() { 116 } else { 16 }
}

async fn authenticate(
    core: &Core,
    backend: &Arc<dyn Backend>,
    connect: &Connect,
    peer: &Peer,
) -> Result<Authenticated, Rejection> {
    let address = peer.address.ip();
    let username = connect.username.as_deref();
    if !core.logins.may_try(address, username) {
        core.metrics.limit(Limit::FailedLogins);
        return Err(Rejection::TooManyAttempts);
    }
    let login = Login {
        peer: peer.clone(),
        client_id: connect.client_id.to_string(),
        username: username.map(str::to_owned),
        password: connect.password.clone(),
    };
    let answer = timeout(AUTHENTICATION_TIMEOUT, backend.authenticate(login)).await;
    match answer.unwrap_or(Err(Refusal::Unavailable)) {
        Ok(authenticated) => {
            core.logins.succeeded(address, username);
            Ok(authenticated)
        }
        Err(refusal) => {
            let failed = refusal == Refusal::NotAuthorized
                && core.logins.failed(address, username, &core.config, &core.metrics);
            if failed {
                backend.event(SessionEvent::Refused {
                    serial: claimed_serial(connect, peer),
                    peer: peer.clone(),
                    refusal: Refusal::TooManyAttempts,
                    at: core.clock.now(),
                });
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
            Identity::Operator(_) => format!("operator:{random}"),
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
    info: &Arc<SessionInfo>,
) -> Result<(Arc<Live>, bool), Rejection> {
    let serial = newcomer.identity.serial();
    let mut successor = false;
    let deadline = Instant::now() + TAKE_OVER_TIMEOUT;
    loop {
        let connect = |session: Arc<Session>| Arc::new(Live::new(core.number(), Arc::clone(info), session));
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
    let mut state = shard.lock();
    if let Some((session, reason)) = state.give_up(serial, permit, core).orphaned {
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
    core.metrics
        .session_started(live.info.peer.transport, live.info.version);
    let started = SessionEvent::Started(Arc::clone(&live.info));
    match serial {
        Some(serial) => {
            let shard = core.shard(serial);
            let permit = shard.reserve().await.ok();
            let mut state = shard.lock();
            state.start(serial, live, permit, core);
            backend.event(started);
        }
        None => {
            live.set_started();
            backend.event(started);
        }
    }
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
    finish::leave(core, live, DisconnectReason::CredentialRevoked, |_| {}).await;
}
