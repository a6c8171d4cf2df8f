//! Secrets that machines hold: device tokens and API tokens.
//!
//! Both are 256 random bits, so a plain SHA-256 is a safe way to keep them: there is nothing to guess, and
//! a slow hash would only slow ten thousand devices that reconnect at once.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What an API token begins with, so that secret scanners recognise one.
pub const API_TOKEN_PREFIX: &str = "spt_";
/// What a device's token begins with.
pub const DEVICE_TOKEN_PREFIX: &str = "spd_";

/// A secret in clear, shown once to whoever made it. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The SHA-256 of a secret: what is stored.
#[derive(Debug, Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl Secret {
    /// A new secret of 256 random bits, in hexadecimal behind `prefix`.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate(prefix: &str) -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)?;
        let mut text = String::with_capacity(prefix.len() + 64);
        text.push_str(prefix);
        for byte in bytes {
            text.push_str(&format!("{byte:02x}"));
        }
        Ok(Self(text))
    }

    /// The secret itself: for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored in its place.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl SecretHash {
    /// The hash of what a client presented.
    pub fn of(presented: &[u8]) -> Self {
        Self(Sha256::digest(presented).into())
    }

    /// A stored hash; `None` if it isn't 32 bytes.
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are of the same secret, in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_its_own_hash_only() {
        let one = Secret::generate(DEVICE_TOKEN_PREFIX).unwrap();
        let two = Secret::generate(DEVICE_TOKEN_PREFIX).unwrap();
        assert_eq!(one.reveal().len(), 68);
        assert!(one.hash().matches(&SecretHash::of(one.reveal().as_bytes())));
        assert!(!one.hash().matches(&two.hash()));
        assert!(!format!("{one:?}").contains(one.reveal()));
    }
}
