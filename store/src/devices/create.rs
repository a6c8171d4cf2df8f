//! Making a device: the row first, which settles whose the serial is, then all that belongs to it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use setpoint_model::{
    DeviceId, Serial,
    credential::SecretHash,
    device::NewDevice,
    settings::{Diff, Document, Source, Status},
    timeline::Facts,
};
use sqlx::{Postgres, Transaction, types::Json};

use crate::{Result, Store, groups, settings::LockedSettings};

/// A device whose serial is taken but which has no settings yet. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct UnsettledDevice {
    /// The transaction, with no device in it yet.
    pub(crate) locked: LockedSettings,
    layered: bool,
    /// Its model's name.
    pub model: String,
    /// The model's version, held against changes until the device is made.
    pub model_version: i32,
    /// Its id.
    pub id: DeviceId,
    /// Where its settings' versions begin: behind those of an earlier device of this serial.
    pub first_version: i64,
    at: DateTime<Utc>,
}

/// A new device's first settings.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstSettings {
    /// What it is to run.
    pub document: Document,
    /// Key to the layer its value came from.
    pub origins: BTreeMap<String, String>,
    /// Where each key stands: pending.
    pub status: Status,
    /// The whole document, as a change from nothing.
    pub diff: Diff,
}

impl Store {
    /// Whether there is no device of this serial, and never was one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_new_serial(&self, serial: &Serial) -> Result<bool> {
        let new = sqlx::query_scalar!(
            r#"SELECT NOT exists (SELECT FROM devices WHERE serial = $1)
                  AND NOT exists (SELECT FROM retired_serials WHERE serial = $1) AS "new!""#,
            serial.as_str(),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(new)
    }

    /// Begins a device. It belongs to the groups that its tags say.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] with `devices_serial_key` when the serial is taken,
    /// [`crate::Error::Reference`] with `devices_model_fkey` when there is no such model.
    pub async fn begin_device(&self, device: &NewDevice, at: DateTime<Utc>) -> Result<UnsettledDevice> {
        let transaction = self.pool.begin().await?;
        begin(transaction, device, at).await
    }
}

impl LockedSettings {
    /// Ends a device among those locked, with everything that is known of it, and begins a new generation of its serial
    /// in the same transaction.
    ///
    /// # Errors
    /// [`crate::Error::Reference`] with `devices_model_fkey` when there is no such model.
    pub async fn begin_generation(
        mut self,
        former: DeviceId,
        device: &NewDevice,
        at: DateTime<Utc>,
    ) -> Result<UnsettledDevice> {
        self.delete_device(former, at).await?;
        begin(self.transaction, device, at).await
    }
}

async fn begin(
    mut transaction: Transaction<'static, Postgres>,
    device: &NewDevice,
    at: DateTime<Utc>,
) -> Result<UnsettledDevice> {
    let description = &device.description;
    let id = sqlx::query_scalar!(
        "INSERT INTO devices (serial, name, model, tags, time_zone, location, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING id",
        device.serial.as_str(),
        description.name,
        description.model,
        description.tags.to_json(),
        description.time_zone.name(),
        description.location,
        at,
    )
    .fetch_one(&mut *transaction)
    .await?;
    // A statement of its own, begun after the insert: a deletion of the same serial that the insert waited for
    // is seen here.
    // The insert holds the model, so that its version is seen here that a change left which the insert waited for.
    let found = sqlx::query!(
        r#"SELECT version AS model_version,
                  (SELECT settings_version FROM retired_serials WHERE serial = $1) AS "retired?"
           FROM models WHERE name = $2"#,
        device.serial.as_str(),
        description.model,
    )
    .fetch_one(&mut *transaction)
    .await?;
    let first_version = found.retired.unwrap_or(0).saturating_add(1);
    let layered = groups::join(&mut transaction, DeviceId(id), &description.tags).await?;
    Ok(UnsettledDevice {
        locked: LockedSettings::new(transaction, Vec::new()),
        layered,
        model: description.model.clone(),
        model_version: found.model_version,
        id: DeviceId(id),
        first_version,
        at,
    })
}

impl UnsettledDevice {
    /// Whether anything but the model has a part in its first document.
    pub fn is_layered(&self) -> bool {
        self.layered
    }

    /// Whether its serial had a device before.
    pub fn is_successor(&self) -> bool {
        self.first_version > 1
    }

    /// Lets go without making it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(self) -> Result<()> {
        self.locked.release().await
    }

    /// The transaction it is made in, to read its layers.
    pub fn locked(&mut self) -> &mut LockedSettings {
        &mut self.locked
    }

    /// Adds the first settings, the credential (none: it can't sign in yet) and the entry in the timeline, and makes it all last.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn commit(
        mut self,
        settings: &FirstSettings,
        hash: Option<&SecretHash>,
        actor: &str,
    ) -> Result<()> {
        let created = Facts::Created {
            actor: actor.to_owned(),
        };
        sqlx::query!(
            "WITH settings AS (
                 INSERT INTO device_settings
                     (device_id, version, first_version, document, origins, status, updated_at, layered)
                 VALUES ($1, $2, $2, $3, $4, $5, $6, $13)),
             version AS (
                 INSERT INTO settings_versions (device_id, version, actor, source, at, diff, overrides)
                 VALUES ($1, $2, $7, $8, $6, $9, '{}')),
             credential AS (
                 INSERT INTO device_credentials (device_id, hash, created_at)
                 SELECT $1, $10, $6 WHERE $10::bytea IS NOT NULL)
             INSERT INTO device_events (device_id, at, kind, data) VALUES ($1, $6, $11, $12)",
            self.id.0,
            self.first_version,
            Json(&settings.document) as Json<&Document>,
            Json(&settings.origins) as Json<&BTreeMap<String, String>>,
            Json(&settings.status) as Json<&Status>,
            self.at,
            actor,
            Source::Created.as_str(),
            Json(&settings.diff) as Json<&Diff>,
            hash.map(|hash| hash.as_bytes().as_slice()),
            created.kind().as_str(),
            created.to_json(),
            self.layered,
        )
        .execute(&mut *self.locked.transaction)
        .await?;
        self.locked.commit().await
    }
}
