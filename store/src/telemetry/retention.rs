//! Telemetry that a model keeps for less long than the server does: removed device by device.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use setpoint_model::DeviceId;
use sqlx::AssertSqlSafe;

use super::Rollup;
use crate::{Result, Store};

/// Devices that have telemetry from before a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredDevices {
    /// The devices, by id.
    pub devices: Vec<DeviceId>,
    /// The oldest hour of them all.
    pub oldest: DateTime<Utc>,
}

impl Store {
    /// For how many seconds the model of a device keeps its telemetry; `None` where it is as long as the server does.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn telemetry_retention_of(&self, device_id: DeviceId) -> Result<Option<i32>> {
        let retention = sqlx::query_scalar!(
            "SELECT m.telemetry_retention FROM devices d JOIN models m ON m.name = d.model WHERE d.id = $1",
            device_id.0,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(retention.flatten())
    }

    /// The models that have a retention of their own, with its seconds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn telemetry_retentions(&self) -> Result<Vec<(String, i32)>> {
        let rows = sqlx::query!(
            r#"SELECT name, telemetry_retention AS "seconds!" FROM models WHERE telemetry_retention IS NOT NULL ORDER BY name"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.name, row.seconds)).collect())
    }

    /// At most `limit` devices of a model that have telemetry from before `keep_from`, by the roll-ups of hours, which go last.
    /// Those behind `after`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expired_devices(
        &self,
        model: &str,
        keep_from: NaiveDate,
        after: DeviceId,
        limit: i64,
    ) -> Result<Option<ExpiredDevices>> {
        let rows = sqlx::query!(
            r#"SELECT d.id, h.oldest AS "oldest!" FROM devices d
               CROSS JOIN LATERAL (SELECT min(h.at) AS oldest FROM telemetry_hours h
                                   WHERE h.device_id = d.id AND h.at < $2) h
               WHERE d.model = $1 AND d.id > $3 AND h.oldest IS NOT NULL ORDER BY d.id LIMIT $4"#,
            model,
            midnight(keep_from),
            after.0,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        let oldest = rows.iter().map(|row| row.oldest).min();
        Ok(oldest.map(|oldest| ExpiredDevices {
            devices: rows.iter().map(|row| DeviceId(row.id)).collect(),
            oldest,
        }))
    }

    /// The tables where telemetry of these days may be: those of the samples, of the minutes, and of the hours last.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn telemetry_tables(&self, from: DateTime<Utc>, keep_from: NaiveDate) -> Result<Vec<String>> {
        let from = from.date_naive();
        let mut tables: Vec<String> = self
            .telemetry_partitions()
            .await?
            .into_iter()
            .filter(|partition| partition.day.is_none_or(|day| from <= day && day < keep_from))
            .map(|partition| partition.name)
            .collect();
        for rollup in [Rollup::Minutes, Rollup::Hours] {
            tables.extend(self.rollup_tables(rollup, from, keep_from).await?);
        }
        Ok(tables)
    }

    /// Deletes what these devices have from before `keep_from` in one of [`Self::telemetry_tables`], at most `limit` rows. Returns
    /// how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire_telemetry_of(
        &self,
        table: &str,
        devices: &[DeviceId],
        keep_from: NaiveDate,
        limit: i64,
    ) -> Result<u64> {
        let ids: Vec<i64> = devices.iter().map(|device| device.0).collect();
        let delete = format!(
            "DELETE FROM \"{table}\" WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM \"{table}\" WHERE device_id = ANY($1) AND at < $2 LIMIT $3))"
        );
        let deleted = sqlx::query(AssertSqlSafe(delete))
            .bind(ids)
            .bind(midnight(keep_from))
            .bind(limit)
            .execute(&self.pool)
            .await?;
        Ok(deleted.rows_affected())
    }
}

fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}
