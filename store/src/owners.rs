//! Whose a device is.

use chrono::{DateTime, Utc};
use setpoint_model::{DeviceId, Serial};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Result, Store,
    audit::{self, NewEntry},
    devices::UnsettledDevice,
    settings::LockedSettings,
};

/// Somebody a device is registered to, or shared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The person.
    pub user_id: Uuid,
    /// Their name.
    pub username: String,
    /// Whether another owner let them in.
    pub shared: bool,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// How a device stands towards a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Whom it is registered to.
    pub registrant: Option<Uuid>,
    /// Whether it can sign in already.
    pub has_credential: bool,
    /// Whether it was reported stolen.
    pub stolen: bool,
    /// Whether its model demands the factory secret.
    pub claim_secret: bool,
}

impl Store {
    /// Whether this is one of the device's owners.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn owns(&self, user: Uuid, serial: &Serial) -> Result<bool> {
        let owns = sqlx::query_scalar!(
            r#"SELECT exists (SELECT FROM device_owners o JOIN devices d ON d.id = o.device_id
                              WHERE d.serial = $1 AND o.user_id = $2) AS "owns!""#,
            serial.as_str(),
            user,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(owns)
    }

    /// The devices of a person, registered to or shared with them, and since when.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn owned_devices(&self, user: Uuid) -> Result<Vec<(Serial, DateTime<Utc>)>> {
        let rows = sqlx::query!(
            "SELECT d.serial, o.since FROM device_owners o JOIN devices d ON d.id = o.device_id WHERE o.user_id = $1",
            user,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| Ok((crate::settings::parse(&row.serial)?, row.since)))
            .collect()
    }

    /// The owners of a device, whom it is registered to first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn owners(&self, serial: &Serial) -> Result<Vec<Owner>> {
        let owners = sqlx::query_as!(
            Owner,
            "SELECT o.user_id, u.username, o.shared, o.since
             FROM device_owners o JOIN users u ON u.id = o.user_id JOIN devices d ON d.id = o.device_id
             WHERE d.serial = $1 ORDER BY o.shared, o.since, u.username",
            serial.as_str(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(owners)
    }

    /// Lets a person in as an owner; `false` if they are one already.
    ///
    /// # Errors
    /// [`crate::Error::Reference`] when the device or the person is gone.
    pub async fn share_device(
        &self,
        device: DeviceId,
        user: Uuid,
        by: Option<Uuid>,
        entry: &NewEntry,
    ) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query!(
            "INSERT INTO device_owners (device_id, user_id, shared_by, shared, since) VALUES ($1, $2, $3, true, $4)
             ON CONFLICT (device_id, user_id) DO NOTHING",
            device.0,
            user,
            by,
            entry.at,
        )
        .execute(&mut *transaction)
        .await?;
        audit::conclude(transaction, done.rows_affected() > 0, entry).await
    }

    /// Ends a share; `false` if there is none of this person. A registration is no share.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unshare_device(&self, device: DeviceId, user: Uuid, entry: &NewEntry) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query!(
            "DELETE FROM device_owners WHERE device_id = $1 AND user_id = $2 AND shared",
            device.0,
            user,
        )
        .execute(&mut *transaction)
        .await?;
        audit::conclude(transaction, done.rows_affected() > 0, entry).await
    }
}

async fn register(
    connection: &mut PgConnection,
    device: DeviceId,
    user: Uuid,
    at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO device_owners (device_id, user_id, since) VALUES ($1, $2, $3)
         ON CONFLICT (device_id, user_id) DO NOTHING",
        device.0,
        user,
        at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn approve(connection: &mut PgConnection, claim: Uuid, device: DeviceId, user: Uuid) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE claims SET state = 'approved', device_id = $2, user_id = $3 WHERE id = $1 AND state = 'pending'",
        claim,
        device.0,
        user,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

impl LockedSettings {
    /// How a device among those locked stands towards a claim.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn registration(&mut self, device: DeviceId) -> Result<Registration> {
        let registration = sqlx::query_as!(
            Registration,
            r#"SELECT o.user_id AS "registrant?", c.device_id IS NOT NULL AS "has_credential!",
                      d.stolen_at IS NOT NULL AS "stolen!", m.claim_secret
               FROM devices d JOIN models m ON m.name = d.model
               LEFT JOIN device_owners o ON o.device_id = d.id AND NOT o.shared
               LEFT JOIN device_credentials c ON c.device_id = d.id
               WHERE d.id = $1"#,
            device.0,
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        Ok(registration)
    }

    /// Who owns a device among those locked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn owner_ids(&mut self, device: DeviceId) -> Result<Vec<Uuid>> {
        let ids = sqlx::query_scalar!("SELECT user_id FROM device_owners WHERE device_id = $1", device.0)
            .fetch_all(&mut *self.transaction)
            .await?;
        Ok(ids)
    }

    /// Registers a device among those locked to a person, by a claim; `false` if the claim was decided meanwhile.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn register(
        &mut self,
        claim: Uuid,
        device: DeviceId,
        user: Uuid,
        at: DateTime<Utc>,
    ) -> Result<bool> {
        register(&mut self.transaction, device, user, at).await?;
        approve(&mut self.transaction, claim, device, user).await
    }

    /// Marks a device among those locked as stolen, or as found.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_stolen(&mut self, device: DeviceId, at: Option<DateTime<Utc>>) -> Result<()> {
        sqlx::query!("UPDATE devices SET stolen_at = $2 WHERE id = $1", device.0, at)
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }
}

impl UnsettledDevice {
    /// Registers the new device to a person, by a claim; `false` if the claim was decided meanwhile.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn register(&mut self, claim: Uuid, user: Uuid, at: DateTime<Utc>) -> Result<bool> {
        register(&mut self.locked.transaction, self.id, user, at).await?;
        approve(&mut self.locked.transaction, claim, self.id, user).await
    }

    /// Adds an entry to the audit log that stands and falls with the device.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&mut self, entry: &NewEntry) -> Result<()> {
        audit::write(&mut self.locked.transaction, entry).await
    }

    /// Marks it as stolen since `at`: a new generation of a device that was.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_stolen(&mut self, at: Option<DateTime<Utc>>) -> Result<()> {
        sqlx::query!("UPDATE devices SET stolen_at = $2 WHERE id = $1", self.id.0, at)
            .execute(&mut *self.locked.transaction)
            .await?;
        Ok(())
    }
}
