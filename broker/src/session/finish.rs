//! The end of a connection: registry, presence, will, last words.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::BytesMut;
use rmqtt_codec::v5::{Disconnect, DisconnectReasonCode, Packet};
use setpoint_model::presence::DisconnectReason;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

use super::{
    live::Live,
    registry,
    state::Session,
    will::{DelayedWill, Will},
};
use crate::{
    backend::{Ack, Backend, Inbound, SessionEvent, SessionInfo, Transport},
    broker::Core,
    message::Message,
    shard::Settled,
    wire::{Breach, Wire},
};

/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// How long to wait for the client to close, so that our last words reach it before a reset does.
const LINGER: Duration = Duration::from_secs(1);
/// How much of what it still sends is read meanwhile, in bytes.
const LINGER_BYTES: usize = 64 * 1024;

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// DISCONNECT; with `will`, the client wants its will said.
    Disconnect { will: bool },
    /// Closed, broken, or a bug here.
    Lost,
    /// Nothing heard for one and a half keep-alives.
    KeepAlive,
    /// A breach of the protocol.
    Breach(Breach),
    /// Somebody asked for it.
    Asked(DisconnectReason),
    /// Too many forbidden publishes.
    Denied,
    /// A limit, with what MQTT 5 calls it.
    Limit(DisconnectReasonCode),
    /// The server could not take a message: the client keeps it.
    Unanswered,
}

impl From<Breach> for End {
    fn from(breach: Breach) -> Self {
        match breach.code {
            DisconnectReasonCode::PacketTooLarge | DisconnectReasonCode::ReceiveMaximumExceeded => {
                Self::Limit(breach.code)
            }
            _ => Self::Breach(breach),
        }
    }
}

impl End {
    /// What everybody else is told.
    pub(crate) fn reason(&self) -> DisconnectReason {
        match self {
            Self::Disconnect { .. } => DisconnectReason::ClientDisconnected,
            Self::Lost | Self::Unanswered => DisconnectReason::ConnectionLost,
            Self::KeepAlive => DisconnectReason::KeepAliveTimeout,
            Self::Breach(_) => DisconnectReason::ProtocolError,
            Self::Asked(reason) => *reason,
            Self::Denied => DisconnectReason::NotAuthorized,
            Self::Limit(_) => DisconnectReason::LimitExceeded,
        }
    }

    /// What an MQTT 5 client is told, if it can be told anything.
    fn code(&self) -> Option<DisconnectReasonCode> {
        match self {
            Self::Disconnect { .. } | Self::Lost => None,
            Self::KeepAlive => Some(DisconnectReasonCode::KeepAliveTimeout),
            Self::Breach(breach) => Some(breach.code),
            Self::Asked(DisconnectReason::TakenOver) => Some(DisconnectReasonCode::SessionTakenOver),
            Self::Asked(DisconnectReason::ServerShutdown) => Some(DisconnectReasonCode::ServerShuttingDown),
            Self::Asked(DisconnectReason::LimitExceeded) => Some(DisconnectReasonCode::QuotaExceeded),
            Self::Asked(DisconnectReason::CredentialRevoked) | Self::Denied => {
                Some(DisconnectReasonCode::NotAuthorized)
            }
            Self::Asked(_) => Some(DisconnectReasonCode::AdministrativeAction),
            Self::Limit(code) => Some(*code),
            Self::Unanswered => Some(DisconnectReasonCode::ServerBusy),
        }
    }

    /// Whether the will is said [MQTT-3.1.2-8]; a server that shuts down may leave it [MQTT-3.1.2.5].
    fn says_will(&self) -> bool {
        !matches!(
            self,
            Self::Disconnect { will: false } | Self::Asked(DisconnectReason::ServerShutdown)
        )
    }
}

/// What a connection leaves behind.
pub(super) struct Parting<S> {
    pub(super) end: End,
    pub(super) will: Option<Box<Will>>,
    pub(super) wire: Wire,
    pub(super) io: S,
    /// What was still to be written.
    pub(super) output: BytesMut,
}

/// Ends a session's connection: first for everybody else, then for the client.
///
/// What few sessions need is boxed here and in [`super::connect`], so that the future of the others is small enough
/// for the allocator's caches.
pub(super) async fn finish<S>(
    core: &Arc<Core>,
    backend: &Arc<dyn Backend>,
    live: &Arc<Live>,
    parting: Parting<S>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Parting {
        end,
        will,
        mut wire,
        mut io,
        mut output,
    } = parting;
    let reason = end.reason();
    let will = will.filter(|_| end.says_will());
    let now_or_later = will.map(|will| leave_will(live, *will));
    let info = &live.info;
    let tell = |settled: &Settled| {
        backend.event(SessionEvent::Ended {
            session: Arc::clone(info),
            reason,
            others: settled.others,
            at: core.clock.now(),
        });
    };
    let settled = leave(core, live, reason, tell).await;
    core.metrics
        .session_ended(info.peer.transport, info.version, reason);
    tracing::info!(reason = reason.as_str(), ?end, "session ended");
    match now_or_later {
        Some(Testament::Now(will)) => Box::pin(say(core, backend, info, will)).await,
        Some(Testament::Later(delay)) => schedule(core, backend, live, delay),
        None => {}
    }
    for session in settled.over {
        wind_up(core, backend, &session).await;
    }
    if let Some(reason_code) = end.code() {
        wire.encode(Packet::Disconnect(Disconnect::new(reason_code)), 0, &mut output);
    }
    // A client that said DISCONNECT closes, and hears no more [MQTT-3.14.4-1]: over TCP there is nothing to wait for.
    let heard_all =
        matches!(end, End::Disconnect { .. }) && output.is_empty() && info.peer.transport == Transport::Tcp;
    if heard_all || matches!(end, End::Lost) {
        return;
    }
    Box::pin(close(&mut io, &mut output)).await;
}

/// Takes a connection out of the registry, with presence and subscriptions. `tell` is called before anything else can
/// happen to the device: a client that comes back at once is told of after it.
pub(super) async fn leave(
    core: &Core,
    live: &Arc<Live>,
    reason: DisconnectReason,
    tell: impl FnOnce(&Settled),
) -> Settled {
    match live.info.identity.serial() {
        Some(serial) => {
            let shard = core.shard(serial);
            let permit = shard.reserve().await.ok();
            let mut state = shard.lock();
            let settled = state.leave(serial, live, reason, permit, core);
            tell(&settled);
            settled
        }
        None => {
            let over = {
                let mut bucket = core.operators.bucket(&live.info.client_id);
                let stored = core
                    .config
                    .max_stored_operator_sessions
                    .div_ceil(crate::operators::BUCKETS)
                    * 2;
                let over = registry::leave(&mut bucket, &live.session, stored, &core.config, &core.metrics);
                live.set_gone();
                over
            };
            for session in &over {
                core.forget_operator(session);
            }
            let settled = Settled {
                others: false,
                over,
                orphaned: None,
            };
            tell(&settled);
            settled
        }
    }
}

enum Testament {
    Now(Will),
    Later(Duration),
}

/// Leaves the will with the session if it is to wait. To be done before the client can come back for it.
fn leave_will(live: &Live, will: Will) -> Testament {
    let mut state = live.session.lock();
    let delay = will.delay.min(state.expiry);
    if delay.is_zero() || state.discard {
        return Testament::Now(will);
    }
    state.will = Some(Box::new(DelayedWill {
        connection: live.number,
        will,
        info: Arc::clone(&live.info),
    }));
    Testament::Later(delay)
}

/// Says a will after its delay, unless the client was back by then.
fn schedule(core: &Arc<Core>, backend: &Arc<dyn Backend>, live: &Arc<Live>, delay: Duration) {
    let (core, backend, session) = (Arc::clone(core), Arc::clone(backend), Arc::clone(&live.session));
    let connection = live.number;
    core.tasks.clone().spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = core.stop.cancelled() => return,
        }
        let will = {
            let mut state = session.lock();
            if state
                .will
                .as_ref()
                .is_some_and(|will| will.connection == connection)
            {
                state.will.take()
            } else {
                None
            }
        };
        if let Some(delayed) = will {
            say(&core, &backend, &delayed.info, delayed.will).await;
        }
    });
}

/// A session is over: what it left to say is said.
pub(crate) async fn wind_up(core: &Arc<Core>, backend: &Arc<dyn Backend>, session: &Session) {
    let will = session.lock().will.take();
    if let Some(delayed) = will {
        // Boxed: few sessions leave a will, and whatever calls this has no room for one.
        Box::pin(say(core, backend, &delayed.info, delayed.will)).await;
    }
}

/// Says a will, as if its client had published it.
async fn say(core: &Core, backend: &Arc<dyn Backend>, info: &Arc<SessionInfo>, will: Will) {
    // It could when it connected.
    if !info.identity.may_publish(&will.topic) {
        return;
    }
    let respond_to = will.properties.as_ref().and_then(|p| {
        p.response_topic
            .as_ref()
            .map(|topic| (topic.to_string(), p.correlation_data.clone()))
    });
    let inbound = Inbound {
        session: Arc::clone(info),
        topic: will.topic.clone(),
        payload: will.payload.clone(),
        at: core.clock.now(),
        respond_to,
    };
    let message = Message {
        name: will.topic.to_string().into(),
        topic: will.topic,
        payload: will.payload,
        qos: will.qos,
        retain: will.retain,
        receipt: None,
        properties: will.properties,
        publisher: None,
        at: Instant::now(),
        sequence: 0,
        restored: false,
        told: AtomicBool::new(false),
    };
    if core.publish(message).await.is_ok() {
        backend.inbound(inbound, Ack::new(|_| ())).await;
    }
}

/// Writes what is left to say, then closes so that it arrives.
pub(super) async fn close<S>(io: &mut S, output: &mut BytesMut)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let said = timeout(LAST_WORDS, async {
        io.write_all_buf(output).await?;
        io.flush().await?;
        io.shutdown().await
    })
    .await;
    if matches!(said, Ok(Ok(()))) {
        let _ = timeout(LINGER, drain(io)).await;
    }
}

/// Reads until the client closes. Closing with unread bytes would reset the connection, and that can overtake what
/// we said last.
async fn drain<S: AsyncRead + Unpin>(io: &mut S) -> io::Result<()> {
    let mut rest = LINGER_BYTES;
    let mut scratch = BytesMut::with_capacity(1024);
    loop {
        scratch.clear();
        let read = io.read_buf(&mut scratch).await?;
        if read == 0 || read > rest {
            return Ok(());
        }
        rest -= read;
    }
}
