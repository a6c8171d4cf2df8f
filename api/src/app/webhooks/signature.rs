//! Secrets and signatures of the Standard Webhooks specification (<https://www.standardwebhooks.com>), so that its
//! libraries verify what is sent.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::hmac;

use crate::app::Error;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// How many bytes a secret has, and one that is made here.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const MADE_BYTES: usize = 32;

/// What a webhook's requests are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

/// The text is no secret. Never repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be whsec_ followed by 24 to 64 bytes in base64")]
pub(super) struct InvalidSecret;

impl SigningSecret {
    /// A new one.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub(super) fn generate() -> Result<Self, Error> {
        let mut bytes = vec![0; MADE_BYTES];
        getrandom::fill(&mut bytes).map_err(Error::internal)?;
        Ok(Self(bytes))
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`InvalidSecret`].
    pub(super) fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSecret)?;
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| InvalidSecret)?;
        Self::from_bytes(bytes)
    }

    /// One that was stored.
    ///
    /// # Errors
    /// [`InvalidSecret`].
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Result<Self, InvalidSecret> {
        if BYTES.contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(InvalidSecret)
        }
    }

    /// Its bytes, to be stored.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret as text, for the one who is told it.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(&self.0))
    }

    /// The signature of a message: `v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specifications_libraries() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(secret.reveal(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }

    #[test]
    fn a_secret_is_long_enough_and_says_nothing() {
        let secret = SigningSecret::generate().unwrap();
        assert_eq!(SigningSecret::parse(&secret.reveal()), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "SigningSecret(..)");
        let short = format!("whsec_{}", BASE64_STANDARD.encode([1; 23]));
        let long = format!("whsec_{}", BASE64_STANDARD.encode([1; 65]));
        for wrong in [
            "",
            "whsec_",
            "whsec_!!!!",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            &short,
            &long,
        ] {
            assert_eq!(SigningSecret::parse(wrong), Err(InvalidSecret), "{wrong}");
        }
    }
}
