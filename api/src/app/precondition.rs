//! What a change of something with a version asks for: that nobody has changed it meanwhile.

use super::Error;

/// What must hold for a change to be made (RFC 9110 section 13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// The current version is one of these.
    Version(Vec<i64>),
}

impl Precondition {
    /// Whether it holds.
    ///
    /// # Errors
    /// [`Error::VersionMismatch`] when the current version is another.
    pub(in crate::app) fn check(&self, current: i64) -> Result<(), Error> {
        match self {
            Self::Version(versions) if !versions.contains(&current) => {
                Err(Error::VersionMismatch { current })
            }
            Self::None | Self::Version(_) => Ok(()),
        }
    }
}
