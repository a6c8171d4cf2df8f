//! The name of a schedule.

use std::{fmt, str::FromStr};

/// The longest name, in characters.
const MAX_LENGTH: usize = 64;

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
        let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let all_well = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if starts_well && all_well && text.len() <= MAX_LENGTH && text != RESERVED {
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
