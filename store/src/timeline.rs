//! The timeline of a device: what happened to it, newest first.

use chrono::{DateTime, Utc};
use serde_json::Value;
use setpoint_model::{
    DeviceId,
    timeline::{Entry, Facts, Kind},
};
use sqlx::types::Json;

use crate::{Result, Store};

/// One entry read back.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEntry {
    /// Its id, which orders entries of the same time.
    pub id: i64,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// Its kind: [`Kind::as_str`].
    pub kind: String,
    /// Its facts, by kind.
    pub data: Value,
}

/// Where a page of the timeline ended: the next one begins behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryPosition {
    /// The last entry's time.
    pub at: DateTime<Utc>,
    /// The last entry's id.
    pub id: i64,
}

impl Store {
    /// Writes entries in one statement, in their order; those of serials without a device, or from before the present
    /// device of that serial was made, are passed over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_timeline(&self, entries: &[Entry]) -> Result<()> {
        let serials: Vec<&str> = entries.iter().map(|entry| entry.serial.as_str()).collect();
        let times: Vec<DateTime<Utc>> = entries.iter().map(|entry| entry.at).collect();
        let kinds: Vec<&str> = entries.iter().map(|entry| entry.facts.kind().as_str()).collect();
        // Every kind has facts, so each is an object.
        let data: Vec<Json<&Facts>> = entries.iter().map(|entry| Json(&entry.facts)).collect();
        sqlx::query!(
            "INSERT INTO device_events (device_id, at, kind, data)
             SELECT d.id, x.at, x.kind, x.data
             FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::jsonb[])
                  WITH ORDINALITY AS x (serial, at, kind, data, place)
             JOIN devices d ON d.serial = x.serial AND d.created_at <= x.at
             ORDER BY x.place",
            &serials as &[&str],
            &times,
            &kinds as &[&str],
            &data as &[Json<&Facts>],
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A page of a device's timeline, newest first: what stands behind `after`, of the kinds given (all if none
    /// is).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn timeline(
        &self,
        device_id: DeviceId,
        kinds: &[Kind],
        after: Option<EntryPosition>,
        limit: i64,
    ) -> Result<Vec<StoredEntry>> {
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let entries = sqlx::query_as!(
            StoredEntry,
            "SELECT id, at, kind, data FROM device_events
             WHERE device_id = $1
               AND (at, id) < (coalesce($2::timestamptz, 'infinity'), coalesce($3::bigint, 0))
               AND (cardinality($4::text[]) = 0 OR kind = ANY($4))
             ORDER BY at DESC, id DESC LIMIT $5",
            device_id.0,
            after.map(|after| after.at),
            after.map(|after| after.id),
            &kinds as &[&str],
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(entries)
    }

    /// Deletes the entries of a deleted device: those that were on their way when the rest went with it. Returns how
    /// many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn purge_timeline(&self, device_id: DeviceId) -> Result<u64> {
        let deleted = sqlx::query!(
            "DELETE FROM device_events WHERE device_id = $1
             AND NOT EXISTS (SELECT FROM devices WHERE id = $1)",
            device_id.0,
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }

    /// Deletes entries from before `keep_from`, at most `limit`. Returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire_timeline(&self, keep_from: DateTime<Utc>, limit: i64) -> Result<u64> {
        let deleted = sqlx::query!(
            "DELETE FROM device_events WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM device_events WHERE at < $1 LIMIT $2))",
            keep_from,
            limit,
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }

    /// Deletes the oldest entries of devices that have more than `keep`, so that `keep` are left; at most 100
    /// devices at a time. Returns how many entries.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_timelines(&self, keep: i64) -> Result<u64> {
        let deleted = sqlx::query!(
            "WITH long AS (
                 SELECT device_id FROM device_events GROUP BY device_id HAVING count(*) > $1 LIMIT 100),
             bound AS (
                 SELECT e.device_id, e.at, e.id FROM long CROSS JOIN LATERAL (
                     SELECT device_id, at, id FROM device_events WHERE device_id = long.device_id
                     ORDER BY at DESC, id DESC OFFSET $1 LIMIT 1) e)
             DELETE FROM device_events e USING bound
             WHERE e.device_id = bound.device_id AND (e.at, e.id) <= (bound.at, bound.id)",
            keep,
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}

#[cfg(test)]
mod tests;
