//! Judging devices by rules: read what is known, let each pair of device and rule go on, write what changed, tell.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use setpoint_model::{
    DeviceId,
    alert::{Standing, State, Subject},
    event::EventType,
};
use setpoint_store::alerts::{DeviceFacts, LockedAlerts, NewState, Newest, Rule, StoredState, Told};

use super::{
    Alerts,
    pair::{Judged, LOOKBACK, Pair, Samples, ended},
    telling,
    watch::{Belief, Known, SeenSample, Watch},
};
use crate::app::{App, Error, Events, events::Event};

/// The samples of some devices.
type SamplesOf = HashMap<DeviceId, Samples>;

/// What a judgement is made from.
struct Evidence {
    now: DateTime<Utc>,
    rules: Vec<Rule>,
    stored: HashMap<(i64, DeviceId), StoredState>,
    /// The newest sample of each metric that matters to a device.
    newest: SamplesOf,
    /// The newest sample of any metric, of devices of which it matters.
    heard: HashMap<DeviceId, DateTime<Utc>>,
    /// What each metric was before `history`, of devices whose states may have changed by samples.
    before: SamplesOf,
    history: SamplesOf,
}

/// What a judgement came to.
#[derive(Default)]
struct Outcome {
    states: Vec<NewState>,
    gone: Vec<(i64, DeviceId)>,
    told: Vec<Told>,
    /// Devices one of whose states is another now.
    changed: BTreeSet<DeviceId>,
    known: HashMap<DeviceId, Known>,
    /// Whether rules are watched for as they are now.
    outdated: bool,
    next_due: Option<DateTime<Utc>>,
}

impl App {
    /// Judges devices that are locked, and makes it last. `triggers` are the earliest samples that came in of some of them.
    /// Returns when the next of their states is due.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Contended`], [`Error::Internal`]; then nothing was changed.
    pub(super) async fn judge_alerts(
        &self,
        mut locked: LockedAlerts,
        triggers: &HashMap<DeviceId, DateTime<Utc>>,
    ) -> Result<Option<DateTime<Utc>>, Error> {
        let devices = std::mem::take(&mut locked.devices);
        let whole = locked.only.is_none();
        let watch = self.alerts.watched();
        if whole {
            self.alerts.begin(devices.iter().map(|device| device.id));
        }
        let judged = self.judge_held(locked, &devices, triggers, &watch).await;
        let mut outcome = match judged {
            Ok(outcome) => outcome,
            Err(error) => {
                if whole {
                    for device in &devices {
                        self.alerts.finish(device.id, &watch, None);
                    }
                }
                return Err(error);
            }
        };
        let now = self.clock.now();
        for device in &devices {
            if whole {
                let known = outcome.known.remove(&device.id).filter(|_| !outcome.outdated);
                self.alerts.finish(device.id, &watch, known);
            } else if outcome.changed.contains(&device.id) {
                self.alerts.recheck(device.id, now);
            }
        }
        if outcome.outdated {
            self.alerts.changed();
        }
        self.alerts.metrics().judged.inc_by(devices.len() as u64);
        Ok(outcome.next_due)
    }

    async fn judge_held(
        &self,
        mut locked: LockedAlerts,
        devices: &[DeviceFacts],
        triggers: &HashMap<DeviceId, DateTime<Utc>>,
        watch: &Watch,
    ) -> Result<Outcome, Error> {
        let now = self.clock.now();
        let limit = i64::from(self.alerts.config().max_samples);
        // What is asked of the database about devices goes by those that are locked.
        locked.devices = devices.to_vec();
        let evidence = Evidence::read(&mut locked, devices, triggers, now, limit).await?;
        let keep = TimeDelta::from_std(self.alerts.config().keep_resolved).unwrap_or(TimeDelta::MAX);
        let outcome = evidence.judge(devices, watch, keep);
        locked.remove(&outcome.gone).await?;
        locked.write(&outcome.states).await?;
        locked.tell(&outcome.told).await?;
        let changed: Vec<DeviceId> = outcome.changed.iter().copied().collect();
        locked.tell_servers(&changed).await?;
        locked.commit().await?;
        for told in &outcome.told {
            announce(&self.alerts, &self.events, told, now);
        }
        Ok(outcome)
    }
}

/// Tells those who listen here, and counts.
pub(super) fn announce(alerts: &Alerts, events: &Events, told: &Told, now: DateTime<Utc>) {
    let word = |field| told.event.get(field).and_then(Value::as_str).unwrap_or_default();
    alerts
        .metrics()
        .told(told.transition.to, word("severity").parse().unwrap_or_default());
    let lag = (now - told.transition.at).to_std().unwrap_or_default();
    alerts.metrics().lag.observe(lag.as_secs_f64());
    tracing::info!(
        serial = %told.serial,
        alert = word("alert"),
        state = told.transition.to.as_str(),
        "alert"
    );
    events.tell(Event {
        kind: EventType::Alert,
        serial: told.serial.clone(),
        at: told.transition.at,
        data: told.event.to_string().into(),
    });
}

impl Evidence {
    async fn read(
        locked: &mut LockedAlerts,
        devices: &[DeviceFacts],
        triggers: &HashMap<DeviceId, DateTime<Utc>>,
        now: DateTime<Utc>,
        limit: i64,
    ) -> Result<Self, Error> {
        let rules = locked.rules().await?;
        let states = locked.states().await?;
        let stored = states.into_iter();
        let mut evidence = Self {
            now,
            rules,
            stored: stored
                .map(|state| ((state.rule_id, state.device_id), state))
                .collect(),
            newest: HashMap::new(),
            heard: HashMap::new(),
            before: HashMap::new(),
            history: HashMap::new(),
        };
        let floor = now - LOOKBACK;
        let (mut metrics, mut any) = (BTreeSet::new(), Vec::new());
        for device in devices {
            let mut waits = false;
            for pair in evidence.pairs(device) {
                let condition = &pair.rule.definition.condition;
                waits |= condition.subject == Subject::Silence(None);
                metrics.extend(condition.metrics().map(|metric| (device.id, metric.to_owned())));
            }
            any.extend(waits.then_some(device.id));
        }
        let wanted = |from: &dyn Fn(DeviceId) -> Option<DateTime<Utc>>| -> Vec<Newest> {
            let of = |(device_id, metric): &(DeviceId, String)| {
                let (device_id, metric) = (*device_id, metric.clone());
                from(device_id).map(|from| Newest {
                    device_id,
                    metric,
                    from,
                })
            };
            metrics.iter().filter_map(of).collect()
        };
        let newest = gathered(locked.samples(&wanted(&|_| Some(floor)), 1).await?);
        let heard = locked.last_heard(&any, floor).await?.into_iter().collect();
        let mut from = HashMap::new();
        for device in devices {
            let trigger = triggers.get(&device.id).copied();
            let none = Samples::new();
            let newest = newest.get(&device.id).unwrap_or(&none);
            let earliest = evidence
                .pairs(device)
                .filter_map(|pair| pair.history_from(trigger, newest))
                .min();
            from.extend(earliest.map(|earliest| (device.id, earliest)));
        }
        let wanted = wanted(&|device| from.get(&device).copied());
        evidence.newest = newest;
        evidence.heard = heard;
        if wanted.is_empty() {
            return Ok(evidence);
        }
        evidence.before = gathered(locked.samples_before(&wanted, floor).await?);
        evidence.history = gathered(locked.samples(&wanted, limit).await?);
        for (device, history) in &evidence.history {
            for (metric, _) in history
                .iter()
                .filter(|(_, series)| i64::try_from(series.len()).is_ok_and(|length| length >= limit))
            {
                // What lies between is not known, so neither is what held.
                if let Some(before) = evidence.before.get_mut(device) {
                    before.remove(metric);
                }
            }
        }
        Ok(evidence)
    }

    /// The rules that are for a device, each with where it stands; what an earlier rule made of it counts no more.
    fn pairs<'a>(&'a self, device: &'a DeviceFacts) -> impl Iterator<Item = Pair<'a>> {
        let pair = move |rule: &'a Rule| {
            if ended(rule, device, rule.era).is_some() {
                return None;
            }
            let stored = self.stored.get(&(rule.id, device.id));
            Some(Pair {
                rule,
                device,
                stored: stored.filter(|stored| stored.era == rule.era),
                now: self.now,
            })
        };
        self.rules.iter().filter_map(pair)
    }

    fn judge(&self, devices: &[DeviceFacts], watch: &Watch, keep: TimeDelta) -> Outcome {
        let mut outcome = Outcome::default();
        for device in devices {
            self.end(device, &mut outcome);
            let mut known = Known::default();
            for pair in self.pairs(device) {
                let judged = self.judge_pair(&pair).keep(keep, self.now);
                outcome.next_due = outcome.next_due.into_iter().chain(judged.due_at).min();
                outcome.outdated |= !believe(&mut known, watch, pair.rule, &judged.standing);
                self.note(&pair, judged, &mut outcome);
            }
            self.values_of(device, watch, &mut known);
            outcome.known.insert(device.id, known);
        }
        outcome
    }

    fn judge_pair(&self, pair: &Pair<'_>) -> Judged {
        let none = Samples::new();
        let of = |all: &'_ SamplesOf| all.get(&pair.device.id).cloned();
        match &pair.rule.definition.condition.subject {
            Subject::Metrics(_) => match self.history.get(&pair.device.id) {
                Some(history) => pair.over_values(&of(&self.before).unwrap_or(none), history),
                None => pair.over_values(&of(&self.newest).unwrap_or(none.clone()), &none),
            },
            Subject::Silence(None) => pair.over_silence(self.heard.get(&pair.device.id).copied()),
            Subject::Silence(Some(metric)) => {
                let newest = self.newest.get(&pair.device.id);
                let newest = newest.and_then(|newest| newest.get(metric)?.last());
                pair.over_silence(newest.map(|(at, _)| *at))
            }
            Subject::Offline | Subject::SettingsPending => pair.over_state(),
        }
    }

    /// Ends what an earlier rule, or one that is for the device no more, made of it.
    fn end(&self, device: &DeviceFacts, outcome: &mut Outcome) {
        for rule in &self.rules {
            let Some(stored) = self.stored.get(&(rule.id, device.id)) else {
                continue;
            };
            let Some(reason) = ended(rule, device, stored.era) else {
                continue;
            };
            if stored.standing.is_firing() {
                let was = (stored.standing.true_since, &stored.values);
                let told = telling::ended(rule, (device.id, &device.serial), was, reason, self.now);
                outcome.told.push(told);
            }
            outcome.gone.push((rule.id, device.id));
            outcome.changed.insert(device.id);
        }
    }

    /// Notes what became of a pair, as far as it is news.
    fn note(&self, pair: &Pair<'_>, judged: Judged, outcome: &mut Outcome) {
        let key = (pair.rule.id, pair.device.id);
        let silence = matches!(pair.rule.definition.condition.subject, Subject::Silence(_));
        for transition in &judged.transitions {
            outcome
                .told
                .push(telling::told(pair, &judged, *transition, self.now));
        }
        let new = NewState {
            rule_id: key.0,
            device_id: key.1,
            era: pair.rule.era,
            standing: judged.standing,
            values: judged.values.clone(),
            due_at: judged.due_at,
        };
        if !judged.is_kept(silence) {
            if pair.stored.is_some() {
                outcome.gone.push(key);
                outcome.changed.insert(key.1);
            }
            return;
        }
        // What was merely observed once more is no news.
        let seen = |standing: &Standing| Standing {
            observed_at: None,
            ..*standing
        };
        let same = |stored: &&StoredState| seen(&stored.standing) == seen(&new.standing);
        let unchanged = pair.stored.is_some_and(|stored| same(&stored));
        if !unchanged && (new.standing.state != State::Ok || pair.stored.is_some()) {
            outcome.changed.insert(key.1);
        }
        if !unchanged || pair.stored.is_some_and(|stored| stored.due_at != new.due_at) {
            // Where it goes on being written, it no longer goes.
            outcome.gone.retain(|gone| *gone != key);
            outcome.states.push(new);
        }
    }

    /// The newest values that matter to a device.
    fn values_of(&self, device: &DeviceFacts, watch: &Watch, known: &mut Known) {
        let mut newest: BTreeMap<&str, &(DateTime<Utc>, _)> = BTreeMap::new();
        for samples in [&self.newest, &self.history] {
            for (metric, series) in samples.get(&device.id).into_iter().flatten() {
                if let Some(last) = series.last()
                    && newest.get(metric.as_str()).is_none_or(|known| known.0 < last.0)
                {
                    newest.insert(metric, last);
                }
            }
        }
        let sample =
            |(metric, (at, value)): (&str, &(DateTime<Utc>, setpoint_model::telemetry::Value<'static>))| {
                let (metric, at, value) = (watch.metric(metric)?, *at, value.clone());
                Some(SeenSample { metric, at, value })
            };
        known.values = newest.into_iter().filter_map(sample).collect();
    }
}

/// Notes what is believed of a device by a rule; `false` if the rule is not watched for as it is.
fn believe(known: &mut Known, watch: &Watch, rule: &Rule, standing: &Standing) -> bool {
    let (holds, firing) = (standing.held(), standing.is_firing());
    match &rule.definition.condition.subject {
        Subject::Metrics(_) => {
            let Some(rule) = watch.rule(rule) else {
                return false;
            };
            known.beliefs.push(Belief { rule, holds, firing });
        }
        Subject::Silence(metric) => {
            if watch.rule(rule).is_none() {
                return false;
            }
            if firing && holds {
                let metric = metric.as_deref().and_then(|metric| watch.metric(metric));
                let since = standing.true_since.unwrap_or(standing.since);
                known.silences.push((metric, since));
            }
        }
        Subject::Offline | Subject::SettingsPending => {}
    }
    true
}

/// Samples by device and metric, the oldest first.
fn gathered(samples: Vec<setpoint_store::alerts::Sample>) -> SamplesOf {
    let mut all = SamplesOf::new();
    for sample in samples {
        let of = all.entry(sample.device_id).or_default();
        of.entry(sample.metric)
            .or_default()
            .push((sample.at, sample.value));
    }
    for series in all.values_mut().flat_map(|samples| samples.values_mut()) {
        series.sort_by_key(|(at, _)| *at);
    }
    all
}
