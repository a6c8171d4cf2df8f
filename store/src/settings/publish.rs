//! What the publisher needs: which documents are due, all of them at a start, and marks of what became of them.

use chrono::{DateTime, Utc};
use setpoint_model::{DeviceId, Serial, settings::Document};
use sqlx::types::Json;

use super::rows::parse;
use crate::{Result, Store};

/// A document on its way to MQTT.
#[derive(Debug, Clone, PartialEq)]
pub struct DueSettings {
    /// The device.
    pub device_id: DeviceId,
    /// Its serial.
    pub serial: Serial,
    /// The version.
    pub version: i64,
    /// The whole effective document.
    pub document: Document,
}

/// A version was published, or the device's PUBACK for it came in. Later marks of the same step change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryMark {
    /// The device.
    pub serial: Serial,
    /// The version.
    pub version: i64,
    /// When it was published.
    pub published: Option<DateTime<Utc>>,
    /// When the PUBACK came in.
    pub delivered: Option<DateTime<Utc>>,
}

struct Row {
    id: i64,
    serial: String,
    version: i64,
    document: Json<Document>,
}

impl TryFrom<Row> for DueSettings {
    type Error = crate::Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            device_id: DeviceId(row.id),
            serial: parse(&row.serial)?,
            version: row.version,
            document: row.document.0,
        })
    }
}

impl Store {
    /// Claims what is due among `devices`, waiting for writers at work on them. Who claims a document publishes it;
    /// should it fail, the next start publishes every document again.
    ///
    /// A claim is not worth a wait for the disk, hence `synchronous_commit`: one that a crash of Postgres forgets
    /// is made again, and the document published twice.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_due_settings(&self, devices: &[i64]) -> Result<Vec<DueSettings>> {
        let rows = sqlx::query_as!(
            Row,
            r#"WITH fast AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
               due AS MATERIALIZED (
                   SELECT s.device_id FROM device_settings s, fast
                   WHERE s.device_id = ANY($1) AND s.published_version < s.version
                   ORDER BY s.device_id FOR NO KEY UPDATE OF s)
               UPDATE device_settings s SET published_version = s.version
               FROM due JOIN devices d ON d.id = due.device_id
               WHERE s.device_id = due.device_id
               RETURNING d.id, d.serial, s.version, s.document AS "document: Json<Document>""#,
            devices,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(DueSettings::try_from).collect()
    }

    /// Claims up to `limit` of all that is due, leaving alone what others are at work on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_any_due_settings(&self, limit: i64) -> Result<Vec<DueSettings>> {
        let rows = sqlx::query_as!(
            Row,
            r#"WITH fast AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
               due AS MATERIALIZED (
                   SELECT s.device_id FROM device_settings s, fast
                   WHERE s.published_version < s.version
                   ORDER BY s.device_id LIMIT $1 FOR NO KEY UPDATE OF s SKIP LOCKED)
               UPDATE device_settings s SET published_version = s.version
               FROM due JOIN devices d ON d.id = due.device_id
               WHERE s.device_id = due.device_id
               RETURNING d.id, d.serial, s.version, s.document AS "document: Json<Document>""#,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(DueSettings::try_from).collect()
    }

    /// A page of all documents by device id, published or not: those behind `after` (0 for the first page).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settings_page(&self, after: DeviceId, limit: i64) -> Result<Vec<DueSettings>> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT d.id, d.serial, s.version, s.document AS "document: Json<Document>"
               FROM device_settings s JOIN devices d ON d.id = s.device_id
               WHERE s.device_id > $1 ORDER BY s.device_id LIMIT $2"#,
            after.0,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(DueSettings::try_from).collect()
    }

    /// The documents of these devices, published or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settings_of(&self, devices: &[i64]) -> Result<Vec<DueSettings>> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT d.id, d.serial, s.version, s.document AS "document: Json<Document>"
               FROM device_settings s JOIN devices d ON d.id = s.device_id WHERE s.device_id = ANY($1)"#,
            devices,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(DueSettings::try_from).collect()
    }

    /// Has a device's document published again; nothing if there is no such device.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn republish_settings(&self, serial: &Serial) -> Result<Option<DeviceId>> {
        let id = sqlx::query_scalar!(
            "UPDATE device_settings s SET published_version = 0 FROM devices d
             WHERE d.id = s.device_id AND d.serial = $1 RETURNING d.id",
            serial.as_str(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(id.map(DeviceId))
    }

    /// Writes marks in one statement; each version stands there once. Those of devices that are gone are passed over,
    /// and those that change nothing lock nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark_settings(&self, marks: &[DeliveryMark]) -> Result<()> {
        let serials: Vec<&str> = marks.iter().map(|mark| mark.serial.as_str()).collect();
        let versions: Vec<i64> = marks.iter().map(|mark| mark.version).collect();
        let published: Vec<Option<DateTime<Utc>>> = marks.iter().map(|mark| mark.published).collect();
        let delivered: Vec<Option<DateTime<Utc>>> = marks.iter().map(|mark| mark.delivered).collect();
        sqlx::query!(
            "WITH fast AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
             mark AS MATERIALIZED (
                 SELECT d.id, m.version, m.published, m.delivered
                 FROM fast, unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::timestamptz[])
                      AS m (serial, version, published, delivered)
                 JOIN devices d ON d.serial = m.serial
                 JOIN settings_versions v ON v.device_id = d.id AND v.version = m.version
                 JOIN device_settings s ON s.device_id = d.id
                 WHERE v.published_at IS NULL OR least(m.published, m.delivered) < v.published_at
                    OR (m.delivered IS NOT NULL AND (v.delivered_at IS NULL OR m.delivered < v.delivered_at))
                 ORDER BY d.id FOR NO KEY UPDATE OF s)
             UPDATE settings_versions v
             SET published_at = least(v.published_at, m.published, m.delivered),
                 delivered_at = least(v.delivered_at, m.delivered)
             FROM mark m WHERE v.device_id = m.id AND v.version = m.version
               AND (v.published_at IS NULL OR least(m.published, m.delivered) < v.published_at
                    OR (m.delivered IS NOT NULL AND (v.delivered_at IS NULL OR m.delivered < v.delivered_at)))",
            &serials as &[&str],
            &versions,
            &published as &[Option<DateTime<Utc>>],
            &delivered as &[Option<DateTime<Utc>>],
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
