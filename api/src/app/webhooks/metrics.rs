//! What webhooks tell Prometheus: `setpoint_webhooks_*`.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Counts of what this server sends, and of what waits in the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Events that their receivers took.
    pub delivered: Counter,
    /// Attempts that failed.
    pub failed: Counter,
    /// Events given up after their last attempt.
    pub dead: Counter,
    /// Events given up because too many waited.
    pub overflowed: Counter,
    /// Events removed that were never delivered.
    pub dropped: Counter,
    /// Requests under way.
    pub in_flight: Gauge,
    /// Events waiting.
    pub waiting: Gauge,
    /// How old the oldest of them is, in seconds.
    pub lag: Gauge<f64, AtomicU64>,
    /// Seconds that an attempt took.
    pub attempt_seconds: Histogram,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds = [
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ];
        let metrics = Self {
            delivered: Counter::default(),
            failed: Counter::default(),
            dead: Counter::default(),
            overflowed: Counter::default(),
            dropped: Counter::default(),
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            lag: Gauge::default(),
            attempt_seconds: Histogram::new(seconds),
        };
        let registry = registry.sub_registry_with_prefix("webhooks");
        registry.register(
            "delivered",
            "Events that webhooks took",
            metrics.delivered.clone(),
        );
        registry.register(
            "failed",
            "Attempts to tell a webhook that failed",
            metrics.failed.clone(),
        );
        registry.register(
            "dead",
            "Events given up after the last attempt to tell a webhook",
            metrics.dead.clone(),
        );
        registry.register(
            "overflowed",
            "Events given up because too many of the same webhook waited",
            metrics.overflowed.clone(),
        );
        registry.register(
            "dropped",
            "Events removed, by age or number, that were never delivered",
            metrics.dropped.clone(),
        );
        registry.register(
            "in_flight",
            "Requests to webhooks under way",
            metrics.in_flight.clone(),
        );
        registry.register(
            "waiting",
            "Events of webhooks that are enabled waiting in the database",
            metrics.waiting.clone(),
        );
        registry.register_with_unit(
            "lag",
            "Age of the oldest event waiting in the database",
            Unit::Seconds,
            metrics.lag.clone(),
        );
        registry.register_with_unit(
            "attempt",
            "Time that attempts to tell a webhook took",
            Unit::Seconds,
            metrics.attempt_seconds.clone(),
        );
        metrics
    }
}
