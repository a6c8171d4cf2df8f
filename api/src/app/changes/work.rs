//! Working on changes: one step of one change at a time, each a transaction that can be repeated.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use setpoint_model::{
    Serial,
    change::{Next, Outcome, Pace, Progress, Stage, State, undo::part},
    settings::{Patch, Source},
};
use setpoint_store::{
    changes::{ClaimedChange, Counts, Given, NewOverrides, WaitingDevice},
    settings::{NewVersion, Settings},
};
use tokio::time::Instant;

use super::{
    Actor, App, BATCH, Error,
    judge::{Author, Judged, Judgement},
    object,
};
use crate::app::settings::patched;

/// How often answers are looked at while there is something to wait for or to judge; less often where a look is dear.
const LOOK_EVERY: TimeDelta = TimeDelta::milliseconds(200);
/// The longest time between two looks.
const MAX_LOOK: TimeDelta = TimeDelta::seconds(2);
/// A look may take this share of the time.
const LOOK_SHARE: u32 = 10;
/// How long a change that could not be worked on keeps out of the way of others.
const DEFER: TimeDelta = TimeDelta::seconds(5);

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing is due.
    Idle,
    /// Devices were written.
    Wrote,
    /// A change was looked at.
    Looked,
}

impl App {
    /// Works on the change that is due longest, if any.
    ///
    /// # Errors
    /// When the database fails; the step was not taken.
    pub(crate) async fn work_on_changes(&self) -> Result<Step, Error> {
        let now = self.clock.now();
        let Some(claimed) = self.store.claim_change(now).await? else {
            return Ok(Step::Idle);
        };
        let id = claimed.change.id;
        let step = match claimed.change.state {
            State::Running(stage) => self.run_change(claimed, stage, now).await,
            State::Undoing => self.undo_change(claimed, now).await,
            _ => self.rest(claimed).await,
        };
        if let Err(error) = &step
            && !error.is_contended()
        {
            // One that can't be worked on is not to keep the others waiting.
            if let Err(error) = self.store.defer_change(id, now + DEFER).await {
                tracing::debug!(change = %id, error = &error as &dyn std::error::Error, "not put off");
            }
        }
        step
    }

    /// Nothing is due in its state.
    async fn rest(&self, mut claimed: ClaimedChange) -> Result<Step, Error> {
        claimed.save(None).await?;
        claimed.commit().await?;
        Ok(Step::Looked)
    }

    async fn run_change(
        &self,
        mut claimed: ClaimedChange,
        stage: Stage,
        now: DateTime<Utc>,
    ) -> Result<Step, Error> {
        let last = if stage == Stage::Canary {
            claimed.change.canary_end
        } else {
            None
        };
        let waiting = claimed.waiting(last, batch()).await?;
        // Judging each batch of a change without a pace would take longer than writing it.
        let judged = claimed.change.looked_at.is_some_and(|at| now - at < LOOK_EVERY);
        if stage == Stage::Waves && judged && !waiting.is_empty() {
            return self.give(claimed, waiting, now).await;
        }
        let began = Instant::now();
        let after = TimeDelta::from_std(claimed.change.abort.after).unwrap_or(TimeDelta::MAX);
        let silent_since = now.checked_sub_signed(after).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let counts = claimed.look(silent_since).await?;
        claimed.change.looked_at = Some(now);
        let progress = progress(&counts, waiting.len());
        match progress.next(stage, &claimed.change.abort) {
            Next::Give => self.give(claimed, waiting, now).await,
            Next::Wait => self.look_again(claimed, now + pause(began.elapsed())).await,
            Next::Advance(next) => {
                claimed.turn(State::Running(next), now);
                claimed.change.next_at = Some(now);
                self.look_again(claimed, now).await
            }
            Next::Abort(reason) => {
                claimed.change.reason = Some(reason.to_string());
                self.end(claimed, State::Aborted, now).await
            }
            Next::Complete => self.end(claimed, State::Completed, now).await,
        }
    }

    async fn look_again(&self, mut claimed: ClaimedChange, due_at: DateTime<Utc>) -> Result<Step, Error> {
        claimed.save(Some(due_at)).await?;
        claimed.commit().await?;
        Ok(Step::Looked)
    }

    /// Ends a change by itself; the audit log tells how.
    pub(super) async fn end(
        &self,
        mut claimed: ClaimedChange,
        state: State,
        now: DateTime<Utc>,
    ) -> Result<Step, Error> {
        let id = claimed.change.id;
        let before = claimed.change.state;
        claimed.turn(state, now);
        let reason = claimed.change.reason.clone();
        let action = match state {
            State::Aborted => "change.abort",
            State::Undone => "change.undone",
            _ => "change.complete",
        };
        let entry = self.entry(&Actor::system("changes"), action, object(id));
        let entry = entry.before(json!({"state": before.as_str()}));
        let entry = entry.after(json!({"state": state.as_str(), "reason": reason}));
        claimed.audit(&entry).await?;
        claimed.save(None).await?;
        claimed.commit().await?;
        self.changes.ended(state);
        if let Some(reason) = reason.filter(|_| state == State::Aborted) {
            tracing::warn!(change = %id, reason, "bulk change aborted");
        } else {
            tracing::info!(change = %id, state = state.as_str(), "bulk change ended");
        }
        Ok(Step::Looked)
    }

    /// Gives the change to as many of those that wait as its pace allows.
    async fn give(
        &self,
        mut claimed: ClaimedChange,
        mut waiting: Vec<WaitingDevice>,
        now: DateTime<Utc>,
    ) -> Result<Step, Error> {
        let pace = pace(&claimed);
        if let Some(pace) = pace {
            let most = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
            let allowed = pace.allowed(now, most);
            waiting.truncate(usize::try_from(allowed).unwrap_or(usize::MAX));
            if waiting.is_empty() {
                return self.look_again(claimed, pace.next_at.min(now + MAX_LOOK)).await;
            }
            claimed.change.next_at = Some(pace.after(now, allowed).next_at);
        }
        let serials: Vec<&str> = waiting.iter().map(|device| device.serial.as_str()).collect();
        claimed.locked.lock(&serials).await?;
        let patch = Patch::from(claimed.change.patch.clone());
        let actor = claimed.change.actor.clone();
        let author = Author {
            actor: &actor,
            source: Source::Bulk,
        };
        let judged = self
            .judge_devices(&mut claimed.locked, author, |settings, schema| {
                patched(settings, schema, &patch)
            })
            .await?;
        let (mut written, mut given) = (Written::default(), Vec::with_capacity(waiting.len()));
        let mut by_id: HashMap<_, _> = judged
            .into_iter()
            .map(|judged| (judged.settings.device_id, judged))
            .collect();
        for device in &waiting {
            let judged = by_id.remove(&device.device_id);
            given.push(written.add(device.place, judged, &patch));
        }
        written.write(&mut claimed, now).await?;
        claimed.note_given(&given, now).await?;
        let due_at = claimed.change.next_at.filter(|_| pace.is_some()).unwrap_or(now);
        claimed.save(Some(due_at.max(now))).await?;
        claimed.commit().await?;
        self.versions_written(&written, Source::Bulk);
        Ok(Step::Wrote)
    }

    /// What follows committed versions.
    pub(super) fn versions_written(&self, written: &Written, source: Source) {
        for (serial, version) in written.serials.iter().zip(&written.versions) {
            let NewVersion {
                device_id,
                version,
                document,
                ..
            } = version;
            // Nobody waits for the publisher here.
            let _ = self.version_made(*device_id, serial, *version, document, source);
        }
    }
}

/// What is to be written of a batch.
#[derive(Default)]
pub(super) struct Written {
    /// Whose the versions are, in their order.
    serials: Vec<Serial>,
    versions: Vec<NewVersion>,
    overrides: Vec<NewOverrides>,
}

impl Written {
    pub(super) fn version(&mut self, serial: Serial, version: NewVersion) {
        self.serials.push(serial);
        self.versions.push(version);
    }

    pub(super) fn overrides(&mut self, overrides: NewOverrides) {
        self.overrides.push(overrides);
    }

    /// Writes it all.
    pub(super) async fn write(&self, claimed: &mut ClaimedChange, at: DateTime<Utc>) -> Result<(), Error> {
        if !self.versions.is_empty() {
            claimed.locked.write_versions(&self.versions).await?;
        }
        if !self.overrides.is_empty() {
            claimed.write_overrides(&self.overrides, at).await?;
        }
        Ok(())
    }
}

impl Written {
    /// Adds what the change comes to on a device: what is noted of it.
    fn add(&mut self, place: i32, judged: Option<Judged>, patch: &Patch) -> Given {
        let mut given = Given {
            place,
            outcome: Outcome::Unchanged,
            message: None,
            version: None,
            keys: Vec::new(),
            overrides: None,
        };
        let both = |settings: &Settings, after: &_| {
            Some((part(&settings.overrides, patch.keys()), part(after, patch.keys())))
        };
        match judged {
            None => given.outcome = Outcome::Gone,
            Some(Judged { settings, judgement }) => match judgement {
                Judgement::Invalid(error) => {
                    given.outcome = Outcome::Invalid;
                    given.message = Some(error.sentence());
                }
                Judgement::Nothing => {}
                Judgement::Overrides(overrides) => {
                    given.overrides = both(&settings, &overrides.overrides);
                    self.overrides(overrides);
                }
                Judgement::Version(version) => {
                    given.outcome = Outcome::Pending;
                    given.version = Some(version.version);
                    given.keys = version.diff.keys().cloned().collect();
                    given.overrides = both(&settings, &version.overrides);
                    self.version(settings.serial, version);
                }
            },
        }
        given
    }
}

fn progress(counts: &Counts, waiting: usize) -> Progress {
    let (pending, refused) = (counts.of(Outcome::Pending), counts.of(Outcome::Refused));
    let settled = counts
        .of(Outcome::Synced)
        .saturating_add(counts.of(Outcome::Superseded));
    Progress {
        waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
        given: pending.saturating_add(refused).saturating_add(settled),
        refused,
        pending,
        silent: counts.silent,
    }
}

/// The pace of its waves, if it has one; the canary gets it at once.
fn pace(claimed: &ClaimedChange) -> Option<Pace> {
    let change = &claimed.change;
    if change.state.stage() != Some(Stage::Waves) {
        return None;
    }
    let per_minute = u32::try_from(change.rate_per_minute?).ok()?;
    let next_at = change.next_at.unwrap_or(change.created_at);
    Some(Pace { per_minute, next_at })
}

/// Until the next look, after one that took this long.
fn pause(took: Duration) -> TimeDelta {
    let share = TimeDelta::from_std(took.saturating_mul(LOOK_SHARE)).unwrap_or(MAX_LOOK);
    share.clamp(LOOK_EVERY, MAX_LOOK)
}

/// [`BATCH`] as the database counts.
pub(super) fn batch() -> i64 {
    i64::try_from(BATCH).unwrap_or(i64::MAX)
}
