//! What a running change does next, by how its devices took it so far.

use std::{fmt, time::Duration};

use super::{Abort, Stage};

/// How far a change is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Devices of this stage that do not have it yet.
    pub waiting: u32,
    /// Devices that have it.
    pub given: u32,
    /// Those of them that refused it.
    pub refused: u32,
    /// Those of them that have not answered.
    pub pending: u32,
    /// Those pending for longer than [`Abort::after`].
    pub silent: u32,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// Stop, and touch no further device.
    Abort(Reason),
    /// Give it to further devices of this stage.
    Give,
    /// Look again later: answers may still come.
    Wait,
    /// Go on to the next stage.
    Advance(Stage),
    /// Every device has it, and has answered or had its time to.
    Complete,
}

/// Why a change stopped itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reason {
    /// Too many devices refused it.
    Refused {
        /// How many.
        devices: u32,
        /// Of how many that have it.
        given: u32,
        /// How many would have been borne, in percent.
        limit: f64,
    },
    /// Too many devices did not answer.
    Silent {
        /// How many.
        devices: u32,
        /// Of how many that have it.
        given: u32,
        /// How many would have been borne, in percent.
        limit: f64,
        /// In which time.
        after: Duration,
    },
}

impl Progress {
    /// What a change at `stage` does next.
    ///
    /// Thresholds come before everything: whatever waits then stays untouched.
    pub fn next(&self, stage: Stage, abort: &Abort) -> Next {
        let given = self.given;
        if exceeds(self.refused, given, abort.refused_percent) {
            return Next::Abort(Reason::Refused {
                devices: self.refused,
                given,
                limit: abort.refused_percent,
            });
        }
        if exceeds(self.silent, given, abort.pending_percent) {
            return Next::Abort(Reason::Silent {
                devices: self.silent,
                given,
                limit: abort.pending_percent,
                after: abort.after,
            });
        }
        let answers_may_come = self.pending > self.silent;
        match stage {
            Stage::Canary | Stage::Waves if self.waiting > 0 => Next::Give,
            Stage::Canary if answers_may_come => Next::Wait,
            Stage::Canary => Next::Advance(Stage::Waves),
            Stage::Waves => Next::Advance(Stage::Settling),
            Stage::Settling if answers_may_come => Next::Wait,
            Stage::Settling => Next::Complete,
        }
    }
}

fn exceeds(part: u32, whole: u32, percent: f64) -> bool {
    f64::from(part) * 100.0 > f64::from(whole) * percent
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                devices,
                given,
                limit,
            } => {
                write!(
                    f,
                    "{devices} of the {given} devices that have it refused it: more than {limit} %"
                )
            }
            Self::Silent {
                devices,
                given,
                limit,
                after,
            } => write!(
                f,
                "{devices} of the {given} devices that have it did not answer within {} s: more than {limit} %",
                after.as_secs_f64()
            ),
        }
    }
}

#[cfg(test)]
mod tests;
