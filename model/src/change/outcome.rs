//! What became of a bulk change on one device.

use std::{fmt, str::FromStr};

use serde::Serialize;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// What became of a bulk change on one device.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum Outcome {
            $($(#[$doc])* $name,)+
        }

        impl Outcome {
            /// Every outcome there is.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name in the database and in answers.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

outcomes! {
    /// It does not have the change yet.
    Waiting = "waiting",
    /// The patch breaks a rule of its model: it is left alone.
    Invalid = "invalid",
    /// It runs what the patch asks for already.
    Unchanged = "unchanged",
    /// It has the change, and has not answered.
    Pending = "pending",
    /// It runs the change.
    Synced = "synced",
    /// It refused a key of the change.
    Refused = "refused",
    /// A later change of the same keys came before its answer.
    Superseded = "superseded",
    /// It was deleted meanwhile.
    Gone = "gone",
    /// Its former overrides are put back.
    Undone = "undone",
    /// Somebody changed a key since, which was left so when the others were put back.
    Kept = "kept",
}

/// The text names no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a state of a device in a bulk change")]
pub struct UnknownOutcome;

impl FromStr for Outcome {
    type Err = UnknownOutcome;

    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        let mut known = Self::ALL.iter().copied();
        known
            .find(|outcome| outcome.as_str() == text)
            .ok_or(UnknownOutcome)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_read_back_as_written() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.as_str().parse(), Ok(*outcome));
        }
        assert_eq!("lost".parse::<Outcome>(), Err(UnknownOutcome));
    }
}
