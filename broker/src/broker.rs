//! The broker as a whole.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use setpoint_model::Clock;

use crate::{backend::Backend, config::Config, edge::Edge, error::Error, handle::Handle};

/// What everything in the edge shares.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The router shards and everything that sessions share, before any session.
pub struct Broker {
    core: Arc<Core>,
}

impl Broker {
    /// Starts the router shards. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the configuration makes no sense, or a router can't be started.
    pub fn new(config: Config, clock: Arc<dyn Clock>, metrics: &mut Registry) -> Result<Self, Error> {
        let _ = metrics;
        config.check().map_err(Error::Config)?;
        Ok(Self {
            core: Arc::new(Core { config, clock }),
        })
    }

    /// The server's side of the edge.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.core))
    }

    /// Opens the edge for sessions, which `backend` serves.
    pub fn start(self, backend: Arc<dyn Backend>) -> Edge {
        Edge::new(self.core, backend)
    }
}
