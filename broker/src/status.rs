//! What the edge tells about itself: sessions, devices, shards.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::backend::SessionInfo;

/// A live session with its figures.
#[derive(Debug, Clone)]
pub struct SessionStatus {
    /// Who, from where, since when, how.
    pub info: Arc<SessionInfo>,
    /// Its topic filters, as it gave them.
    pub subscriptions: Vec<String>,
    /// Messages that wait to be sent to it.
    pub queued: usize,
    /// QoS 1 and 2 messages sent to it that it has not acknowledged.
    pub in_flight: usize,
    /// Messages received from it.
    pub messages_in: u64,
    /// Messages sent to it.
    pub messages_out: u64,
    /// Bytes received from it.
    pub bytes_in: u64,
    /// Bytes sent to it.
    pub bytes_out: u64,
}

/// When a session began: its place among all of them, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Began {
    /// When.
    pub since: DateTime<Utc>,
    /// Which, among those of the same moment.
    pub session: Uuid,
}

impl Began {
    /// When this one began.
    pub fn of(info: &SessionInfo) -> Self {
        Self {
            since: info.since,
            session: info.id,
        }
    }
}

/// What the edge knows of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Whether it has a live session.
    pub online: bool,
    /// Since when it is online, or when it went.
    pub since: DateTime<Utc>,
    /// Whether a live session of it is subscribed to its settings.
    pub hears_settings: bool,
}

/// How much there is of what, for readiness and dashboards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Live sessions, of devices and operators.
    pub sessions: usize,
    /// Devices with a live session.
    pub devices_online: usize,
    /// Sessions whose client is away.
    pub stored_sessions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Router shards in all.
    pub shards: usize,
    /// Router shards that work at this moment.
    pub shards_healthy: usize,
    /// Router threads that died and were replaced, since the start.
    pub router_restarts: u64,
}

/// The state of one router shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardHealth {
    /// Its number.
    pub shard: usize,
    /// Whether its router answers.
    pub healthy: bool,
    /// Messages handed to it that have not been delivered yet.
    pub in_flight: usize,
    /// How often its router died and was replaced.
    pub restarts: u64,
}
