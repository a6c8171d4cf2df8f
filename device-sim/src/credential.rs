//! Secrets that the simulator presents to the server.

use std::{fmt, fs, io, path::Path};

/// A device's token or an API token. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token as the server gave it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Reads a token from a file such as `data/admin-token`; white space around it is ignored.
    ///
    /// # Errors
    /// When the file can't be read, or is empty.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        match text.trim() {
            "" => Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty")),
            token => Ok(Self(token.to_owned())),
        }
    }

    /// The token itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl std::str::FromStr for Token {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_shows_in_a_log() {
        assert_eq!(format!("{:?}", Token::new("spd_secret")), "Token(..)");
    }

    #[test]
    fn a_file_is_read_without_its_line_end_and_must_hold_something() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "spt_abc\n").unwrap();
        assert_eq!(Token::from_file(file.path()).unwrap().reveal(), "spt_abc");
        fs::write(file.path(), "\n").unwrap();
        assert!(Token::from_file(file.path()).is_err());
    }
}
