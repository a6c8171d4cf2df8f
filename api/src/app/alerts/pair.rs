//! One device and one rule: where it stands after everything that is known now.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value as Json};
use setpoint_model::{
    alert::{Comparison, Reason, Standing, State, Subject, Timing, Transition},
    telemetry::Value,
};
use setpoint_store::alerts::{DeviceFacts, Rule, StoredState};

/// How far back samples are looked for: longer than any rule's time.
pub(super) const LOOKBACK: TimeDelta = TimeDelta::days(8);

/// Samples of one device by metric, the oldest first.
pub(super) type Samples = BTreeMap<String, Vec<(DateTime<Utc>, Value<'static>)>>;

/// A device and a rule that is for it.
pub(super) struct Pair<'a> {
    pub(super) rule: &'a Rule,
    pub(super) device: &'a DeviceFacts,
    /// How it stood; `None` while nothing was wrong.
    pub(super) stored: Option<&'a StoredState>,
    pub(super) now: DateTime<Utc>,
}

/// What became of a pair.
pub(super) struct Judged {
    pub(super) standing: Standing,
    pub(super) transitions: Vec<Transition>,
    /// When to look again.
    pub(super) due_at: Option<DateTime<Utc>>,
    /// The values that were looked at.
    pub(super) values: Map<String, Json>,
}

impl Pair<'_> {
    pub(super) fn timing(&self) -> Timing {
        timing(self.rule)
    }

    fn before(&self) -> Standing {
        self.stored
            .map_or_else(|| Standing::ok(self.now), |stored| stored.standing)
    }

    /// From when on samples must be read to judge it: `trigger` is the earliest that came in, `newest` the newest of each
    /// metric. `None` if those say that nothing changed.
    pub(super) fn history_from(
        &self,
        trigger: Option<DateTime<Utc>>,
        newest: &Samples,
    ) -> Option<DateTime<Utc>> {
        let Subject::Metrics(comparisons) = &self.rule.definition.condition.subject else {
            return None;
        };
        let before = self.before();
        let holds = self.holds(&last(newest), before.is_firing());
        let from = if holds == before.held() {
            trigger?
        } else {
            let at = |comparison: &Comparison| Some(newest.get(&comparison.metric)?.last()?.0);
            let newest = comparisons.iter().filter_map(at).max()?;
            let timing = self.timing();
            let from = newest - timing.hold.max(timing.resolve_after);
            trigger.map_or(from, |trigger| trigger.min(from))
        };
        let floor = self.now - LOOKBACK;
        Some(from.max(before.observed_at.unwrap_or(floor)).max(floor))
    }

    fn holds(&self, values: &BTreeMap<&str, &Value<'static>>, firing: bool) -> bool {
        let subject = &self.rule.definition.condition.subject;
        subject.holds(|metric| values.get(metric).copied(), firing)
    }

    /// Judges a rule over values: by what each metric was at first (`initial`), and what came after that (`series`).
    pub(super) fn over_values(&self, initial: &Samples, series: &Samples) -> Judged {
        let timing = self.timing();
        let mut standing = self.before();
        let mut transitions = Vec::new();
        let names: Vec<&str> = self.rule.definition.condition.metrics().collect();
        let named = |metric: &str| names.contains(&metric);
        // What is older than the last observation is no news, but may be what still holds.
        let not_before = |at: DateTime<Utc>| standing.observed_at.map_or(at, |last| last.max(at));
        let mut steps: BTreeMap<DateTime<Utc>, Vec<(&str, &Value<'static>)>> = BTreeMap::new();
        let begin = |(metric, series): (_, &'_ Vec<(DateTime<Utc>, _)>)| Some((metric, series.last()?.0));
        let begun = initial
            .iter()
            .filter(|(metric, _)| named(metric))
            .filter_map(begin);
        if let Some(at) = begun.map(|(_, at)| at).max() {
            let found = last(initial).into_iter().filter(|(metric, _)| named(metric));
            steps.insert(not_before(at), found.collect());
        }
        for (metric, series) in series.iter().filter(|(metric, _)| named(metric)) {
            for (at, value) in series {
                steps.entry(not_before(*at)).or_default().push((metric, value));
            }
        }
        let mut values = BTreeMap::new();
        for (at, found) in steps {
            values.extend(found);
            // Of a metric that was not heard of for long nothing new is known.
            if standing.held() && !names.iter().all(|name| values.contains_key(name)) {
                continue;
            }
            let holds = self.holds(&values, standing.is_firing());
            transitions.extend(standing.observe(holds, at, timing));
        }
        transitions.extend(standing.advance(self.now, timing));
        let mut shown = Map::new();
        for (metric, value) in values {
            shown.insert(metric.to_owned(), serde_json::to_value(value).unwrap_or_default());
        }
        Judged {
            due_at: standing.due(timing),
            standing,
            transitions,
            values: shown,
        }
    }

    /// Judges a rule that waits for silence; `last` is the newest sample.
    pub(super) fn over_silence(&self, last: Option<DateTime<Utc>>) -> Judged {
        let timing = self.timing();
        // That it is silent is observed when the time is over, and needs no further time.
        let at_once = Timing {
            hold: TimeDelta::zero(),
            ..timing
        };
        let mut standing = self.before();
        let mut transitions = Vec::new();
        let since = last.unwrap_or(self.device.created_at.max(self.now - LOOKBACK));
        let deadline = since + timing.hold;
        let not_before = |at: DateTime<Utc>, standing: &Standing| at.max(standing.observed_at.unwrap_or(at));
        if standing.held() && last.is_some() && standing.true_since < last {
            let at = not_before(since, &standing);
            transitions.extend(standing.observe(false, at, at_once));
        }
        if deadline <= self.now && !standing.held() {
            let at = not_before(deadline, &standing);
            transitions.extend(standing.observe(true, at, at_once));
            if standing.held() {
                standing.true_since = Some(since);
            }
        }
        transitions.extend(standing.advance(self.now, at_once));
        let due_at = match standing.due(at_once) {
            // Silent, and nothing to wait for but a sample, which is heard.
            None if standing.is_firing() => None,
            None => Some(deadline),
            Some(due) if standing.is_firing() => Some(due.min(deadline)),
            Some(due) => Some(due),
        };
        Judged {
            standing,
            transitions,
            due_at,
            values: Map::new(),
        }
    }

    /// Judges a rule over the connection or the settings: since when it is so, and when it last was not.
    pub(super) fn over_state(&self) -> Judged {
        let device = self.device;
        let timing = self.timing();
        let mut standing = self.before();
        let mut transitions = Vec::new();
        let (wrong_since, right_at) = match self.rule.definition.condition.subject {
            Subject::Offline if device.online => (None, device.presence_since),
            Subject::Offline => {
                let since = device.presence_since.unwrap_or(device.created_at);
                (Some(since), Some(since))
            }
            _ => (device.pending_since, device.reported_at),
        };
        let not_before = |at: DateTime<Utc>, standing: &Standing| at.max(standing.observed_at.unwrap_or(at));
        match wrong_since {
            None => {
                let at = not_before(right_at.unwrap_or(self.now), &standing);
                transitions.extend(standing.observe(false, at, timing));
            }
            Some(since) => {
                // It was well in between, and nobody looked.
                let began = standing.true_since;
                if standing.held() && began < Some(since) && began < right_at {
                    let at = not_before(since, &standing);
                    transitions.extend(standing.observe(false, at, timing));
                }
                if !standing.held() {
                    let at = not_before(since, &standing);
                    transitions.extend(standing.observe(true, at, timing));
                }
            }
        }
        transitions.extend(standing.advance(self.now, timing));
        Judged {
            due_at: standing.due(timing),
            standing,
            transitions,
            values: Map::new(),
        }
    }
}

impl Judged {
    /// Lets an alert that was resolved long ago be forgotten.
    pub(super) fn keep(mut self, keep_resolved: TimeDelta, now: DateTime<Utc>) -> Self {
        if self.standing.state == State::Resolved {
            let until = self.standing.since.checked_add_signed(keep_resolved);
            let until = until.unwrap_or(DateTime::<Utc>::MAX_UTC);
            if until <= now {
                self.standing = Standing {
                    observed_at: self.standing.observed_at,
                    ..Standing::ok(self.standing.since)
                };
            } else {
                self.due_at = Some(self.due_at.map_or(until, |due| due.min(until)));
            }
        }
        self
    }

    /// Whether it is to be written down: `silence` says that the rule waits for silence.
    pub(super) fn is_kept(&self, silence: bool) -> bool {
        silence || self.standing.state != State::Ok
    }
}

/// How long things take under a rule.
pub(super) fn timing(rule: &Rule) -> Timing {
    Timing {
        hold: rule.definition.condition.hold.delta(),
        resolve_after: rule.definition.resolve_after().delta(),
        begun: rule.begun_at,
    }
}

/// Why a state that was of a rule is over, whatever the condition: `None` if it isn't.
pub(super) fn ended(rule: &Rule, device: &DeviceFacts, era: i64) -> Option<Reason> {
    let definition = &rule.definition;
    if rule.deleted {
        Some(Reason::RuleDeleted)
    } else if !definition.enabled {
        Some(Reason::RuleDisabled)
    } else if !definition
        .scope
        .covers(&device.serial, &device.model, &device.groups)
    {
        Some(Reason::OutOfScope)
    } else if rule.era != era {
        Some(Reason::RuleChanged)
    } else {
        None
    }
}

fn last(samples: &Samples) -> BTreeMap<&str, &Value<'static>> {
    samples
        .iter()
        .filter_map(|(metric, series)| Some((metric.as_str(), &series.last()?.1)))
        .collect()
}
