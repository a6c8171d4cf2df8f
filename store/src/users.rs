//! People who sign in.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{Result, Store};

/// A person, with the hash of their password.
#[derive(Clone)]
pub struct User {
    /// Their id.
    pub id: Uuid,
    /// The name they sign in with, in lower case.
    pub username: String,
    /// Their address.
    pub email: Option<String>,
    /// `admin`, `operator`, `viewer` or `owner`.
    pub role: String,
    /// The password's argon2id hash, in PHC form.
    pub password_hash: String,
    /// When they were added.
    pub created_at: DateTime<Utc>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("username", &self.username)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Adds a person; `false` if the name is taken, which changes nothing.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn insert_user(&self, user: &User) -> Result<bool> {
        let done = sqlx::query!(
            "insert into users (id, username, email, role, password_hash, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $6)
             on conflict (username) do nothing",
            user.id,
            user.username,
            user.email,
            user.role,
            user.password_hash,
            user.created_at,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// The person of this name, in lower case.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn user_by_name(&self, username: &str) -> Result<Option<User>> {
        let user = sqlx::query_as!(
            User,
            "select id, username, email, role, password_hash, created_at from users where username = $1",
            username,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(user)
    }

    /// Whether anybody is there yet.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn has_users(&self) -> Result<bool> {
        let there = sqlx::query_scalar!(r#"select exists (select from users) as "there!""#)
            .fetch_one(&self.pool)
            .await?;
        Ok(there)
    }

    /// Replaces a person's password; `false` if there is nobody of this name.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn set_password(&self, username: &str, password_hash: &str, at: DateTime<Utc>) -> Result<bool> {
        let done = sqlx::query!(
            "update users set password_hash = $2, updated_at = $3 where username = $1",
            username,
            password_hash,
            at,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }
}
