//! Claims under way (RFC 8628): a device code, a user code, and what became of them.

use chrono::{DateTime, Utc};
use setpoint_model::{DeviceId, Serial, credential::SecretHash, timeline::Facts};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::{
    Result, Store,
    audit::{self, NewEntry},
    settings::parse,
};

/// A claim to be begun.
#[derive(Debug, Clone)]
pub struct NewClaim {
    /// Its id.
    pub id: Uuid,
    /// The hash of what the device polls with.
    pub device_code: SecretHash,
    /// The hash of what its owner enters.
    pub user_code: SecretHash,
    /// The device.
    pub serial: Serial,
    /// Whether it showed its factory secret.
    pub proven: bool,
    /// From where it asked.
    pub address: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
    /// Until when it may be approved and redeemed.
    pub expires_at: DateTime<Utc>,
    /// Seconds between polls.
    pub poll_interval: i32,
}

/// What became of a new claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It waits for its owner.
    Done,
    /// Its user code is another claim's: make another code.
    CodeTaken,
    /// Too many wait already.
    Full,
}

/// A claim that waits for its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingClaim {
    /// Its id.
    pub id: Uuid,
    /// The device.
    pub serial: Serial,
    /// Whether it showed its factory secret.
    pub proven: bool,
    /// From where it asked.
    pub address: Option<String>,
}

/// Where a claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimState {
    /// Nobody has decided.
    Pending,
    /// It may be redeemed.
    Approved,
    /// It was refused.
    Denied,
}

/// A claim while its device polls, held against other polls until it is dropped or redeemed.
#[derive(Debug)]
pub struct PolledClaim {
    transaction: Transaction<'static, Postgres>,
    id: Uuid,
    device_id: Option<i64>,
    /// The device.
    pub serial: Serial,
    /// Where it stands.
    pub state: ClaimState,
    /// Until when it holds.
    pub expires_at: DateTime<Utc>,
    /// When the device last asked.
    pub last_polled_at: Option<DateTime<Utc>>,
    /// Seconds between polls.
    pub poll_interval: i32,
}

impl Store {
    /// Begins a claim, unless `most` are waiting.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_claim(&self, claim: &NewClaim, most: i64) -> Result<Begun> {
        let waiting = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM (SELECT FROM claims WHERE expires_at > $1 LIMIT $2) AS waiting"#,
            claim.at,
            most,
        )
        .fetch_one(&self.pool)
        .await?;
        if waiting >= most {
            return Ok(Begun::Full);
        }
        let done = sqlx::query!(
            "INSERT INTO claims (id, device_code_hash, user_code_hash, serial, proven, address, created_at, expires_at,
                                 poll_interval)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (user_code_hash) DO NOTHING",
            claim.id,
            claim.device_code.as_bytes().as_slice(),
            claim.user_code.as_bytes().as_slice(),
            claim.serial.as_str(),
            claim.proven,
            claim.address,
            claim.at,
            claim.expires_at,
            claim.poll_interval,
        )
        .execute(&self.pool)
        .await?;
        Ok(if done.rows_affected() > 0 {
            Begun::Done
        } else {
            Begun::CodeTaken
        })
    }

    /// The claim of this user code that waits for its owner.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_claim(
        &self,
        user_code: &SecretHash,
        now: DateTime<Utc>,
    ) -> Result<Option<PendingClaim>> {
        let row = sqlx::query!(
            "SELECT id, serial, proven, address FROM claims
             WHERE user_code_hash = $1 AND state = 'pending' AND expires_at > $2",
            user_code.as_bytes().as_slice(),
            now,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            Ok(PendingClaim {
                id: row.id,
                serial: parse(&row.serial)?,
                proven: row.proven,
                address: row.address,
            })
        })
        .transpose()
    }

    /// Refuses a claim; `false` if it was decided already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn deny_claim(&self, id: Uuid, entry: &NewEntry) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query!(
            "UPDATE claims SET state = 'denied' WHERE id = $1 AND state = 'pending'",
            id
        )
        .execute(&mut *transaction)
        .await?;
        audit::conclude(transaction, done.rows_affected() > 0, entry).await
    }

    /// The claim of this device code, decided or not, for the device that polls.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn poll_claim(&self, device_code: &SecretHash) -> Result<Option<PolledClaim>> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query!(
            "SELECT id, serial, state, device_id, expires_at, last_polled_at, poll_interval
             FROM claims WHERE device_code_hash = $1 FOR UPDATE",
            device_code.as_bytes().as_slice(),
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else {
            transaction.rollback().await?;
            return Ok(None);
        };
        let state = match row.state.as_str() {
            "approved" => ClaimState::Approved,
            "denied" => ClaimState::Denied,
            _ => ClaimState::Pending,
        };
        Ok(Some(PolledClaim {
            transaction,
            id: row.id,
            device_id: row.device_id,
            serial: parse(&row.serial)?,
            state,
            expires_at: row.expires_at,
            last_polled_at: row.last_polled_at,
            poll_interval: row.poll_interval,
        }))
    }

    /// Removes claims that ended before `horizon`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_old_claims(&self, horizon: DateTime<Utc>) -> Result<u64> {
        let done = sqlx::query!("DELETE FROM claims WHERE expires_at <= $1", horizon)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }
}

impl PolledClaim {
    /// Notes a poll, and how long the device has to wait from now on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn wait(mut self, poll_interval: i32, at: DateTime<Utc>) -> Result<()> {
        sqlx::query!(
            "UPDATE claims SET last_polled_at = $2, poll_interval = $3 WHERE id = $1",
            self.id,
            at,
            poll_interval,
        )
        .execute(&mut *self.transaction)
        .await?;
        self.transaction.commit().await?;
        Ok(())
    }

    /// Gives the device of an approved claim its credential, once; `None` if it isn't approved.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn redeem(mut self, hash: &SecretHash, entry: &NewEntry) -> Result<Option<DeviceId>> {
        let (ClaimState::Approved, Some(device)) = (self.state, self.device_id) else {
            self.transaction.rollback().await?;
            return Ok(None);
        };
        let facts = Facts::CredentialRotated {
            actor: entry.actor.clone(),
        };
        sqlx::query!(
            "WITH credential AS (
                 INSERT INTO device_credentials (device_id, hash, created_at) VALUES ($1, $2, $3)
                 ON CONFLICT (device_id) DO UPDATE
                 SET hash = excluded.hash, created_at = excluded.created_at, previous_hash = NULL, previous_until = NULL),
             used AS (DELETE FROM claims WHERE id = $4)
             INSERT INTO device_events (device_id, at, kind, data) VALUES ($1, $3, $5, $6)",
            device,
            hash.as_bytes().as_slice(),
            entry.at,
            self.id,
            facts.kind().as_str(),
            facts.to_json(),
        )
        .execute(&mut *self.transaction)
        .await?;
        audit::write(&mut self.transaction, entry).await?;
        self.transaction.commit().await?;
        Ok(Some(DeviceId(device)))
    }
}
