//! Devices whose effective document is to be computed again, because a layer under them changed or will change.
//!
//! Whoever changes a layer under devices calls [`mark_due`] in the transaction that changes it, and rings
//! `hints.layers` after the commit. The reconciler (`tasks::settings_layers`) claims what is due in batches.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use setpoint_model::{
    DeviceId,
    settings::{Document, Source, Status},
};
use sqlx::{PgConnection, types::Json};

use super::{LockedSettings, Settings, parse, rows::SettingsRow};
use crate::{Result, Store};

/// Why a device is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The device.
    pub device_id: DeviceId,
    /// Who changed a layer under it.
    pub actor: String,
    /// By which way.
    pub source: Source,
}

/// Marks devices as due at `at`, or earlier if they were. What is due already keeps its time, and tells of this change.
/// Those that are being deleted are passed over.
///
/// # Errors
/// When the database fails.
pub(crate) async fn mark_due(
    connection: &mut PgConnection,
    devices: &[i64],
    at: DateTime<Utc>,
    actor: &str,
    source: Source,
) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO settings_due AS q (device_id, due_at, actor, source)
         SELECT d.id, $2, $3, $4 FROM devices d WHERE d.id = ANY($1) ORDER BY d.id FOR KEY SHARE OF d
         ON CONFLICT (device_id) DO UPDATE
         SET due_at = least(q.due_at, excluded.due_at), actor = excluded.actor, source = excluded.source",
        devices,
        at,
        actor,
        source.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Says that something beside the model and the device itself may have a part in these devices' documents.
///
/// # Errors
/// When the database fails.
pub(crate) async fn set_layered(connection: &mut PgConnection, devices: &[i64]) -> Result<()> {
    sqlx::query!(
        "UPDATE device_settings SET layered = true WHERE device_id = ANY($1) AND NOT layered",
        devices,
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Claims up to `limit` of the devices that are due at `now`, and locks their settings, leaving alone what others are
    /// at work on. They stay due until [`LockedSettings::finish_due`] is committed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_settings_due(
        &self,
        now: DateTime<Utc>,
        limit: i64,
    ) -> Result<(LockedSettings, Vec<Due>)> {
        let mut transaction = self.pool.begin().await?;
        // Nothing is waited for, so the order of locks is of no matter.
        let rows = sqlx::query!(
            r#"SELECT d.id, d.serial, d.model, m.version AS model_version, m.settings_expected_within,
                      s.version, s.first_version, s.layered,
                      s.overrides AS "overrides: Json<Document>", s.document AS "document: Json<Document>",
                      s.origins AS "origins: Json<BTreeMap<String, String>>", s.status AS "status: Json<Status>",
                      s.reported AS "reported: Json<Document>", s.reported_version, q.actor, q.source
               FROM settings_due q JOIN devices d ON d.id = q.device_id JOIN device_settings s ON s.device_id = d.id
               JOIN models m ON m.name = d.model
               WHERE q.due_at <= $1 ORDER BY q.due_at, q.device_id LIMIT $2
               FOR NO KEY UPDATE OF q, d, s SKIP LOCKED FOR KEY SHARE OF m SKIP LOCKED"#,
            now,
            limit,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let (mut devices, mut due) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for row in rows {
            due.push(Due {
                device_id: DeviceId(row.id),
                actor: row.actor,
                source: parse(&row.source)?,
            });
            devices.push(Settings::try_from(SettingsRow {
                id: row.id,
                serial: row.serial,
                model: row.model,
                model_version: Some(row.model_version),
                settings_expected_within: row.settings_expected_within,
                version: row.version,
                first_version: row.first_version,
                layered: row.layered,
                overrides: row.overrides,
                document: row.document,
                origins: row.origins,
                status: row.status,
                reported: row.reported,
                reported_version: row.reported_version,
            })?);
        }
        Ok((LockedSettings::new(transaction, devices), due))
    }

    /// When the next device is due; it may be past.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_settings_due(&self) -> Result<Option<DateTime<Utc>>> {
        Ok(sqlx::query_scalar!("SELECT min(due_at) FROM settings_due")
            .fetch_one(&self.pool)
            .await?)
    }
}

impl LockedSettings {
    /// Marks devices among those locked as through: each is due again at its next time (by a schedule), or not at all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn finish_due(&mut self, devices: &[(DeviceId, Option<DateTime<Utc>>)]) -> Result<()> {
        let ids: Vec<i64> = devices.iter().map(|(device, _)| device.0).collect();
        let next: Vec<Option<DateTime<Utc>>> = devices.iter().map(|(_, next)| *next).collect();
        sqlx::query!(
            "WITH through AS MATERIALIZED (SELECT * FROM unnest($1::bigint[], $2::timestamptz[]) AS t (device_id, next)),
             gone AS (DELETE FROM settings_due q USING through t WHERE q.device_id = t.device_id AND t.next IS NULL)
             UPDATE settings_due q SET due_at = t.next, actor = $3, source = $3
             FROM through t WHERE q.device_id = t.device_id AND t.next IS NOT NULL",
            &ids,
            &next as &[Option<DateTime<Utc>>],
            Source::Schedule.as_str(),
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Marks devices among those locked as due now, because something they are selected or timed by changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark_due(
        &mut self,
        devices: &[DeviceId],
        at: DateTime<Utc>,
        actor: &str,
        source: Source,
    ) -> Result<()> {
        let devices: Vec<i64> = devices.iter().map(|device| device.0).collect();
        mark_due(&mut self.transaction, &devices, at, actor, source).await
    }

    /// Says that something beside the model and the device itself may have a part in these devices' documents.
    pub(crate) async fn set_layered(&mut self, devices: &[i64]) -> Result<()> {
        set_layered(&mut self.transaction, devices).await?;
        for settings in &mut self.devices {
            settings.layered |= devices.contains(&settings.device_id.0);
        }
        Ok(())
    }

    /// Writes which layers the values of some devices come from, where that is all that changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_origins(
        &mut self,
        devices: &[(DeviceId, &BTreeMap<String, String>)],
        at: DateTime<Utc>,
    ) -> Result<()> {
        let ids: Vec<i64> = devices.iter().map(|(device, _)| device.0).collect();
        let origins: Vec<Json<&BTreeMap<String, String>>> =
            devices.iter().map(|(_, origins)| Json(*origins)).collect();
        sqlx::query!(
            "UPDATE device_settings s SET origins = o.origins, updated_at = $3
             FROM unnest($1::bigint[], $2::jsonb[]) AS o (device_id, origins) WHERE s.device_id = o.device_id",
            &ids,
            &origins as &[Json<&BTreeMap<String, String>>],
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }
}
