//! People's sessions: a SHA-256 of the cookie each.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use setpoint_model::{Role, credential::SecretHash};
use uuid::Uuid;

use crate::{
    Result, Store,
    audit::{self, NewEntry},
    settings::parse,
    totp::{self, SecondFactor},
};

/// A session that holds, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: Uuid,
    /// The person.
    pub user_id: Uuid,
    /// Their name.
    pub username: String,
    /// Their present role.
    pub role: Role,
    /// Whether they have a second factor.
    pub totp: bool,
    /// The issuer that vouched for them; `None` for a password.
    pub provider: Option<String>,
    /// When they signed in.
    pub created_at: DateTime<Utc>,
    /// When it was last used, to about a minute.
    pub last_used_at: DateTime<Utc>,
}

/// A session to be begun.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Its id.
    pub id: Uuid,
    /// The person.
    pub user_id: Uuid,
    /// The hash of its cookie.
    pub hash: SecretHash,
    /// From where they signed in.
    pub address: Option<String>,
    /// The issuer that vouches for them; `None` for a password.
    pub provider: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
}

/// What became of a session to be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It is there.
    Done,
    /// The person has changed meanwhile: another password, a second factor, or they may not sign in.
    Changed,
    /// The code was used before.
    Used,
}

impl Store {
    /// Begins a session of a person whose password hash still is `password_hash`, and uses their code up. Without one
    /// they must have no second factor, unless a provider vouches for them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_session(
        &self,
        session: &NewSession,
        password_hash: &str,
        factor: Option<SecondFactor>,
        entry: &NewEntry,
    ) -> Result<Begun> {
        let mut transaction = self.pool.begin().await?;
        if let Some(factor) = factor
            && !totp::spend(&mut transaction, session.user_id, factor).await?
        {
            transaction.rollback().await?;
            return Ok(Begun::Used);
        }
        let done = sqlx::query!(
            "INSERT INTO sessions (id, hash, user_id, address, created_at, last_used_at, provider)
             SELECT $1, $2, id, $4, $5, $5, $8 FROM users
             WHERE id = $3 AND password_hash = $6 AND disabled_at IS NULL
               AND ($7 OR NOT EXISTS (SELECT FROM totp t WHERE t.user_id = users.id AND t.confirmed_at IS NOT NULL))
             FOR SHARE",
            session.id,
            session.hash.as_bytes().as_slice(),
            session.user_id,
            session.address,
            session.at,
            password_hash,
            factor.is_some() || session.provider.is_some(),
            session.provider,
        )
        .execute(&mut *transaction)
        .await?;
        let done = audit::conclude(transaction, done.rows_affected() > 0, entry).await?;
        Ok(if done { Begun::Done } else { Begun::Changed })
    }

    /// The session of this cookie, unless it was idle since before `idle_since` or began before `begun_since`. Its
    /// use is noted once a minute.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session(
        &self,
        hash: &SecretHash,
        idle_since: DateTime<Utc>,
        begun_since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<Session>> {
        let row = sqlx::query!(
            r#"SELECT s.id, s.user_id, u.username, u.role, s.created_at, s.last_used_at,
                      EXISTS (SELECT FROM totp t WHERE t.user_id = u.id AND t.confirmed_at IS NOT NULL) AS "totp!", s.provider
               FROM sessions s JOIN users u ON u.id = s.user_id
               WHERE s.hash = $1 AND s.last_used_at > $2 AND s.created_at > $3 AND u.disabled_at IS NULL"#,
            hash.as_bytes().as_slice(),
            idle_since,
            begun_since,
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        if now - row.last_used_at >= TimeDelta::minutes(1) {
            sqlx::query!(
                "UPDATE sessions SET last_used_at = greatest(last_used_at, $2) WHERE id = $1",
                row.id,
                now
            )
            .execute(&self.pool)
            .await?;
        }
        Ok(Some(Session {
            id: row.id,
            user_id: row.user_id,
            username: row.username,
            role: parse(&row.role)?,
            totp: row.totp,
            provider: row.provider,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
        }))
    }

    /// Of these sessions those that hold, as [`Self::session`] says, with the present role of each one's person.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn roles_of_sessions(
        &self,
        ids: &[Uuid],
        idle_since: DateTime<Utc>,
        begun_since: DateTime<Utc>,
    ) -> Result<HashMap<Uuid, Role>> {
        let rows = sqlx::query!(
            "SELECT s.id, u.role FROM sessions s JOIN users u ON u.id = s.user_id
             WHERE s.id = ANY($1) AND s.last_used_at > $2 AND s.created_at > $3 AND u.disabled_at IS NULL",
            ids,
            idle_since,
            begun_since,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| Ok((row.id, parse(&row.role)?)))
            .collect()
    }

    /// When a session began; `None` if there is none of this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session_begun(&self, id: Uuid) -> Result<Option<DateTime<Utc>>> {
        let begun = sqlx::query_scalar!("SELECT created_at FROM sessions WHERE id = $1", id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(begun)
    }

    /// Ends one session, or with `everywhere` all of its person; how many there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_sessions(&self, session: Uuid, everywhere: bool, entry: &NewEntry) -> Result<u64> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query!(
            "DELETE FROM sessions WHERE id = $1
             OR ($2 AND user_id = (SELECT user_id FROM sessions WHERE id = $1))",
            session,
            everywhere,
        )
        .execute(&mut *transaction)
        .await?;
        audit::write(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }

    /// Gives a person another password in place of the one they know, and ends their sessions but `kept`; `None` if it was
    /// changed meanwhile, else how many sessions ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn change_password(
        &self,
        user: Uuid,
        kept: Uuid,
        hashes: (&str, &str),
        entry: &NewEntry,
    ) -> Result<Option<u64>> {
        let (before, after) = hashes;
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query!(
            "UPDATE users SET password_hash = $3, updated_at = $4 WHERE id = $1 AND password_hash = $2",
            user,
            before,
            after,
            entry.at,
        )
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(None);
        }
        let ended = sqlx::query!("DELETE FROM sessions WHERE user_id = $1 AND id <> $2", user, kept)
            .execute(&mut *transaction)
            .await?;
        audit::write(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(Some(ended.rows_affected()))
    }

    /// Removes the sessions that no longer hold.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_old_sessions(
        &self,
        idle_since: DateTime<Utc>,
        begun_since: DateTime<Utc>,
    ) -> Result<u64> {
        let done = sqlx::query!(
            "DELETE FROM sessions WHERE last_used_at <= $1 OR created_at <= $2",
            idle_since,
            begun_since
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}
