//! The second factor: time-based one-time passwords (RFC 6238), and the codes for who lost their device.

use std::fmt;

use chrono::{DateTime, Utc};
use totp_rs::{Builder, Totp};

use crate::credential::SecretHash;

/// Bytes of a secret: RFC 4226, section 4, recommends 160 bits.
const SECRET_BYTES: usize = 20;
/// Digits of a code.
const DIGITS: usize = 6;
/// Seconds of a time step (RFC 6238, section 4.1).
const STEP: i64 = 30;
/// Steps that the person's clock may be early or late (RFC 6238, section 5.2).
const SKEW: u16 = 1;
/// How an authenticator names this server.
const ISSUER: &str = "Setpoint";
/// Bytes of a recovery code.
const RECOVERY_BYTES: usize = 10;
/// Characters of a recovery code, dashes apart.
const RECOVERY_CHARACTERS: usize = 16;

/// What a person's authenticator and this server share. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct TotpSecret([u8; SECRET_BYTES]);

impl TotpSecret {
    /// 160 random bits.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// A kept secret; `None` if it isn't 20 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// What is kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As people type it into an authenticator: base 32 (RFC 4648), without padding.
    pub fn base32(&self) -> String {
        self.totp("").secret().to_base32()
    }

    /// The `otpauth:` address that authenticators take, usually as a QR code; `None` for an account's name that has no
    /// place there, such as one with a colon.
    pub fn url(&self, account: &str) -> Option<String> {
        self.totp(account).to_url().ok()
    }

    /// The code of this moment.
    pub fn code(&self, at: DateTime<Utc>) -> String {
        self.totp("").generate(seconds(at)).to_string()
    }

    /// The time step of which `digits` is the code, if that is the present step or one beside it.
    pub fn step(&self, digits: &str, at: DateTime<Utc>) -> Option<i64> {
        let step = self.totp("").check(digits, seconds(at))?;
        i64::try_from(step).ok()
    }

    fn totp(&self, account: &str) -> Totp {
        Builder::new()
            .with_secret(self.0.to_vec())
            .with_skew(SKEW)
            .with_step_duration(STEP.unsigned_abs())
            .with_issuer(Some(ISSUER))
            .with_account_name(account)
            .build_noncompliant()
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(..)")
    }
}

fn seconds(at: DateTime<Utc>) -> u64 {
    u64::try_from(at.timestamp()).unwrap_or(0)
}

/// A code that stands in for the authenticator once: 80 random bits, as `ab2c-defg-hijk-lmno`. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryCode(String);

impl RecoveryCode {
    /// A new code.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = vec![0; RECOVERY_BYTES];
        getrandom::fill(&mut bytes)?;
        let text = totp_rs::Secret::from(bytes).to_base32();
        Ok(Self(text.to_lowercase()))
    }

    /// As it is shown, this once.
    pub fn reveal(&self) -> String {
        let mut shown = String::new();
        for (place, character) in self.0.chars().enumerate() {
            if place > 0 && place % 4 == 0 {
                shown.push('-');
            }
            shown.push(character);
        }
        shown
    }

    /// What is kept.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.0.as_bytes())
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(..)")
    }
}

/// What a person entered as their code.
#[derive(Debug, Clone)]
pub enum Code {
    /// Six digits, of an authenticator.
    Totp(String),
    /// The hash of a recovery code.
    Recovery(SecretHash),
}

impl Code {
    /// Reads a code; blanks, dashes and upper case don't matter. `None` for what can't be one.
    pub fn parse(text: &str) -> Option<Self> {
        let plain: String = text
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .map(|c| c.to_ascii_lowercase())
            .take(RECOVERY_CHARACTERS + 1)
            .collect();
        if plain.len() == DIGITS && plain.bytes().all(|b| b.is_ascii_digit()) {
            return Some(Self::Totp(plain));
        }
        let base32 = |b: u8| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b);
        (plain.len() == RECOVERY_CHARACTERS && plain.bytes().all(base32))
            .then(|| Self::Recovery(SecretHash::of(plain.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    /// RFC 6238, appendix B, its codes cut to six digits.
    #[test]
    fn the_codes_are_those_of_the_standard() {
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(secret.code(at(seconds)), code);
            assert_eq!(secret.step(code, at(seconds)), Some(seconds / STEP));
        }
        assert_eq!(secret.base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        let url = secret.url("anna@example.org").unwrap();
        assert!(url.starts_with("otpauth://totp/Setpoint:anna%40example"), "{url}");
        assert!(
            url.contains(&secret.base32()) && url.contains("issuer=Setpoint"),
            "{url}"
        );
    }

    #[test]
    fn a_secret_shows_itself_nowhere() {
        let secret = TotpSecret::generate().unwrap();
        assert!(!format!("{secret:?}").contains(&secret.base32()));
        let code = RecoveryCode::generate().unwrap();
        assert!(!format!("{code:?}").contains(&code.0));
    }

    #[test]
    fn a_recovery_code_is_read_however_it_is_typed() {
        let code = RecoveryCode::generate().unwrap();
        let shown = code.reveal();
        assert_eq!(shown.len(), 19, "{shown}");
        for typed in [
            shown.clone(),
            shown.to_uppercase(),
            shown.replace('-', " "),
            code.0.clone(),
        ] {
            let Some(Code::Recovery(hash)) = Code::parse(&typed) else {
                panic!("{typed} is a recovery code")
            };
            assert!(hash.matches(&code.hash()));
        }
        assert!(matches!(Code::parse("123 456"), Some(Code::Totp(digits)) if digits == "123456"));
        for wrong in [
            "",
            "12345",
            "1234567",
            "١٢٣٤٥٦",
            "abcd-efgh-ijkl-mno1",
            "abcd-efgh-ijkl-mnop-q",
        ] {
            assert!(Code::parse(wrong).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_code_holds_for_its_step_and_the_ones_beside_it(
            bytes in any::<[u8; SECRET_BYTES]>(), now in 100_i64..10_000_000_000, late in -4_i64..=4,
        ) {
            let secret = TotpSecret(bytes);
            let code = secret.code(at(now));
            match secret.step(&code, at(now + late * STEP)) {
                Some(step) => prop_assert!((step - now / STEP - late).abs() <= 1),
                // The same digits may come again, but never go missing.
                None => prop_assert!(late.abs() > 1),
            }
        }

        #[test]
        fn anything_can_be_typed(text in ".*") {
            if let Some(Code::Totp(digits)) = Code::parse(&text) {
                prop_assert!(digits.len() == DIGITS);
            }
        }
    }
}
