//! Where a device stands towards a rule, and how time and observations move it.
//!
//! What is observed holds until the next observation. From that alone it follows when an alert fires and when it is
//! resolved, so it is of no matter how late or how often somebody looks: a server that was down catches up.

use std::{fmt, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

/// A state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The condition does not hold.
    Ok,
    /// It holds, but not for long enough.
    Pending,
    /// It has held for long enough, and has not been over for long enough.
    Firing,
    /// It fired not long ago, and is over.
    Resolved,
}

/// The text names no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one of ok, pending, firing, resolved")]
pub struct UnknownState;

impl State {
    /// Every state there is.
    pub const ALL: &[Self] = &[Self::Ok, Self::Pending, Self::Firing, Self::Resolved];

    /// Its name in the database, in queries and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let mut all = Self::ALL.iter().copied();
        all.find(|state| state.as_str() == text).ok_or(UnknownState)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an alert is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The condition was over for long enough.
    Cleared,
    /// The rule has another condition.
    RuleChanged,
    /// The rule was disabled.
    RuleDisabled,
    /// The rule was deleted.
    RuleDeleted,
    /// The device is no longer one of those that the rule is for.
    OutOfScope,
    /// The device was deleted, or begins anew with another owner.
    DeviceGone,
}

/// How long it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long the condition must hold before the alert fires.
    pub hold: TimeDelta,
    /// How long it must be over before the alert is resolved.
    pub resolve_after: TimeDelta,
    /// When the rule began: nothing fires or is resolved before.
    pub begun: DateTime<Utc>,
}

/// Something that people are told: an alert fired, or is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// [`State::Firing`] or [`State::Resolved`].
    pub to: State,
    /// When.
    pub at: DateTime<Utc>,
}

/// Where a device stands towards a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// In which state.
    pub state: State,
    /// Since when it is in it.
    pub since: DateTime<Utc>,
    /// Since when the condition held that made it pending or fire.
    pub true_since: Option<DateTime<Utc>>,
    /// While it fires: since when the condition is over.
    pub false_since: Option<DateTime<Utc>>,
    /// The last observation's time.
    pub observed_at: Option<DateTime<Utc>>,
}

impl Standing {
    /// Nothing is known to be wrong.
    pub fn ok(since: DateTime<Utc>) -> Self {
        Self {
            state: State::Ok,
            since,
            true_since: None,
            false_since: None,
            observed_at: None,
        }
    }

    /// Whether the alert fires.
    pub fn is_firing(&self) -> bool {
        self.state == State::Firing
    }

    /// Whether the condition held at the last observation.
    pub fn held(&self) -> bool {
        match self.state {
            State::Pending => true,
            State::Firing => self.false_since.is_none(),
            State::Ok | State::Resolved => false,
        }
    }

    /// Lets time pass until `now`, in which what was last observed still holds.
    pub fn advance(&mut self, now: DateTime<Utc>, timing: Timing) -> Option<Transition> {
        let at = self.due(timing).filter(|at| *at <= now)?;
        let to = match self.state {
            State::Pending => State::Firing,
            State::Firing => State::Resolved,
            State::Ok | State::Resolved => return None,
        };
        self.state = to;
        self.since = at;
        Some(Transition { to, at })
    }

    /// Takes an observation: whether the condition holds from `at` on. What happened until then is told first. One that
    /// is older than the last changes nothing.
    pub fn observe(&mut self, holds: bool, at: DateTime<Utc>, timing: Timing) -> Vec<Transition> {
        if self.observed_at.is_some_and(|last| at < last) {
            return Vec::new();
        }
        let mut told: Vec<Transition> = self.advance(at, timing).into_iter().collect();
        self.observed_at = Some(at);
        match (self.state, holds) {
            (State::Ok | State::Resolved, true) => {
                self.state = State::Pending;
                self.since = at;
                self.true_since = Some(at);
                self.false_since = None;
                told.extend(self.advance(at, timing));
            }
            (State::Pending, false) => {
                *self = Self {
                    observed_at: Some(at),
                    ..Self::ok(at)
                }
            }
            (State::Firing, true) => self.false_since = None,
            (State::Firing, false) => {
                self.false_since.get_or_insert(at);
                told.extend(self.advance(at, timing));
            }
            (State::Pending, true) | (State::Ok | State::Resolved, false) => {}
        }
        told
    }

    /// When time alone changes the state, unless something else is observed before.
    pub fn due(&self, timing: Timing) -> Option<DateTime<Utc>> {
        let at = match self.state {
            State::Pending => self.true_since? + timing.hold,
            State::Firing => self.false_since? + timing.resolve_after,
            State::Ok | State::Resolved => return None,
        };
        Some(at.max(timing.begun))
    }
}
