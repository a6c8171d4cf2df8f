//! The states of a bulk change, and which step may follow which.
//!
//! `canary` → `waves` → `settling` → `completed` by itself; `paused` and back by whoever runs it; `aborted` by its
//! own thresholds; `cancelled` for good; from every state in which it stands still, `undoing` → `undone`.

use std::{fmt, str::FromStr};

/// The part of its way that a change is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The first devices get it, and are waited for.
    Canary,
    /// The others get it.
    Waves,
    /// Every device has it; the last answers are waited for.
    Settling,
}

/// A change's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Under way.
    Running(Stage),
    /// Stopped for now, to go on where it was.
    Paused(Stage),
    /// Stopped by its own thresholds.
    Aborted,
    /// Stopped for good by somebody.
    Cancelled,
    /// Every device has it, and has answered or had its time to.
    Completed,
    /// Former overrides are being put back.
    Undoing,
    /// They are.
    Undone,
}

/// What somebody may ask of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Stop for now.
    Pause,
    /// Go on.
    Resume,
    /// Stop for good.
    Cancel,
    /// Put back what was there before.
    Undo,
}

/// The command doesn't fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the change is {0}")]
pub struct WrongState(pub State);

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 3] = [Self::Canary, Self::Waves, Self::Settling];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Waves => "waves",
            Self::Settling => "settling",
        }
    }
}

impl State {
    /// Every state there is.
    pub const ALL: [Self; 11] = [
        Self::Running(Stage::Canary),
        Self::Running(Stage::Waves),
        Self::Running(Stage::Settling),
        Self::Paused(Stage::Canary),
        Self::Paused(Stage::Waves),
        Self::Paused(Stage::Settling),
        Self::Aborted,
        Self::Cancelled,
        Self::Completed,
        Self::Undoing,
        Self::Undone,
    ];

    /// Its name in the database and in answers; a running change is named after its stage.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running(stage) => stage.as_str(),
            Self::Paused(_) => "paused",
            Self::Aborted => "aborted",
            Self::Cancelled => "cancelled",
            Self::Completed => "completed",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
        }
    }

    /// The stage it is on, or would go on with.
    pub fn stage(self) -> Option<Stage> {
        match self {
            Self::Running(stage) | Self::Paused(stage) => Some(stage),
            _ => None,
        }
    }

    /// Whether something is left to do for the server.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running(_) | Self::Undoing)
    }

    /// Whether it takes one of the places of changes that may run at once.
    pub fn is_open(self) -> bool {
        self.is_active() || matches!(self, Self::Paused(_))
    }

    /// The state after a command; a command that is fulfilled already changes nothing.
    ///
    /// # Errors
    /// [`WrongState`] where it makes no sense.
    pub fn obey(self, command: Command) -> Result<Self, WrongState> {
        match (command, self) {
            (Command::Pause, Self::Running(stage) | Self::Paused(stage)) => Ok(Self::Paused(stage)),
            (Command::Resume, Self::Running(stage) | Self::Paused(stage)) => Ok(Self::Running(stage)),
            (Command::Cancel, Self::Running(_) | Self::Paused(_) | Self::Cancelled) => Ok(Self::Cancelled),
            (
                Command::Undo,
                Self::Paused(_) | Self::Aborted | Self::Cancelled | Self::Completed | Self::Undoing,
            ) => Ok(Self::Undoing),
            (Command::Undo, Self::Undone) => Ok(Self::Undone),
            (_, state) => Err(WrongState(state)),
        }
    }
}

impl Command {
    /// Every command there is.
    pub const ALL: [Self; 4] = [Self::Pause, Self::Resume, Self::Cancel, Self::Undo];

    /// Its name: the last part of its route.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Undo => "undo",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stage of a bulk change")]
pub struct UnknownStage;

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        let mut known = Self::ALL.into_iter();
        known.find(|stage| stage.as_str() == text).ok_or(UnknownStage)
    }
}

/// The texts name no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a state of a bulk change")]
pub struct UnknownState;

impl State {
    /// The state of this name; a paused one with the stage it goes on with.
    ///
    /// # Errors
    /// [`UnknownState`].
    pub fn parse(name: &str, stage: Option<&str>) -> Result<Self, UnknownState> {
        let stage = stage
            .map(str::parse::<Stage>)
            .transpose()
            .map_err(|_| UnknownState)?;
        let mut known = Self::ALL.into_iter();
        known
            .find(|state| state.as_str() == name && state.stage() == stage)
            .ok_or(UnknownState)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn states_read_back_as_written() {
        for state in State::ALL {
            assert_eq!(
                State::parse(state.as_str(), state.stage().map(Stage::as_str)),
                Ok(state)
            );
        }
        assert_eq!(State::parse("paused", None), Err(UnknownState));
        assert_eq!(State::parse("lost", None), Err(UnknownState));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_state() {
        for (command, states) in [
            (Command::Pause, "aborted cancelled completed undoing undone"),
            (Command::Resume, "aborted cancelled completed undoing undone"),
            (Command::Cancel, "aborted completed undoing undone"),
            (Command::Undo, "canary waves settling"),
        ] {
            let refused = State::ALL
                .into_iter()
                .filter(|state| state.obey(command) == Err(WrongState(*state)));
            let names: Vec<&str> = refused.map(State::as_str).collect();
            assert_eq!(names.join(" "), states, "{command:?}");
        }
    }

    fn state() -> impl Strategy<Value = State> {
        prop::sample::select(State::ALL.to_vec())
    }

    fn command() -> impl Strategy<Value = Command> {
        prop::sample::select(Command::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn a_command_twice_is_the_command_once(state in state(), command in command()) {
            if let Ok(next) = state.obey(command) {
                prop_assert_eq!(next.obey(command), Ok(next));
            }
        }

        #[test]
        fn what_has_ended_never_runs_again(state in state(), commands in prop::collection::vec(command(), 0..20)) {
            prop_assume!(!state.is_open());
            let mut now = state;
            for command in commands {
                now = now.obey(command).unwrap_or(now);
                prop_assert!(now.stage().is_none(), "{:?} became {:?}", state, now);
            }
        }

        #[test]
        fn a_pause_keeps_the_stage(stage in prop::sample::select(Stage::ALL.to_vec())) {
            let paused = State::Running(stage).obey(Command::Pause);
            prop_assert_eq!(paused, Ok(State::Paused(stage)));
            prop_assert_eq!(State::Paused(stage).obey(Command::Resume), Ok(State::Running(stage)));
        }
    }
}
