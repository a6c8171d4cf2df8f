//! Passwords: which ones will do, how they are kept, and how they are checked.

use std::sync::OnceLock;

use argon2::{
    Argon2, PasswordVerifier,
    password_hash::{PasswordHasher, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use super::Error;
use crate::config::MIN_PASSWORD;

/// The longest password, in bytes: hashing is slow on purpose, and not to be slowed further.
const MAX_PASSWORD: usize = 1_024;
/// Passwords hashed at once: each takes a core and 19 MiB for some tens of milliseconds.
static PLACES: Semaphore = Semaphore::const_new(2);
/// The commonest passwords of eight characters and more in published breaches, in lower case.
const COMMON: &str = include_str!("common_passwords.txt");

/// What is kept of somebody who signs in with the provider alone: the hash of no password.
pub(super) const NO_PASSWORD: &str = "!";

/// Whether this will do as a password of somebody called `username`.
///
/// # Errors
/// [`Error::Invalid`] for `field`.
pub(super) fn check(field: &'static str, username: &str, password: &str) -> Result<(), Error> {
    let wrong = |message: String| Err(Error::invalid(field, message));
    if password.chars().count() < MIN_PASSWORD || password.len() > MAX_PASSWORD {
        return wrong(format!("{MIN_PASSWORD} to {MAX_PASSWORD} characters"));
    }
    let lower = password.to_lowercase();
    if COMMON.lines().any(|common| common == lower) {
        return wrong("is among the commonest passwords, which are tried first".to_owned());
    }
    let mut characters = lower.chars();
    let first = characters.next();
    if characters.all(|c| Some(c) == first) {
        return wrong("is one character again and again".to_owned());
    }
    if username.chars().count() >= 4 && lower.contains(&username.to_lowercase()) {
        return wrong("may not contain the user name".to_owned());
    }
    Ok(())
}

/// The argon2id hash of a password, computed away from the threads that serve requests.
///
/// # Errors
/// When the system has no randomness.
pub(super) async fn hash(password: String) -> Result<String, Error> {
    let _place = PLACES.acquire().await.map_err(Error::internal)?;
    let hashed = tokio::task::spawn_blocking(move || hash_now(&password));
    hashed.await.map_err(Error::internal)?
}

/// Whether a password is the one that was hashed. Without a hash (there is no such person) it takes as long and says
/// no.
///
/// # Errors
/// When the system has no randomness.
pub(super) async fn verify(password: String, hash: Option<String>) -> Result<bool, Error> {
    if password.len() > MAX_PASSWORD {
        return Ok(false);
    }
    let hash = hash.filter(|hash| hash != NO_PASSWORD);
    let _place = PLACES.acquire().await.map_err(Error::internal)?;
    let verified = tokio::task::spawn_blocking(move || {
        let known = hash.is_some();
        let hash = match hash {
            Some(hash) => hash,
            None => nobodys()?,
        };
        let verified = Argon2::default().verify_password(password.as_bytes(), &*hash);
        Ok(verified.is_ok() && known)
    });
    verified.await.map_err(Error::internal)?
}

fn hash_now(password: &str) -> Result<String, Error> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(Error::internal)?;
    Ok(hash.to_string())
}

/// The hash that stands in for that of a person who doesn't exist; made once, as costly as any other.
fn nobodys() -> Result<String, Error> {
    static NOBODYS: OnceLock<String> = OnceLock::new();
    if let Some(hash) = NOBODYS.get() {
        return Ok(hash.clone());
    }
    let hash = hash_now("nobody has this password")?;
    Ok(NOBODYS.get_or_init(|| hash).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passwords_are_kept_as_argon2id_and_verified() {
        let hash = hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
        for (password, known, right) in [
            ("correct horse", true, true),
            ("wrong horse", true, false),
            ("nobody has this password", false, false),
            (&*"x".repeat(2_000), true, false),
        ] {
            let hash = known.then(|| hash.clone());
            assert_eq!(
                verify(password.to_owned(), hash).await.unwrap(),
                right,
                "{password}"
            );
        }
    }

    #[test]
    fn what_is_guessed_first_is_refused() {
        for bad in [
            "short",
            "password",
            "Password1",
            "12345678",
            "aaaaaaaaaaaa",
            "anna-likes-tea",
        ] {
            assert!(check("password", "anna", bad).is_err(), "{bad}");
        }
        for good in ["correct horse battery", "pröbe-Wort", "tea at nine"] {
            assert!(check("password", "anna", good).is_ok(), "{good}");
        }
    }

    #[test]
    fn the_list_is_fit_to_be_searched() {
        for line in COMMON.lines() {
            assert!(
                line.len() >= MIN_PASSWORD && line == line.to_lowercase(),
                "{line}"
            );
        }
    }
}
