//! A model's name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::name::is_name;

/// Names that stand for something else in `/models/{name}`.
const RESERVED: [&str; 2] = ["export", "import"];

/// The name of a model: 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The text is no model's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit, and neither `export` nor `import`")]
pub struct InvalidName;

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_lower = !text.bytes().any(|b| b.is_ascii_uppercase());
        if is_name(text) && is_lower && !RESERVED.contains(&text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName)
        }
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for text in ["home", "9x", "a.b_c-d", &"a".repeat(64)] {
            assert!(text.parse::<Name>().is_ok(), "{text}");
        }
        for text in [
            "",
            "Home",
            ".a",
            "-a",
            "a b",
            "ä",
            "export",
            "import",
            &"a".repeat(65),
        ] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
