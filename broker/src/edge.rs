//! Where connections come in.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use setpoint_model::presence::DisconnectReason;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    admission::{Place, Room},
    backend::{Backend, Peer},
    broker::Core,
    metrics::Limit,
    session,
    transport::Acceptor,
};

/// How long accepting rests after an error such as too many open files.
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// How long what is left may take once the sessions' time is over.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Takes connections and runs their sessions. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    core: Arc<Core>,
    backend: Arc<dyn Backend>,
}

impl Edge {
    pub(crate) fn new(core: Arc<Core>, backend: Arc<dyn Backend>) -> Self {
        Self { core, backend }
    }

    /// Accepts connections from `listener` until shutdown, each in a task of its own. Returns at once.
    pub fn serve(&self, listener: TcpListener, acceptor: Acceptor) {
        let edge = self.clone();
        let tasks = self.core.tasks.clone();
        tasks.spawn(edge.accept(listener, Arc::new(acceptor)));
    }

    async fn accept(self, listener: TcpListener, acceptor: Arc<Acceptor>) {
        loop {
            let accepted = tokio::select! {
                () = self.core.closing.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => self.connected(stream, from, &acceptor),
                // The client was gone before it was accepted.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "accepting connections failed");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn connected(&self, stream: TcpStream, from: SocketAddr, acceptor: &Arc<Acceptor>) {
        let Some(place) = self.place() else { return };
        let (core, backend, acceptor) = (
            Arc::clone(&self.core),
            Arc::clone(&self.backend),
            Arc::clone(acceptor),
        );
        self.core.sessions.spawn(async move {
            let deadline = Instant::now() + core.config.connect_timeout;
            // Boxed: a handshake's room is not kept for the session's life.
            let accepting = Box::pin(timeout_at(deadline, acceptor.accept(stream, from)));
            let accepted = tokio::select! {
                // In this order: plain TCP is ready at once, and costs no registration with the token that all share.
                biased;
                accepted = accepting => accepted,
                () = core.closing.cancelled() => return,
            };
            match accepted {
                Ok(Ok((io, peer))) => session::run(core, backend, io, peer, place, deadline).await,
                Ok(Err(error)) => {
                    core.metrics.handshake_failed(error.reason());
                    tracing::debug!(%from, %error, "connection lost before MQTT");
                }
                Err(_) => core.metrics.limit(Limit::ConnectTimeout),
            }
        });
    }

    /// A place among the connections, unless there are far too many.
    fn place(&self) -> Option<Place> {
        let place = self.core.connections.enter();
        match place.in_all(&self.core.config) {
            Room::Close(limit) => {
                self.core.metrics.limit(limit);
                None
            }
            Room::Free | Room::Refuse(_) => Some(place),
        }
    }

    /// Runs one connection that came in some other way, such as a WebSocket, to its end.
    ///
    /// The session runs in a task of its own: dropping this future does not end it.
    pub async fn session<S>(&self, io: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(place) = self.place() else { return };
        let deadline = Instant::now() + self.core.config.connect_timeout;
        let (core, backend) = (Arc::clone(&self.core), Arc::clone(&self.backend));
        let task = self
            .core
            .sessions
            .spawn(session::run(core, backend, io, peer, place, deadline));
        // An error would be a panic, which is in the log already.
        let _ = task.await;
    }

    /// Ends every session (MQTT 5: DISCONNECT 0x8B) once its messages in hand are acknowledged, or `grace` is over.
    /// Takes no new connections; [`crate::Handle::publish`] fails from then on. Resolves when all is still, at most
    /// two seconds after `grace`.
    pub async fn shutdown(&self, grace: Duration) {
        let core = &self.core;
        core.closing.cancel();
        core.sessions.close();
        core.tasks.close();
        self.end_all(true);
        if timeout(grace, core.sessions.wait()).await.is_err() {
            self.end_all(false);
            if timeout(LAST_CALL, core.sessions.wait()).await.is_err() {
                tracing::warn!(left = core.sessions.len(), "connections did not end in time");
            }
        }
        core.stop.cancel();
        if timeout(LAST_CALL, core.tasks.wait()).await.is_err() {
            tracing::warn!(left = core.tasks.len(), "broker tasks did not end in time");
        }
    }

    fn end_all(&self, drain: bool) {
        for live in self.core.lives() {
            live.end(DisconnectReason::ServerShutdown, drain);
        }
    }
}

/// Whether an error of `accept` concerns the connection that was to be accepted, and no other.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
