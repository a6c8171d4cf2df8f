//! What of the samples that come in matters to some rule.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use setpoint_model::{DeviceId, alert::Subject, telemetry::Value};
use setpoint_store::alerts::Rule;

use super::Alerts;

/// The rules that wait for samples, and the metrics they name.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Differs from that of every other watch of this server.
    pub(super) generation: u64,
    /// What it was read from.
    pub(super) version: Option<(i64, i64)>,
    metrics: HashMap<Box<str>, usize>,
    rules: Vec<WatchedRule>,
    /// Whether some rule waits for devices to be heard of at all.
    any: bool,
}

#[derive(Debug)]
struct WatchedRule {
    rule: Arc<Rule>,
    /// The metrics it compares, as they are numbered here.
    metrics: Vec<usize>,
}

impl Watch {
    pub(super) fn new(generation: u64, version: (i64, i64), rules: Vec<Rule>) -> Self {
        let mut watch = Self {
            generation,
            version: Some(version),
            ..Self::default()
        };
        for rule in rules.into_iter().filter(|rule| rule.definition.enabled) {
            watch.any |= rule.definition.condition.subject == Subject::Silence(None);
            let names: Vec<&str> = rule.definition.condition.metrics().collect();
            let mut metrics = Vec::with_capacity(names.len());
            for name in names {
                let next = watch.metrics.len();
                metrics.push(*watch.metrics.entry(name.into()).or_insert(next));
            }
            let waits = matches!(
                rule.definition.condition.subject,
                Subject::Metrics(_) | Subject::Silence(_)
            );
            if waits {
                let rule = Arc::new(rule);
                watch.rules.push(WatchedRule { rule, metrics });
            }
        }
        watch
    }

    /// Whether any sample matters.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The number of a metric that matters.
    pub(super) fn metric(&self, name: &str) -> Option<usize> {
        self.metrics.get(name).copied()
    }

    /// The number of a rule, if it is known here as it is.
    pub(super) fn rule(&self, rule: &Rule) -> Option<usize> {
        let same = |watched: &WatchedRule| watched.rule.id == rule.id && watched.rule.version == rule.version;
        self.rules.iter().position(same)
    }
}

/// What a device sent that matters, to be judged once it is committed.
#[derive(Debug)]
pub struct Seen {
    pub(super) alerts: Alerts,
    pub(super) watch: Arc<Watch>,
    pub(super) device: DeviceId,
    /// The samples of metrics that matter.
    pub(super) samples: Vec<SeenSample>,
    /// The newest sample of any metric.
    pub(super) newest: Option<DateTime<Utc>>,
}

/// A sample of a metric that matters.
#[derive(Debug, Clone)]
pub(super) struct SeenSample {
    pub(super) metric: usize,
    pub(super) at: DateTime<Utc>,
    pub(super) value: Value<'static>,
}

impl Seen {
    /// Notes a sample, if it matters.
    pub fn note(&mut self, metric: &str, at: DateTime<Utc>, value: &Value<'_>) {
        if self.watch.any {
            self.newest = self.newest.max(Some(at));
        }
        if let Some(metric) = self.watch.metric(metric) {
            let value = value.clone().into_owned();
            self.samples.push(SeenSample { metric, at, value });
        }
    }

    /// The samples are committed: whatever may change a state by them is looked at.
    pub fn stored(self) {
        let alerts = self.alerts.clone();
        alerts.take(self);
    }

    /// Whether there is nothing to judge.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.newest.is_none()
    }
}

/// What is believed of a device since it was last looked at: enough to tell whether a sample may change a state.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The newest value of each metric that matters to the device.
    pub(super) values: Vec<SeenSample>,
    /// The rules over values that are for it.
    pub(super) beliefs: Vec<Belief>,
    /// Silences that fire: the metric, if it is one's alone, and since when.
    pub(super) silences: Vec<(Option<usize>, DateTime<Utc>)>,
}

/// Where a device stands towards a rule over values.
#[derive(Debug)]
pub(super) struct Belief {
    /// The rule's number.
    pub(super) rule: usize,
    pub(super) holds: bool,
    pub(super) firing: bool,
}

impl Known {
    /// Takes samples; from when on the device is to be looked at, if a state may change by them.
    pub(super) fn judge(
        &mut self,
        watch: &Watch,
        samples: &[SeenSample],
        newest: Option<DateTime<Utc>>,
    ) -> Option<DateTime<Utc>> {
        let mut from = newest.filter(|_| self.hears(newest));
        for sample in samples {
            if self.take(watch, sample) {
                from = Some(from.map_or(sample.at, |from| from.min(sample.at)));
            }
        }
        from
    }

    /// Takes a sample; whether a state may change by it. One that is older than the newest of its metric is late, and
    /// changes nothing.
    fn take(&mut self, watch: &Watch, sample: &SeenSample) -> bool {
        let breaks = |(metric, since): &(Option<usize>, DateTime<Utc>)| {
            *metric == Some(sample.metric) && sample.at > *since
        };
        let heard = self.silences.iter().any(breaks);
        match self.values.iter_mut().find(|value| value.metric == sample.metric) {
            Some(value) if value.at >= sample.at => return heard,
            Some(value) => *value = sample.clone(),
            None => self.values.push(sample.clone()),
        }
        let differs = |belief: &Belief| {
            let Some(watched) = watch.rules.get(belief.rule) else {
                return true;
            };
            watched.metrics.contains(&sample.metric)
                && self.holds(watch, watched, belief.firing) != belief.holds
        };
        heard || self.beliefs.iter().any(differs)
    }

    /// Whether hearing anything at all at `newest` may change a state.
    fn hears(&self, newest: Option<DateTime<Utc>>) -> bool {
        let breaks =
            |(metric, since): &(Option<usize>, DateTime<Utc>)| metric.is_none() && newest > Some(*since);
        self.silences.iter().any(breaks)
    }

    fn holds(&self, watch: &Watch, watched: &WatchedRule, firing: bool) -> bool {
        let value = |name: &str| {
            let number = watch.metric(name)?;
            let value = self.values.iter().find(|value| value.metric == number)?;
            Some(&value.value)
        };
        watched.rule.definition.condition.subject.holds(value, firing)
    }
}
