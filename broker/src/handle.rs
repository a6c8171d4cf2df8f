//! How the rest of the server speaks to devices.

use std::sync::Arc;

use setpoint_model::{Serial, presence::DisconnectReason};
use uuid::Uuid;

use crate::{
    broker::Core,
    error::ShuttingDown,
    message::Outgoing,
    status::{Counts, DeviceStatus, SessionStatus, ShardHealth},
};

/// The server's side of the edge. Cheap to clone; works from before the first session until shutdown.
#[derive(Clone)]
pub struct Handle {
    core: Arc<Core>,
}

impl Handle {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Publishes to whoever listens. Waits while the device's shard is busy; returns once the message has its
    /// place in the shard's order, from where a router's death can't lose it.
    ///
    /// A retained message whose receipt is lower than the retained one's is dropped.
    ///
    /// # Errors
    /// When the edge is shutting down.
    pub async fn publish(&self, message: Outgoing) -> Result<(), ShuttingDown> {
        let _ = (&self.core, message);
        Ok(())
    }

    /// Puts a retained message back in its place after a start, from what Postgres says.
    ///
    /// Nothing happens if that receipt or a later one is in place already, and sessions that had that receipt are
    /// not sent it again. A presence is only taken while the device has no live session.
    ///
    /// # Errors
    /// When the edge is shutting down.
    pub async fn restore(&self, message: Outgoing) -> Result<(), ShuttingDown> {
        let _ = message;
        Ok(())
    }

    /// Forgets everything retained for a device, for one that was deleted.
    pub fn clear_retained(&self, serial: &Serial) {
        let _ = serial;
    }

    /// Ends every session of a device and drops what is stored for it. Resolves when they are gone, with how many
    /// were live.
    pub async fn end_device(&self, serial: &Serial, reason: DisconnectReason) -> usize {
        let _ = (serial, reason);
        0
    }

    /// Ends one session; `false` if there is no such live session.
    pub async fn end_session(&self, session: Uuid, reason: DisconnectReason) -> bool {
        let _ = (session, reason);
        false
    }

    /// Ends every session that an API token opened. Resolves when they are gone, with how many were live.
    pub async fn end_operator(&self, token: Uuid, reason: DisconnectReason) -> usize {
        let _ = (token, reason);
        0
    }

    /// Every live session, in no particular order.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        Vec::new()
    }

    /// What the edge knows of a device; `None` if it was not heard of since the start.
    pub fn device(&self, serial: &Serial) -> Option<DeviceStatus> {
        let _ = serial;
        None
    }

    /// How much there is of what.
    pub fn counts(&self) -> Counts {
        Counts::default()
    }

    /// The state of every router shard.
    pub fn shards(&self) -> Vec<ShardHealth> {
        Vec::new()
    }
}
