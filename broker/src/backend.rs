//! What the edge asks of the rest of the server.

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use setpoint_model::{Identity, Serial, Topic, presence::DisconnectReason};
use uuid::Uuid;

/// The server behind the edge: identity, ingest, and a listener for what happens to sessions.
///
/// The synchronous methods are called from a session's own task and must not block.
pub trait Backend: Send + Sync + 'static {
    /// Who is this client, and may it connect? Slow answers hold up this client alone.
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Authenticated, Refusal>>;

    /// Whether an identity given out by [`Self::authenticate`] still holds.
    ///
    /// Asked once the session stands in the registry, so that a revocation which ran between the two
    /// can't be missed: either it finds the session, or this finds the revocation.
    fn is_current(&self, authenticated: &Authenticated) -> bool;

    /// Takes a message that a client may publish. Waiting here is back-pressure on that client alone.
    ///
    /// The message is acknowledged to the client when `ack` is completed, in the order of arrival;
    /// dropping `ack` leaves it unacknowledged and ends the session, so that the client keeps it.
    fn inbound(&self, message: Inbound, ack: Ack) -> BoxFuture<'_, ()>;

    /// Takes a message that nothing has to be waited for, which saves the future; gives any other back, for
    /// [`Self::inbound`].
    fn inbound_at_once(&self, message: Inbound, ack: Ack) -> Option<(Inbound, Ack)> {
        Some((message, ack))
    }

    /// The device itself acknowledged a message that [`crate::Handle::publish`] gave a receipt.
    fn delivered(&self, topic: &Topic, receipt: u64);

    /// A session began, changed its subscriptions or ended, or a message was refused.
    ///
    /// Beginnings and ends of a device's sessions come in their order, while other sessions of its shard wait: this may
    /// neither block nor call the broker.
    fn event(&self, event: SessionEvent);
}

/// How a client came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// MQTT over TCP.
    Tcp,
    /// MQTT over TLS.
    Tls,
    /// MQTT over WebSocket.
    WebSocket,
}

/// The protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Version {
    /// MQTT 3.1.1 (and 3.1, treated alike).
    #[serde(rename = "3.1.1")]
    V3,
    /// MQTT 5.0.
    #[serde(rename = "5.0")]
    V5,
}

/// The other end of a connection, before it said who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address, the original one behind a PROXY protocol load balancer.
    pub address: SocketAddr,
    /// How it came in.
    pub transport: Transport,
    /// The common name of the client certificate that TLS verified.
    pub certificate: Option<String>,
}

/// What a client presents in CONNECT.
#[derive(Clone)]
pub struct Login {
    /// Where it comes from.
    pub peer: Peer,
    /// The client id; empty when the client leaves the choice to the server.
    pub client_id: String,
    /// The user name: a serial, or `token`.
    pub username: Option<String>,
    /// The password: a device token or an API token.
    pub password: Option<Bytes>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("peer", &self.peer)
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A client that may connect.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// Who it is.
    pub identity: Identity,
    /// The backend's own mark of when it decided, for [`Backend::is_current`].
    pub epoch: u64,
}

/// Why a client may not connect. Each has its CONNACK code in both versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Wrong or missing credentials: 5 in 3.1.1, 0x87 in 5.0.
    #[error("not authorized")]
    NotAuthorized,
    /// The client id is not the serial nor begins with `serial:`: 2 in 3.1.1, 0x85 in 5.0.
    #[error("client id does not belong to this identity")]
    ClientId,
    /// The database can't be asked just now: 3 in 3.1.1, 0x88 in 5.0.
    #[error("server unavailable")]
    Unavailable,
    /// Too many failed logins from this address or for this serial: 3 in 3.1.1, 0x97 in 5.0.
    #[error("too many attempts")]
    TooManyAttempts,
}

/// A live session, as others may see it.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// This connection's id; also in presence and on every log line.
    pub id: Uuid,
    /// Who it is.
    pub identity: Identity,
    /// Its MQTT client id.
    pub client_id: String,
    /// Where it comes from.
    pub peer: Peer,
    /// Its protocol.
    pub version: Version,
    /// When it connected.
    pub since: DateTime<Utc>,
    /// The keep-alive in force, in seconds; 0 is none.
    pub keep_alive: u16,
    /// Whether it asked for a clean start.
    pub clean: bool,
}

/// A message from a client on a topic that it may publish to.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// The session it came through.
    pub session: Arc<SessionInfo>,
    /// Its topic; the channel's writer is the device or an operator.
    pub topic: Topic,
    /// Its payload, unread.
    pub payload: Bytes,
    /// When the edge read it.
    pub at: DateTime<Utc>,
    /// Where an MQTT 5 client wants an answer: response topic and correlation data.
    pub respond_to: Option<(String, Option<Bytes>)>,
}

/// The verdict on an inbound message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Safe in Postgres, or needs no keeping.
    Accepted,
    /// The payload breaks a rule, told in one sentence: 0x99 in MQTT 5. MQTT 3.1.1 has no such
    /// answer, and without an acknowledgement the device would send it for ever: acknowledged.
    Invalid(String),
}

/// Completes one inbound message.
///
/// Built by the edge; the closure writes the acknowledgement of that session's window.
pub struct Ack(Option<Box<dyn FnOnce(Option<Outcome>) + Send>>);

impl Ack {
    /// An acknowledgement that tells `complete` the outcome, or `None` when dropped without one.
    pub fn new(complete: impl FnOnce(Option<Outcome>) + Send + 'static) -> Self {
        Self(Some(Box::new(complete)))
    }

    /// The message is dealt with.
    pub fn complete(mut self, outcome: Outcome) {
        if let Some(complete) = self.0.take() {
            complete(Some(outcome));
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(complete) = self.0.take() {
            complete(None);
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ack")
    }
}

/// Something that happened to a session.
#[derive(Debug, Clone)]
pub enum SessionEvent {
    /// It is connected.
    Started(Arc<SessionInfo>),
    /// A device began or ceased to hear its own settings.
    SettingsSubscription {
        /// The session.
        session: Arc<SessionInfo>,
        /// Whether it hears `devices/{serial}/settings` now.
        subscribed: bool,
    },
    /// It is gone.
    Ended {
        /// The session.
        session: Arc<SessionInfo>,
        /// Why.
        reason: DisconnectReason,
        /// Whether another session of the same device is still live.
        others: bool,
        /// When.
        at: DateTime<Utc>,
    },
    /// A message or subscription was refused by the topic rules.
    Denied {
        /// The session.
        session: Arc<SessionInfo>,
        /// What it tried, for people: `publish devices/B/telemetry`.
        what: String,
        /// When.
        at: DateTime<Utc>,
    },
    /// A login was refused; the name is what the client claimed, not who it is.
    Refused {
        /// The serial it claimed, if it is one.
        serial: Option<Serial>,
        /// Where it came from.
        peer: Peer,
        /// Why.
        refusal: Refusal,
        /// When.
        at: DateTime<Utc>,
    },
}
