//! Where connections come in.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

use crate::{
    backend::{Backend, Peer},
    broker::Core,
    transport::Acceptor,
};

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
        let _ = (&self.core, &self.backend, listener, acceptor);
    }

    /// Runs one connection that came in some other way, such as a WebSocket, to its end.
    pub async fn session<S>(&self, io: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _ = (io, peer);
    }

    /// Ends every session (MQTT 5: DISCONNECT 0x8B) once its messages in hand are acknowledged, or `grace` is over.
    /// Takes no new connections; [`crate::Handle::publish`] fails from then on. Resolves when all is still.
    pub async fn shutdown(&self, grace: Duration) {
        let _ = grace;
    }
}
