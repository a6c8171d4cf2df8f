//! What settings tell Prometheus: `setpoint_settings_*`.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use setpoint_model::settings::Source;

/// Counts of changes and of what devices answer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    changes: Family<SourceLabel, Counter>,
    acknowledgements: Family<OutcomeLabel, Counter>,
    sets: Family<OutcomeLabel, Counter>,
    rejections: Family<OutcomeLabel, Counter>,
    /// Documents that a changed layer would have made too large.
    pub withheld: Counter,
    /// Versions that were not answered in time.
    pub overdue: Counter,
    /// Documents handed to MQTT.
    pub published: Counter,
    /// Marks dropped because too many waited.
    pub marks_dropped: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            changes: Family::default(),
            acknowledgements: Family::default(),
            sets: Family::default(),
            rejections: Family::default(),
            withheld: Counter::default(),
            overdue: Counter::default(),
            published: Counter::default(),
            marks_dropped: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("setpoint_settings");
        registry.register(
            "changes",
            "New settings versions by source",
            metrics.changes.clone(),
        );
        registry.register(
            "acknowledgements",
            "Acknowledgements by outcome: applied, refused, differing, repeated, or why one was rejected",
            metrics.acknowledgements.clone(),
        );
        registry.register(
            "sets",
            "Patches over MQTT by outcome: accepted, or the code of the problem",
            metrics.sets.clone(),
        );
        registry.register(
            "rejections",
            "Changes over REST and from pages that were refused, by the code of the problem",
            metrics.rejections.clone(),
        );
        registry.register(
            "withheld",
            "Documents that stayed as they were because a changed layer would have made them too large",
            metrics.withheld.clone(),
        );
        registry.register(
            "overdue",
            "Versions that devices did not answer within the time expected of their model",
            metrics.overdue.clone(),
        );
        registry.register("published", "Documents handed to MQTT", metrics.published.clone());
        registry.register(
            "marks_dropped",
            "Delivery marks dropped because too many waited",
            metrics.marks_dropped.clone(),
        );
        metrics
    }

    pub(super) fn changed(&self, source: Source) {
        self.changes
            .get_or_create(&SourceLabel {
                source: source.as_str(),
            })
            .inc();
    }

    pub(super) fn rejected(&self, outcome: &'static str) {
        self.rejections.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn set(&self, outcome: &'static str) {
        self.sets.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn acknowledged(&self, outcome: &'static str) {
        self.acknowledgements
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
    }
}
