//! Versions that a device has not answered within the time expected of its model.

use chrono::{DateTime, Utc};
use serde_json::Value;
use setpoint_model::{
    DeviceId, Serial,
    settings::{Diff, Document, Source, Status, Timeline, ack::Errors},
    timeline::Facts,
};
use sqlx::{Postgres, Transaction, types::Json};

use super::{LastPresence, SettingsVersion, VersionsOf, parse};
use crate::{Result, Store};

/// Versions that are overdue, each claimed by this alone until it is told or dropped.
#[derive(Debug)]
pub struct OverdueSettings {
    transaction: Transaction<'static, Postgres>,
    /// The versions, each with its device.
    pub versions: Vec<(Serial, VersionsOf, SettingsVersion)>,
}

impl Store {
    /// Claims up to `limit` of the versions whose answer was expected by `now`, leaving alone what others are at work on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_overdue(&self, now: DateTime<Utc>, limit: i64) -> Result<OverdueSettings> {
        let mut transaction = self.pool.begin().await?;
        let rows = sqlx::query!(
            r#"WITH late AS MATERIALIZED (
                   SELECT device_id, version FROM settings_versions
                   WHERE expected_by <= $1 ORDER BY expected_by LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
               UPDATE settings_versions v SET expected_by = NULL
               FROM late JOIN devices d ON d.id = late.device_id JOIN device_settings s ON s.device_id = late.device_id
               LEFT JOIN device_presence p ON p.device_id = late.device_id
               WHERE v.device_id = late.device_id AND v.version = late.version
               RETURNING d.id, d.serial, v.version, v.actor, v.source, v.at, v.diff AS "diff: Json<Diff>",
                         v.overrides AS "overrides: Json<Document>", v.published_at, v.delivered_at,
                         v.applied_at, v.refused_at, v.superseded_at, v.errors AS "errors: Json<Errors>",
                         s.version AS current, s.reported_version, s.status AS "status: Json<Status>",
                         p.online AS "online?", p.since AS "since?""#,
            now,
            limit,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let mut versions = Vec::with_capacity(rows.len());
        for row in rows {
            let of = VersionsOf {
                device_id: DeviceId(row.id),
                current: row.current,
                reported: row.reported_version,
                status: row.status.0,
                presence: row
                    .online
                    .zip(row.since)
                    .map(|(online, since)| LastPresence { online, since }),
            };
            let version = SettingsVersion {
                version: row.version,
                actor: row.actor,
                source: parse::<Source>(&row.source)?,
                diff: row.diff.0,
                overrides: row.overrides.0,
                timeline: Timeline {
                    requested: Some(row.at),
                    published: row.published_at,
                    delivered: row.delivered_at,
                    applied: row.applied_at,
                    refused: row.refused_at,
                    superseded: row.superseded_at,
                },
                errors: row.errors.map(|errors| errors.0).unwrap_or_default(),
            };
            versions.push((parse(&row.serial)?, of, version));
        }
        Ok(OverdueSettings {
            transaction,
            versions,
        })
    }
}

impl OverdueSettings {
    /// Writes an entry into the timeline of each device, and makes it last: no version is told of twice.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tell(mut self, entries: &[(DeviceId, Facts)], at: DateTime<Utc>) -> Result<()> {
        let ids: Vec<i64> = entries.iter().map(|(device, _)| device.0).collect();
        let kinds: Vec<&str> = entries.iter().map(|(_, facts)| facts.kind().as_str()).collect();
        let data: Vec<Value> = entries.iter().map(|(_, facts)| facts.to_json()).collect();
        sqlx::query!(
            "INSERT INTO device_events (device_id, at, kind, data)
             SELECT e.device_id, $4, e.kind, e.data
             FROM unnest($1::bigint[], $2::text[], $3::jsonb[]) AS e (device_id, kind, data)",
            &ids,
            &kinds as &[&str],
            &data,
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        self.transaction.commit().await?;
        Ok(())
    }
}
