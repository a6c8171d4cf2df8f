//! What Prometheus is told: `setpoint_mqtt_*`.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use setpoint_model::{Channel, presence::DisconnectReason};

use crate::backend::{Transport, Version};

/// A limit that was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Connections in all.
    Sessions,
    /// Connections from one address.
    SessionsPerAddress,
    /// Live sessions of one device.
    SessionsPerDevice,
    /// No CONNECT in time.
    ConnectTimeout,
    /// A packet larger than allowed.
    PacketSize,
    /// Packets or bytes per second: slowed down.
    RateSlowed,
    /// Packets or bytes per second: ended.
    RateEnded,
    /// Subscriptions of one session.
    Subscriptions,
    /// Failed logins.
    FailedLogins,
    /// A client that doesn't read.
    OutboundQueue,
    /// Bytes that waited too long for a client.
    WriteTimeout,
    /// More unacknowledged messages than the Receive Maximum.
    ReceiveMaximum,
    /// Retained messages of one device.
    Retained,
    /// Forbidden publishes.
    Denied,
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::SessionsPerAddress => "sessions_per_address",
            Self::SessionsPerDevice => "sessions_per_device",
            Self::ConnectTimeout => "connect_timeout",
            Self::PacketSize => "packet_size",
            Self::RateSlowed => "rate_slowed",
            Self::RateEnded => "rate_ended",
            Self::Subscriptions => "subscriptions",
            Self::FailedLogins => "failed_logins",
            Self::OutboundQueue => "outbound_queue",
            Self::WriteTimeout => "write_timeout",
            Self::ReceiveMaximum => "receive_maximum",
            Self::Retained => "retained",
            Self::Denied => "denied",
        }
    }
}

/// Messages that wait for clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) connected: usize,
    pub(crate) away: usize,
}

/// Why a message was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// QoS 0, and the client's queue is full.
    QueueFull,
    /// The queue of a client that is away is full.
    OfflineQueueFull,
    /// Kept too long for a client that is away.
    TooOld,
    /// Its message expiry interval ran out.
    Expired,
    /// Larger than the client's Maximum Packet Size.
    TooLarge,
    /// A retained message with an older receipt than the one in place.
    Outdated,
    /// A newer version took its place in the queue.
    Superseded,
    /// A shared subscription without a member to take it.
    NoMember,
}

impl Dropped {
    fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::OfflineQueueFull => "offline_queue_full",
            Self::TooOld => "too_old",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::Outdated => "outdated",
            Self::Superseded => "superseded",
            Self::NoMember => "no_member",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SessionLabels {
    transport: &'static str,
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabels {
    direction: &'static str,
    channel: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClientLabels {
    client: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatLabels {
    what: &'static str,
}

/// The edge's metrics. Those of the hot paths are reached without a lock.
pub(crate) struct Metrics {
    sessions: Family<SessionLabels, Gauge>,
    connects: Family<SessionLabels, Counter>,
    refusals: Family<ReasonLabels, Counter>,
    disconnects: Family<ReasonLabels, Counter>,
    denied: Family<WhatLabels, Counter>,
    limits: Family<LimitLabels, Counter>,
    drops: Family<ReasonLabels, Counter>,
    inbound: Vec<Traffic>,
    outbound: Vec<Traffic>,
    acknowledged: Histogram,
    shard_lag: Histogram,
    queued: Family<ClientLabels, Gauge>,
    /// Messages in the fullest shard's queue and router.
    pub(crate) queue_depth: Gauge,
    /// Router threads that died and were replaced.
    pub(crate) router_restarts: Counter,
    /// Connections that ended before MQTT began.
    handshakes_failed: Family<ReasonLabels, Counter>,
}

/// Messages and bytes of one channel in one direction.
#[derive(Clone)]
struct Traffic {
    messages: Counter,
    bytes: Counter,
}

/// A name for each channel, in the order of [`channel_index`].
const CHANNELS: [&str; 10] = [
    "settings",
    "settings_ack",
    "settings_set",
    "telemetry",
    "presence",
    "commands",
    "command_result",
    "firmware",
    "firmware_status",
    "discovery",
];

impl Metrics {
    pub(crate) fn register(root: &mut Registry) -> Self {
        let registry = root.sub_registry_with_prefix("setpoint_mqtt");
        let sessions = Family::default();
        registry.register("sessions", "Live sessions", sessions.clone());
        let connects = Family::default();
        registry.register("connects", "Sessions that began", connects.clone());
        let refusals = Family::default();
        registry.register("refusals", "Connections refused, by reason", refusals.clone());
        let disconnects = Family::default();
        registry.register(
            "disconnects",
            "Sessions that ended, by reason",
            disconnects.clone(),
        );
        let denied = Family::default();
        registry.register(
            "denied",
            "Publishes and subscriptions that the topic rules refused",
            denied.clone(),
        );
        let limits = Family::default();
        registry.register("limits_hit", "Limits that were hit", limits.clone());
        let drops = Family::default();
        registry.register(
            "messages_dropped",
            "Messages not delivered, by reason",
            drops.clone(),
        );
        let messages: Family<ChannelLabels, Counter> = Family::default();
        registry.register("messages", "Messages received and sent", messages.clone());
        let bytes: Family<ChannelLabels, Counter> = Family::default();
        registry.register(
            "payload_bytes",
            "Bytes of payload received and sent",
            bytes.clone(),
        );
        let traffic = |direction| {
            CHANNELS
                .iter()
                .map(|channel| {
                    let labels = ChannelLabels { direction, channel };
                    Traffic {
                        messages: messages.get_or_create(&labels).clone(),
                        bytes: bytes.get_or_create(&labels).clone(),
                    }
                })
                .collect()
        };
        let buckets = [
            0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ];
        let acknowledged = Histogram::new(buckets);
        registry.register(
            "acknowledgement_seconds",
            "From a message's arrival to its acknowledgement",
            acknowledged.clone(),
        );
        let shard_lag = Histogram::new(buckets);
        registry.register(
            "shard_lag_seconds",
            "From a message's arrival in its router shard to its delivery to the sessions that hear it",
            shard_lag.clone(),
        );
        let queued = Family::default();
        registry.register(
            "messages_queued",
            "Messages that wait for clients, connected or away",
            queued.clone(),
        );
        let queue_depth = Gauge::default();
        registry.register(
            "shard_queue_depth",
            "Messages waiting in the fullest router shard",
            queue_depth.clone(),
        );
        let router_restarts = Counter::default();
        registry.register(
            "router_restarts",
            "Router threads that died and were replaced",
            router_restarts.clone(),
        );
        let handshakes_failed = Family::default();
        registry.register(
            "handshakes_failed",
            "Connections that ended before MQTT began",
            handshakes_failed.clone(),
        );
        Self {
            inbound: traffic("in"),
            outbound: traffic("out"),
            sessions,
            connects,
            refusals,
            disconnects,
            denied,
            limits,
            drops,
            acknowledged,
            shard_lag,
            queued,
            queue_depth,
            router_restarts,
            handshakes_failed,
        }
    }

    pub(crate) fn session_started(&self, transport: Transport, version: Version) {
        let labels = session_labels(transport, version);
        self.sessions.get_or_create(&labels).inc();
        self.connects.get_or_create(&labels).inc();
    }

    pub(crate) fn session_ended(&self, transport: Transport, version: Version, reason: DisconnectReason) {
        self.sessions
            .get_or_create(&session_labels(transport, version))
            .dec();
        self.disconnects
            .get_or_create(&ReasonLabels {
                reason: reason.as_str(),
            })
            .inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(crate) fn handshake_failed(&self, reason: &'static str) {
        self.handshakes_failed
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    pub(crate) fn denied(&self, what: &'static str) {
        self.denied.get_or_create(&WhatLabels { what }).inc();
    }

    pub(crate) fn limit(&self, limit: Limit) {
        self.limits
            .get_or_create(&LimitLabels { limit: limit.name() })
            .inc();
    }

    pub(crate) fn dropped(&self, dropped: Dropped) {
        self.drops
            .get_or_create(&ReasonLabels {
                reason: dropped.name(),
            })
            .inc();
    }

    pub(crate) fn received(&self, channel: Channel, bytes: usize) {
        count(self.inbound.get(channel_index(channel)), bytes);
    }

    pub(crate) fn sent(&self, channel: Channel, bytes: usize) {
        count(self.outbound.get(channel_index(channel)), bytes);
    }

    pub(crate) fn delivered(&self, after: Duration) {
        self.shard_lag.observe(after.as_secs_f64());
    }

    /// How many messages wait for clients that are connected, and for those that are away.
    pub(crate) fn queued(&self, waiting: Waiting) {
        for (client, messages) in [("connected", waiting.connected), ("away", waiting.away)] {
            self.queued
                .get_or_create(&ClientLabels { client })
                .set(i64::try_from(messages).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn acknowledged(&self, after: Duration) {
        self.acknowledged.observe(after.as_secs_f64());
    }
}

fn count(traffic: Option<&Traffic>, bytes: usize) {
    if let Some(traffic) = traffic {
        traffic.messages.inc();
        traffic.bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

fn channel_index(channel: Channel) -> usize {
    match channel {
        Channel::Settings => 0,
        Channel::SettingsAck => 1,
        Channel::SettingsSet => 2,
        Channel::Telemetry => 3,
        Channel::Presence => 4,
        Channel::Commands => 5,
        Channel::CommandResult(_) => 6,
        Channel::Firmware => 7,
        Channel::FirmwareStatus => 8,
        Channel::Discovery => 9,
    }
}

fn session_labels(transport: Transport, version: Version) -> SessionLabels {
    SessionLabels {
        transport: match transport {
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::WebSocket => "websocket",
        },
        version: match version {
            Version::V3 => "3.1.1",
            Version::V5 => "5.0",
        },
    }
}
