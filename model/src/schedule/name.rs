//! The name of a schedule.

use std::{fmt, str::FromStr};

use crate::name::is_name;

/// A name that the routes of schedules need for themselves.
const RESERVED: &str = "preview";

/// A valid name: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit, and not `preview`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScheduleName(String);

/// Why a text is not a schedule's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a schedule's name is 1 to 64 of A-Z a-z 0-9 . _ -, begins with a letter or digit, and is not `preview`"
)]
pub struct InvalidScheduleName;

impl ScheduleName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ScheduleName {
    type Err = InvalidScheduleName;

    fn from_str(text: &str) -> Result<Self, InvalidScheduleName> {
        if is_name(text) && text != RESERVED {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidScheduleName)
        }
    }
}

impl fmt::Display for ScheduleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
