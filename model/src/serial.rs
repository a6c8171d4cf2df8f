//! A device's serial: its name on every topic, route and log line.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

use crate::name::{MAX_NAME, is_name};

/// The longest serial, in characters.
pub const MAX_LENGTH: usize = MAX_NAME;

/// A valid serial: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
///
/// Cheap to clone. By construction it can stand in a topic, a path and a client id unescaped.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Serial(Arc<str>);

/// Why a text is not a serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a serial is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit")]
pub struct InvalidSerial;

impl Serial {
    /// The serial as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `client_id` may be used by this device: the serial itself, or `serial:` and anything.
    pub fn owns_client_id(&self, client_id: &str) -> bool {
        client_id
            .strip_prefix(self.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }
}

impl FromStr for Serial {
    type Err = InvalidSerial;

    fn from_str(text: &str) -> Result<Self, InvalidSerial> {
        if is_name(text) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidSerial)
        }
    }
}

impl TryFrom<String> for Serial {
    type Error = InvalidSerial;

    fn try_from(text: String) -> Result<Self, InvalidSerial> {
        text.parse()
    }
}

impl Serialize for Serial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_documented_alphabet_only() {
        for good in ["A", "HOME-1", "0", "a.b_c-d", &"x".repeat(64)] {
            assert!(good.parse::<Serial>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            ".a",
            "_a",
            "a b",
            "a/b",
            "a+",
            "#",
            "é",
            "a:b",
            "a\0",
            &"x".repeat(65),
        ] {
            assert!(bad.parse::<Serial>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_client_id_is_the_serial_or_begins_with_it_and_a_colon() {
        let serial: Serial = "HOME-1".parse().unwrap();
        assert!(serial.owns_client_id("HOME-1"));
        assert!(serial.owns_client_id("HOME-1:debug"));
        assert!(!serial.owns_client_id("HOME-12"));
        assert!(!serial.owns_client_id("HOME"));
        assert!(!serial.owns_client_id(""));
    }
}
