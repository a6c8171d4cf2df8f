//! People's second factor: a sealed secret, the newest time step that was used, and recovery codes.

use chrono::{DateTime, Utc};
use setpoint_model::credential::SecretHash;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Result, Store,
    audit::{self, NewEntry},
};

/// A person's second factor.
#[derive(Clone)]
pub struct Totp {
    /// The secret, encrypted by the server's key.
    pub sealed: Vec<u8>,
    /// When the person showed their first code; `None` while they haven't, and then it asks nothing of them.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// Recovery codes that are left.
    pub recovery_codes: i64,
}

/// What a person proves their second factor with, checked but for whether it was used before.
#[derive(Debug, Clone, Copy)]
pub enum SecondFactor {
    /// The code of this time step.
    Step(i64),
    /// The recovery code of this hash.
    Recovery(SecretHash),
}

impl Store {
    /// A person's second factor.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn totp(&self, user: Uuid) -> Result<Option<Totp>> {
        let totp = sqlx::query_as!(
            Totp,
            r#"SELECT sealed, confirmed_at,
                      (SELECT count(*) FROM recovery_codes r WHERE r.user_id = t.user_id) AS "recovery_codes!"
               FROM totp t WHERE user_id = $1"#,
            user,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(totp)
    }

    /// Begins an enrolment, in place of one that was not confirmed; `false` if one was.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_totp(&self, user: Uuid, sealed: &[u8], at: DateTime<Utc>) -> Result<bool> {
        let done = sqlx::query!(
            "INSERT INTO totp (user_id, sealed, created_at) VALUES ($1, $2, $3)
             ON CONFLICT (user_id) DO UPDATE SET sealed = $2, created_at = $3, last_step = 0
             WHERE totp.confirmed_at IS NULL",
            user,
            sealed,
            at,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Confirms the enrolment that began with `sealed`, by the code of `step`; `false` if it is another by now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn confirm_totp(
        &self,
        user: Uuid,
        sealed: &[u8],
        step: i64,
        recovery_codes: &[SecretHash],
        at: DateTime<Utc>,
        entry: &NewEntry,
    ) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query!(
            "UPDATE totp SET confirmed_at = $4, last_step = $3
             WHERE user_id = $1 AND sealed = $2 AND confirmed_at IS NULL",
            user,
            sealed,
            step,
            at,
        )
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        let hashes: Vec<Vec<u8>> = recovery_codes
            .iter()
            .map(|hash| hash.as_bytes().to_vec())
            .collect();
        sqlx::query!(
            "INSERT INTO recovery_codes (user_id, hash) SELECT $1, unnest($2::bytea[])",
            user,
            &hashes,
        )
        .execute(&mut *transaction)
        .await?;
        audit::write(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Ends a person's second factor, if `by` (where one is asked for) was not used before; `false` if it was, or if there
    /// is none to end.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_totp(&self, user: Uuid, by: Option<SecondFactor>, entry: &NewEntry) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        if let Some(factor) = by
            && !spend(&mut transaction, user, factor).await?
        {
            transaction.rollback().await?;
            return Ok(false);
        }
        let done = sqlx::query!("DELETE FROM totp WHERE user_id = $1", user)
            .execute(&mut *transaction)
            .await?;
        audit::conclude(transaction, done.rows_affected() > 0, entry).await
    }
}

/// Uses a code up; `false` if that has happened before. Of two at once, one waits for the other and is refused.
pub(crate) async fn spend(transaction: &mut PgConnection, user: Uuid, factor: SecondFactor) -> Result<bool> {
    let done = match factor {
        SecondFactor::Step(step) => {
            sqlx::query!(
                "UPDATE totp SET last_step = $2
                 WHERE user_id = $1 AND last_step < $2 AND confirmed_at IS NOT NULL",
                user,
                step,
            )
            .execute(transaction)
            .await?
        }
        SecondFactor::Recovery(hash) => {
            sqlx::query!(
                "DELETE FROM recovery_codes WHERE user_id = $1 AND hash = $2",
                user,
                hash.as_bytes().as_slice(),
            )
            .execute(transaction)
            .await?
        }
    };
    Ok(done.rows_affected() == 1)
}
