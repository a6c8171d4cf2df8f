//! How the rest of the server speaks to devices.

use std::sync::{Arc, atomic::Ordering};

use setpoint_model::{Channel, Serial, presence::DisconnectReason};
use uuid::Uuid;

use crate::{
    backend::SessionInfo,
    broker::Core,
    error::ShuttingDown,
    message::{Message, Outgoing},
    session::Live,
    status::{Began, Counts, DeviceStatus, SessionStatus, ShardHealth},
};

/// The server's side of the edge. Cheap to clone; works from before the first session until shutdown.
#[derive(Clone)]
pub struct Handle {
    pub(crate) core: Arc<Core>,
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
        let message = Message::from_server(message, false, &self.core.config.discovery);
        self.core.publish(message).await
    }

    /// Puts a retained message back in its place after a start, from what Postgres says.
    ///
    /// Nothing happens if that receipt or a later one is in place already (or, without a receipt, anything is), and
    /// sessions that had that settings version are not sent it again. A presence is only taken while the device has
    /// no live session.
    ///
    /// # Errors
    /// When the edge is shutting down.
    pub async fn restore(&self, message: Outgoing) -> Result<(), ShuttingDown> {
        let core = &self.core;
        let shard = core.shard(&message.topic.serial);
        let permit = shard.reserve().await?;
        let mut state = shard.lock();
        let online = state
            .devices
            .get(&message.topic.serial)
            .is_some_and(|device| device.is_online());
        if message.topic.channel == Channel::Presence && online {
            return Ok(());
        }
        let message = Message::from_server(message, true, &core.config.discovery);
        state.admit(message, Some(permit), &core.config, &core.metrics);
        Ok(())
    }

    /// Forgets everything retained for a device, for one that was deleted. What Home Assistant was told of it stays until an
    /// empty message in its place tells it that the device is gone.
    pub fn clear_retained(&self, serial: &Serial) {
        let mut state = self.core.shard(serial).lock();
        if let Some(device) = state.devices.get_mut(serial) {
            device.retained.clear();
        }
        state.tidy(serial);
    }

    /// Ends every session of a device and drops what is stored for it. Resolves when they are gone, with how many
    /// were live.
    pub async fn end_device(&self, serial: &Serial, reason: DisconnectReason) -> usize {
        let lives = self.core.shard(serial).lock().end_device(serial, reason);
        gone(lives).await
    }

    /// Ends one session; `false` if there is no such live session. Resolves when it is gone. What is stored for it
    /// stays: its client may come back.
    pub async fn end_session(&self, session: Uuid, reason: DisconnectReason) -> bool {
        let found: Vec<_> = self
            .core
            .lives()
            .into_iter()
            .filter(|live| live.info.id == session)
            .collect();
        for live in &found {
            live.end(reason, false);
        }
        gone(found).await > 0
    }

    /// Ends every session that an API token opened, with what is stored for them. Resolves when they are gone, with
    /// how many were live.
    pub async fn end_operator(&self, token: Uuid, reason: DisconnectReason) -> usize {
        let (lives, stored) = self.core.operators.end_token(token);
        for session in stored {
            self.core.forget_operator(&session);
        }
        for live in &lives {
            live.end(reason, false);
        }
        gone(lives).await
    }

    /// Every live session, in no particular order.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        self.core
            .lives()
            .iter()
            .filter(|live| live.is_started())
            .map(|live| live.status())
            .collect()
    }

    /// The live sessions that `wanted` accepts, newest first: at most `limit` of those older than `before`.
    pub fn sessions_where(
        &self,
        wanted: impl Fn(&SessionInfo) -> bool,
        before: Option<Began>,
        limit: usize,
    ) -> Vec<SessionStatus> {
        let mut found = self.core.lives();
        found.retain(|live| {
            let older = before.is_none_or(|before| Began::of(&live.info) < before);
            older && wanted(&live.info) && live.is_started()
        });
        found.sort_unstable_by_key(|live| std::cmp::Reverse(Began::of(&live.info)));
        found.iter().take(limit).map(|live| live.status()).collect()
    }

    /// A live session.
    pub fn session(&self, session: Uuid) -> Option<SessionStatus> {
        let lives = self.core.lives();
        let found = lives.iter().find(|live| live.info.id == session);
        found.filter(|live| live.is_started()).map(|live| live.status())
    }

    /// What the edge knows of a device; `None` if it has had no session since the start.
    pub fn device(&self, serial: &Serial) -> Option<DeviceStatus> {
        self.core.shard(serial).lock().devices.get(serial)?.status(serial)
    }

    /// How much there is of what.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            shards: self.core.shards().len(),
            ..Counts::default()
        };
        for shard in self.core.shards() {
            let state = shard.lock();
            counts.retained += state.retained();
            for device in state.devices.values() {
                let live = device
                    .sessions
                    .iter()
                    .filter(|session| session.lock().live.is_some())
                    .count();
                counts.sessions += live;
                counts.stored_sessions += device.sessions.len() - live;
                counts.devices_online += usize::from(device.is_online());
            }
            drop(state);
            counts.shards_healthy += usize::from(!shard.health.down.load(Ordering::Relaxed));
            counts.router_restarts += shard.health.restarts.load(Ordering::Relaxed);
        }
        for session in self.core.operators.sessions() {
            match session.lock().live {
                Some(_) => counts.sessions += 1,
                None => counts.stored_sessions += 1,
            }
        }
        counts
    }

    /// The state of every router shard.
    pub fn shards(&self) -> Vec<ShardHealth> {
        let health = |shard: &crate::shard::Shard| ShardHealth {
            shard: shard.index,
            healthy: !shard.health.down.load(Ordering::Relaxed),
            in_flight: shard.depth(),
            restarts: shard.health.restarts.load(Ordering::Relaxed),
        };
        self.core.shards().iter().map(health).collect()
    }

    /// Kills the router thread of a device's shard, for tests of what happens then.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn kill_router(&self, serial: &Serial) {
        self.core.shard(serial).health.kill.notify_one();
    }
}

/// Waits until connections are gone from the registry; how many they were.
async fn gone(lives: Vec<Arc<Live>>) -> usize {
    let count = lives.len();
    let waiting: Vec<_> = lives.iter().map(|live| live.gone()).collect();
    drop(lives);
    for gone in waiting {
        // An error is what it resolves to.
        let _ = gone.await;
    }
    count
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Core {
    /// Every connection that has a session.
    pub(crate) fn lives(&self) -> Vec<Arc<Live>> {
        let mut lives = Vec::new();
        for shard in self.shards() {
            let state = shard.lock();
            let sessions = state.devices.values().flat_map(|device| &device.sessions);
            lives.extend(sessions.filter_map(|session| session.lock().live.clone()));
        }
        let operators = self.operators.sessions();
        lives.extend(operators.iter().filter_map(|session| session.lock().live.clone()));
        lives
    }
}
