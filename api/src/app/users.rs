//! People and their passwords.

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, phc::PasswordHash},
};
use chrono::{DateTime, Utc};
use setpoint_model::{Clock, Scope};
use setpoint_store::{Store, users::User};

use super::{Actor, App, Error, tokens::new_id};
use crate::config::MIN_PASSWORD;

/// The longest password, in bytes: hashing is slow on purpose, and not to be slowed further.
const MAX_PASSWORD: usize = 1_024;
/// The roles there are.
pub const ROLES: [&str; 4] = ["admin", "operator", "viewer", "owner"];

/// A person to be added.
#[derive(Clone)]
pub struct NewUser {
    /// The name they sign in with; kept in lower case.
    pub username: String,
    /// The password.
    pub password: String,
    /// One of [`ROLES`].
    pub role: String,
    /// Their address.
    pub email: Option<String>,
}

impl App {
    /// Adds a person.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `admin`; [`Error::Invalid`] for a name, role or password that won't do;
    /// [`Error::Conflict`] when the name is taken.
    pub async fn create_user(&self, actor: &Actor, new: NewUser) -> Result<User, Error> {
        actor.require(Scope::Admin)?;
        create_user(&self.store, &*self.clock, new).await
    }

    /// Gives a person another password.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `admin`; [`Error::Invalid`] for a password that won't do; [`Error::NotFound`].
    pub async fn set_password(&self, actor: &Actor, username: &str, password: String) -> Result<(), Error> {
        actor.require(Scope::Admin)?;
        set_password(&self.store, &*self.clock, username, password).await
    }
}

/// As [`App::create_user`], for commands on the server's own terminal.
///
/// # Errors
/// As there.
pub async fn create_user(store: &Store, clock: &dyn Clock, new: NewUser) -> Result<User, Error> {
    let username = new.username.trim().to_lowercase();
    let well = |c: char| c.is_alphanumeric() || "._-@+".contains(c);
    if username.is_empty() || username.chars().count() > 64 || !username.chars().all(well) {
        return Err(Error::invalid("username", "1 to 64 letters, digits or . _ - @ +"));
    }
    if !ROLES.contains(&new.role.as_str()) {
        return Err(Error::invalid("role", format!("one of {}", ROLES.join(", "))));
    }
    let password_hash = hash(new.password).await?;
    let now = clock.now();
    let user = User {
        id: new_id(now),
        username,
        email: new.email,
        role: new.role,
        password_hash,
        created_at: now,
    };
    if store.insert_user(&user).await? {
        Ok(user)
    } else {
        let message = format!("there is somebody called {} already", user.username);
        Err(Error::Conflict {
            code: "user_exists",
            message,
        })
    }
}

/// As [`App::set_password`], for commands on the server's own terminal.
///
/// # Errors
/// As there.
pub async fn set_password(
    store: &Store,
    clock: &dyn Clock,
    username: &str,
    password: String,
) -> Result<(), Error> {
    let now: DateTime<Utc> = clock.now();
    let hash = hash(password).await?;
    if store
        .set_password(&username.trim().to_lowercase(), &hash, now)
        .await?
    {
        Ok(())
    } else {
        Err(Error::NotFound { what: "user" })
    }
}

/// The argon2id hash of a password, computed away from the threads that serve requests.
async fn hash(password: String) -> Result<String, Error> {
    if password.chars().count() < MIN_PASSWORD || password.len() > MAX_PASSWORD {
        return Err(Error::invalid(
            "password",
            format!("{MIN_PASSWORD} to {MAX_PASSWORD} characters"),
        ));
    }
    let hashed = tokio::task::spawn_blocking(move || {
        let hash: Result<PasswordHash, _> = Argon2::default().hash_password(password.as_bytes());
        hash.map(|hash| hash.to_string())
    });
    hashed.await.map_err(Error::internal)?.map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use argon2::{Argon2, PasswordVerifier};

    #[tokio::test]
    async fn passwords_are_kept_as_argon2id() {
        let hash = super::hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
        assert!(
            Argon2::default()
                .verify_password(b"correct horse", &*hash)
                .is_ok()
        );
        assert!(Argon2::default().verify_password(b"wrong horse", &*hash).is_err());
        assert!(super::hash("short".to_owned()).await.is_err());
    }
}
