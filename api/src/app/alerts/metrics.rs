//! What alerts tell Prometheus: `setpoint_alerts_*`.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use setpoint_model::alert::{Severity, State};

/// Counts of alerts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Alerts that fire, under all servers.
    pub firing: Gauge,
    /// Alerts that are pending, under all servers.
    pub pending: Gauge,
    transitions: Family<TransitionLabel, Counter>,
    /// Devices looked at.
    pub judged: Counter,
    /// Devices waiting to be looked at.
    pub waiting: Gauge,
    /// Devices that could not wait any more: everything is looked at instead.
    pub overflowed: Counter,
    /// Devices whose newest values were forgotten for want of room.
    pub forgotten: Counter,
    /// From when an alert should have fired or been resolved to when it was.
    pub lag: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransitionLabel {
    state: &'static str,
    severity: &'static str,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds = [0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0, 3_600.0];
        let metrics = Self {
            firing: Gauge::default(),
            pending: Gauge::default(),
            transitions: Family::default(),
            judged: Counter::default(),
            waiting: Gauge::default(),
            overflowed: Counter::default(),
            forgotten: Counter::default(),
            lag: Histogram::new(seconds),
        };
        let registry = registry.sub_registry_with_prefix("alerts");
        registry.register(
            "firing",
            "Alerts that fire, under all servers",
            metrics.firing.clone(),
        );
        registry.register(
            "pending",
            "Alerts that are pending, under all servers",
            metrics.pending.clone(),
        );
        registry.register(
            "transitions",
            "Alerts that fired or were resolved by this server",
            Family::clone(&metrics.transitions),
        );
        registry.register("judged", "Devices looked at", metrics.judged.clone());
        registry.register(
            "waiting",
            "Devices waiting to be looked at",
            metrics.waiting.clone(),
        );
        registry.register(
            "overflowed",
            "Devices that found no room to wait; all devices were looked at instead",
            metrics.overflowed.clone(),
        );
        registry.register(
            "forgotten",
            "Devices whose newest values were forgotten for want of room, and read back later",
            metrics.forgotten.clone(),
        );
        registry.register_with_unit(
            "lag",
            "From when an alert was to fire or be resolved to when it was",
            Unit::Seconds,
            metrics.lag.clone(),
        );
        metrics
    }

    /// An alert fired or was resolved.
    pub fn told(&self, state: State, severity: Severity) {
        let label = TransitionLabel {
            state: state.as_str(),
            severity: severity.as_str(),
        };
        self.transitions.get_or_create(&label).inc();
    }
}
