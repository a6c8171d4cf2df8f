//! Devices: reading, making, changing and deleting them.

mod create;
mod list;
pub(crate) mod select;

use chrono::{DateTime, Utc};
use serde_json::Value;
use setpoint_model::{
    DeviceId, Serial,
    device::{Description, Tags},
};
use sqlx::types::Json;

use crate::{Error, Result, Store, settings::LockedSettings, settings::parse};

pub use create::{FirstSettings, UnsettledDevice};
pub use list::{DeviceFilter, DeviceSort, Position, SortKey};
pub use select::Selected;
pub(crate) use select::jsonpath;

/// A device as others may see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Its serial.
    pub serial: Serial,
    /// What people say about it.
    pub description: Description,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its description last changed.
    pub updated_at: DateTime<Utc>,
    /// Whether it is connected.
    pub online: bool,
    /// When it was last heard of; `None` for never.
    pub last_seen: Option<DateTime<Utc>>,
    /// Why its last session ended; `None` while it is online.
    pub disconnect_reason: Option<String>,
    /// The newest version of its settings.
    pub settings_version: i64,
    /// When its credential was made; `None` if it has none and can't sign in.
    pub credential_created_at: Option<DateTime<Utc>>,
    /// Since when it is reported stolen.
    pub stolen_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    serial: String,
    name: String,
    model: String,
    tags: Json<Value>,
    time_zone: String,
    location: Option<Json<Value>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    online: bool,
    last_seen: Option<DateTime<Utc>>,
    disconnect_reason: Option<String>,
    settings_version: i64,
    credential_created_at: Option<DateTime<Utc>>,
    stolen_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for Device {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: DeviceId(row.id),
            serial: parse(&row.serial)?,
            description: Description {
                name: row.name,
                model: row.model,
                tags: tags(row.tags.0)?,
                time_zone: parse(&row.time_zone)?,
                location: row.location.map(|location| location.0),
            },
            created_at: row.created_at,
            updated_at: row.updated_at,
            online: row.online,
            last_seen: row.last_seen,
            disconnect_reason: row.disconnect_reason,
            settings_version: row.settings_version,
            credential_created_at: row.credential_created_at,
            stolen_at: row.stolen_at,
        })
    }
}

fn tags(value: Value) -> Result<Tags> {
    Tags::parse(value).map_err(|error| Error::Query(sqlx::Error::Decode(error.into())))
}

impl Store {
    /// The device of this serial.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn device(&self, serial: &Serial) -> Result<Option<Device>> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT d.id, d.serial, d.name, d.model, d.tags AS "tags: Json<Value>", d.time_zone,
                      d.location AS "location: Json<Value>", d.created_at, d.updated_at,
                      coalesce(p.online, false) AS "online!", p.last_seen AS "last_seen?",
                      p.disconnect_reason AS "disconnect_reason?",
                      s.version AS settings_version, c.created_at AS "credential_created_at?", d.stolen_at
               FROM devices d JOIN device_settings s ON s.device_id = d.id
               LEFT JOIN device_presence p ON p.device_id = d.id
               LEFT JOIN device_credentials c ON c.device_id = d.id
               WHERE d.serial = $1"#,
            serial.as_str(),
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(Device::try_from).transpose()
    }

    /// The id of the device of this serial.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn device_id(&self, serial: &Serial) -> Result<Option<DeviceId>> {
        let id = sqlx::query_scalar!("SELECT id FROM devices WHERE serial = $1", serial.as_str())
            .fetch_optional(&self.pool)
            .await?;
        Ok(id.map(DeviceId))
    }
}

impl LockedSettings {
    /// The description of a device among those locked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn description(&mut self, device_id: DeviceId) -> Result<Option<Description>> {
        let row = sqlx::query!(
            r#"SELECT name, model, tags AS "tags: Json<Value>", time_zone, location AS "location: Json<Value>"
               FROM devices WHERE id = $1"#,
            device_id.0,
        )
        .fetch_optional(&mut *self.transaction)
        .await?;
        row.map(|row| {
            Ok(Description {
                name: row.name,
                model: row.model,
                tags: tags(row.tags.0)?,
                time_zone: parse(&row.time_zone)?,
                location: row.location.map(|location| location.0),
            })
        })
        .transpose()
    }

    /// Writes a new description of a device among those locked.
    ///
    /// # Errors
    /// [`Error::Reference`] with `devices_model_fkey` when there is no such model.
    pub async fn write_description(
        &mut self,
        device_id: DeviceId,
        description: &Description,
        at: DateTime<Utc>,
    ) -> Result<()> {
        sqlx::query!(
            "UPDATE devices SET name = $2, model = $3, tags = $4, time_zone = $5, location = $6, updated_at = $7
             WHERE id = $1",
            device_id.0,
            description.name,
            description.model,
            description.tags.to_json(),
            description.time_zone.name(),
            description.location,
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Deletes a device among those locked. What is left is how far its settings' versions went, and a note that its
    /// telemetry is to be removed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_device(&mut self, device_id: DeviceId, at: DateTime<Utc>) -> Result<()> {
        sqlx::query!(
            "WITH gone AS (
                 DELETE FROM devices d USING device_settings s WHERE d.id = $1 AND s.device_id = d.id
                 RETURNING d.id, d.serial, s.version),
             purge AS (INSERT INTO purges (device_id, requested_at) SELECT id, $2 FROM gone),
             events AS (DELETE FROM device_events e USING gone WHERE e.device_id = gone.id)
             INSERT INTO retired_serials (serial, settings_version) SELECT serial, version FROM gone
             ON CONFLICT (serial) DO UPDATE
             SET settings_version = greatest(retired_serials.settings_version, excluded.settings_version)",
            device_id.0,
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
