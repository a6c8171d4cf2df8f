//! Device credentials: one SHA-256 per device, or none.

use chrono::{DateTime, Utc};
use setpoint_model::{DeviceId, Serial, credential::SecretHash, timeline::Facts};

use crate::{
    Error, Result, Store,
    audit::{self, NewEntry},
    settings::parse,
};

/// A device's credential.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The device.
    pub device_id: DeviceId,
    /// Its serial.
    pub serial: Serial,
    /// The hash of its token.
    pub hash: SecretHash,
    /// The hash of the token before, and until when that still holds.
    pub previous: Option<(SecretHash, DateTime<Utc>)>,
    /// Whether the device was reported stolen, and is refused whatever it presents.
    pub stolen: bool,
}

impl Credential {
    /// That of a device that was just made.
    pub fn first(device_id: DeviceId, serial: Serial, hash: SecretHash) -> Self {
        Self {
            device_id,
            serial,
            hash,
            previous: None,
            stolen: false,
        }
    }
}

/// The device whose credential was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// The device.
    pub device_id: DeviceId,
    /// Whether it was reported stolen, and stays refused.
    pub stolen: bool,
}

fn hash(bytes: &[u8]) -> Result<SecretHash> {
    let wrong = || Error::Query(sqlx::Error::Decode("a credential's hash is not 32 bytes".into()));
    SecretHash::from_stored(bytes).ok_or_else(wrong)
}

fn previous(
    hash_bytes: Option<&[u8]>,
    until: Option<DateTime<Utc>>,
) -> Result<Option<(SecretHash, DateTime<Utc>)>> {
    match (hash_bytes, until) {
        (Some(bytes), Some(until)) => Ok(Some((hash(bytes)?, until))),
        _ => Ok(None),
    }
}

impl Store {
    /// A device's credential; `None` if there is no such device, or it may not sign in.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn credential(&self, serial: &Serial) -> Result<Option<Credential>> {
        let row = sqlx::query!(
            r#"SELECT d.id, c.hash, c.previous_hash, c.previous_until, d.stolen_at IS NOT NULL AS "stolen!"
               FROM devices d JOIN device_credentials c ON c.device_id = d.id WHERE d.serial = $1"#,
            serial.as_str(),
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            Ok(Credential {
                device_id: DeviceId(row.id),
                serial: serial.clone(),
                hash: hash(&row.hash)?,
                previous: previous(row.previous_hash.as_deref(), row.previous_until)?,
                stolen: row.stolen,
            })
        })
        .transpose()
    }

    /// A page of all credentials by device id: those behind `after` (0 for the first page).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn credentials_page(&self, after: DeviceId, limit: i64) -> Result<Vec<Credential>> {
        let rows = sqlx::query!(
            r#"SELECT d.id, d.serial, c.hash, c.previous_hash, c.previous_until, d.stolen_at IS NOT NULL AS "stolen!"
               FROM device_credentials c JOIN devices d ON d.id = c.device_id
               WHERE c.device_id > $1 ORDER BY c.device_id LIMIT $2"#,
            after.0,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Credential {
                    device_id: DeviceId(row.id),
                    serial: parse(&row.serial)?,
                    hash: hash(&row.hash)?,
                    previous: previous(row.previous_hash.as_deref(), row.previous_until)?,
                    stolen: row.stolen,
                })
            })
            .collect()
    }

    /// Gives a device a credential in place of any it had; the former one holds until `grace_until`, if that is given.
    /// `None` if there is no such device.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replace_credential(
        &self,
        serial: &Serial,
        hash: &SecretHash,
        grace_until: Option<DateTime<Utc>>,
        entry: &NewEntry,
    ) -> Result<Option<Replaced>> {
        let facts = Facts::CredentialRotated {
            actor: entry.actor.clone(),
        };
        let mut transaction = self.pool.begin().await?;
        let device = sqlx::query!(
            r#"WITH device AS (SELECT id, stolen_at FROM devices WHERE serial = $1 FOR KEY SHARE),
             credential AS (
                 INSERT INTO device_credentials AS c (device_id, hash, created_at) SELECT id, $2, $3 FROM device
                 ON CONFLICT (device_id) DO UPDATE
                 SET hash = excluded.hash, created_at = excluded.created_at, previous_until = $6,
                     previous_hash = CASE WHEN $6::timestamptz IS NULL THEN NULL ELSE c.hash END),
             event AS (
                 INSERT INTO device_events (device_id, at, kind, data) SELECT id, $3, $4, $5 FROM device)
             SELECT id, stolen_at IS NOT NULL AS "stolen!" FROM device"#,
            serial.as_str(),
            hash.as_bytes().as_slice(),
            entry.at,
            facts.kind().as_str(),
            facts.to_json(),
            grace_until,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(device) = device else {
            transaction.rollback().await?;
            return Ok(None);
        };
        audit::write(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(Some(Replaced {
            device_id: DeviceId(device.id),
            stolen: device.stolen,
        }))
    }

    /// Ends the former tokens whose grace is over; the devices they were of.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_grace(&self, now: DateTime<Utc>) -> Result<Vec<Serial>> {
        let serials = sqlx::query_scalar!(
            "UPDATE device_credentials c SET previous_hash = NULL, previous_until = NULL
             FROM devices d WHERE d.id = c.device_id AND c.previous_until <= $1 RETURNING d.serial",
            now,
        )
        .fetch_all(&self.pool)
        .await?;
        serials.iter().map(|serial| parse(serial)).collect()
    }

    /// Takes a device's credential away, if it has one; `None` if there is no such device.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_credential(&self, serial: &Serial, entry: &NewEntry) -> Result<Option<DeviceId>> {
        let facts = Facts::CredentialRevoked {
            actor: entry.actor.clone(),
        };
        let mut transaction = self.pool.begin().await?;
        let id = sqlx::query_scalar!(
            "WITH device AS (SELECT id FROM devices WHERE serial = $1 FOR KEY SHARE),
             revoked AS (
                 DELETE FROM device_credentials c USING device WHERE c.device_id = device.id RETURNING c.device_id),
             event AS (
                 INSERT INTO device_events (device_id, at, kind, data) SELECT device_id, $2, $3, $4 FROM revoked)
             SELECT id FROM device",
            serial.as_str(),
            entry.at,
            facts.kind().as_str(),
            facts.to_json(),
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(id) = id else {
            transaction.rollback().await?;
            return Ok(None);
        };
        audit::write(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(Some(DeviceId(id)))
    }
}
