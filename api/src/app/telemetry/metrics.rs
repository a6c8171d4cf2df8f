//! What telemetry tells Prometheus: `setpoint_telemetry_*`.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use setpoint_model::telemetry::Reason;

/// Counts of the way from a payload to Postgres. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Samples committed; a duplicate counts like its first copy.
    pub stored: Counter,
    rejected: Family<ReasonLabel, Counter>,
    /// Samples of devices that are gone.
    pub orphaned: Counter,
    /// Objects whose time was too far ahead.
    pub skewed: Counter,
    /// Commits that met a duplicate and went by the staging table.
    pub merged: Counter,
    /// Commits tried again because Postgres was away.
    pub retried: Counter,
    /// Samples waiting for a commit or in one.
    pub queued: Gauge,
    /// Rounds over the roll-ups that came to their end.
    pub rollup_rounds: Counter,
    /// How far the roll-ups are behind, in seconds.
    pub rollup_lag: Gauge,
    /// Notes of late samples whose roll-ups are still to be computed again.
    pub late_waiting: Gauge,
    /// Notes of late samples whose roll-ups were.
    pub late_settled: Counter,
    /// Rows per commit.
    pub batch_rows: Histogram,
    /// Seconds a commit took, retries included.
    pub commit_seconds: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl Metrics {
    /// Counts samples, objects or whole payloads that were refused.
    pub fn rejected(&self, reason: Reason, count: usize) {
        let reason = reason.as_str();
        self.rejected
            .get_or_create(&ReasonLabel { reason })
            .inc_by(count as u64);
    }

    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let rows = [1.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0];
        let seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
        let metrics = Self {
            stored: Counter::default(),
            rejected: Family::default(),
            orphaned: Counter::default(),
            skewed: Counter::default(),
            merged: Counter::default(),
            retried: Counter::default(),
            queued: Gauge::default(),
            rollup_rounds: Counter::default(),
            rollup_lag: Gauge::default(),
            late_waiting: Gauge::default(),
            late_settled: Counter::default(),
            batch_rows: Histogram::new(rows),
            commit_seconds: Histogram::new(seconds),
        };
        let registry = registry.sub_registry_with_prefix("telemetry");
        registry.register("samples_stored", "Samples committed", metrics.stored.clone());
        registry.register(
            "samples_rejected",
            "Samples, objects or whole payloads refused, by reason",
            metrics.rejected.clone(),
        );
        registry.register(
            "samples_orphaned",
            "Samples of deleted devices, dropped",
            metrics.orphaned.clone(),
        );
        registry.register(
            "items_skewed",
            "Objects whose time was too far ahead, stored at their arrival",
            metrics.skewed.clone(),
        );
        registry.register(
            "commits_merged",
            "Commits that met a duplicate",
            metrics.merged.clone(),
        );
        registry.register("commits_retried", "Commits tried again", metrics.retried.clone());
        registry.register(
            "queue_samples",
            "Samples waiting for a commit or in one",
            metrics.queued.clone(),
        );
        registry.register(
            "rollup_rounds",
            "Rounds over the roll-ups that came to their end",
            metrics.rollup_rounds.clone(),
        );
        registry.register_with_unit(
            "rollup_lag",
            "How far the roll-ups by minute are behind",
            Unit::Seconds,
            metrics.rollup_lag.clone(),
        );
        registry.register(
            "late_waiting",
            "Hours of series with late samples, whose roll-ups are to be computed again (counted up to 100,000)",
            metrics.late_waiting.clone(),
        );
        registry.register(
            "late_settled",
            "Hours of series with late samples, whose roll-ups were computed again",
            metrics.late_settled.clone(),
        );
        registry.register("batch_rows", "Rows per commit", metrics.batch_rows.clone());
        registry.register_with_unit(
            "commit",
            "Time from a full batch to its commit",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        metrics
    }
}
