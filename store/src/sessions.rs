//! People's sessions: a SHA-256 of the cookie each.

use chrono::{DateTime, TimeDelta, Utc};
use setpoint_model::{Role, credential::SecretHash};
use uuid::Uuid;

use crate::{
    Result, Store,
    audit::{self, NewEntry},
    settings::parse,
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
    /// When.
    pub at: DateTime<Utc>,
}

impl Store {
    /// Begins a session of a person whose password hash still is `password_hash`; `false` if it isn't.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_session(
        &self,
        session: &NewSession,
        password_hash: &str,
        entry: &NewEntry,
    ) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query!(
            "INSERT INTO sessions (id, hash, user_id, address, created_at, last_used_at)
             SELECT $1, $2, id, $4, $5, $5 FROM users WHERE id = $3 AND password_hash = $6 FOR SHARE",
            session.id,
            session.hash.as_bytes().as_slice(),
            session.user_id,
            session.address,
            session.at,
            password_hash,
        )
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        audit::write(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(true)
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
            "SELECT s.id, s.user_id, u.username, u.role, s.created_at, s.last_used_at
             FROM sessions s JOIN users u ON u.id = s.user_id
             WHERE s.hash = $1 AND s.last_used_at > $2 AND s.created_at > $3",
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
            created_at: row.created_at,
            last_used_at: row.last_used_at,
        }))
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
