//! Late samples: their minutes and hours are computed again from the samples.

use std::collections::BTreeMap;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use setpoint_model::DeviceId;
use sqlx::PgConnection;

use super::{Late, claim};
use crate::{Result, Store};

impl Store {
    /// Computes again what at most `limit` notes of late samples name, the oldest first. Returns how many notes that
    /// were; `None` when another server is at work on the roll-ups, or the sweep has to come first.
    ///
    /// # Errors
    /// When the database fails; nothing is done then.
    pub async fn settle_late_telemetry(&self, limit: i64) -> Result<Option<u64>> {
        let mut transaction = self.pool.begin().await?;
        let settled = match claim(&mut transaction).await? {
            Some(marks) if marks.rolled == marks.announced => {
                let late = take(&mut transaction, limit).await?;
                let count = late.len();
                // What is gone can't be computed again: its roll-ups are all that is left of it.
                let late: Vec<Late> = merged(late)
                    .into_iter()
                    .filter(|late| late.since >= marks.raw_from)
                    .collect();
                settle(&mut transaction, &late, marks.rolled).await?;
                Some(count as u64)
            }
            _ => None,
        };
        transaction.commit().await?;
        Ok(settled)
    }

    /// Removes a deleted device's roll-ups, or those of one of a device's metrics, and its notes. Returns how many
    /// roll-ups. To be called after its samples were removed: nothing brings them back then.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_rollups(&self, device_id: DeviceId, metric_id: Option<i32>) -> Result<u64> {
        let mut transaction = self.pool.begin().await?;
        // Waits for who is at work on the roll-ups, and may have read the samples before they went.
        sqlx::query!("SELECT rolled FROM telemetry_rollup FOR UPDATE")
            .fetch_one(&mut *transaction)
            .await?;
        sqlx::query!(
            "DELETE FROM telemetry_late WHERE device_id = $1 AND ($2::integer IS NULL OR metric_id = $2)",
            device_id.0,
            metric_id,
        )
        .execute(&mut *transaction)
        .await?;
        let minutes = sqlx::query!(
            "DELETE FROM telemetry_minutes WHERE device_id = $1 AND ($2::integer IS NULL OR metric_id = $2)",
            device_id.0,
            metric_id,
        )
        .execute(&mut *transaction)
        .await?;
        let hours = sqlx::query!(
            "DELETE FROM telemetry_hours WHERE device_id = $1 AND ($2::integer IS NULL OR metric_id = $2)",
            device_id.0,
            metric_id,
        )
        .execute(&mut *transaction)
        .await?;
        // A metric goes on: what has come meanwhile is rolled up anew.
        if let Some(metric_id) = metric_id {
            sqlx::query!(
                "INSERT INTO telemetry_late (device_id, metric_id, since, until)
                 SELECT $1, $2, hour, hour + interval '1 hour'
                 FROM (SELECT DISTINCT date_bin('1 hour', at, '2001-01-01T00:00:00Z') AS hour
                       FROM telemetry WHERE device_id = $1 AND metric_id = $2) AS hours",
                device_id.0,
                metric_id,
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(minutes.rows_affected() + hours.rows_affected())
    }
}

/// Takes the oldest notes, none of them more than a day younger than the first: so few partitions are read.
async fn take(connection: &mut PgConnection, limit: i64) -> Result<Vec<Late>> {
    Ok(sqlx::query_as!(
        Late,
        "DELETE FROM telemetry_late WHERE ctid = ANY(ARRAY(
             SELECT ctid FROM telemetry_late
             WHERE since < (SELECT min(since) FROM telemetry_late) + interval '1 day' ORDER BY since LIMIT $1))
         RETURNING device_id, metric_id, since, until",
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// One note per series and hour.
fn merged(notes: Vec<Late>) -> Vec<Late> {
    let mut merged: BTreeMap<(i64, i32, DateTime<Utc>), Late> = BTreeMap::new();
    for note in notes {
        let hour = note
            .since
            .duration_trunc(TimeDelta::hours(1))
            .unwrap_or(note.since);
        merged
            .entry((note.device_id, note.metric_id, hour))
            .and_modify(|known| {
                known.since = known.since.min(note.since);
                known.until = known.until.max(note.until);
            })
            .or_insert(note);
    }
    merged.into_values().collect()
}

/// Computes the minutes of these notes again, and their hours as far as hours are made.
async fn settle(connection: &mut PgConnection, late: &[Late], rolled: DateTime<Utc>) -> Result<()> {
    let (Some(first), Some(last)) = (
        late.iter().map(|late| late.since).min(),
        late.iter().map(|late| late.until).max(),
    ) else {
        return Ok(());
    };
    // The planner leaves out the partitions before and behind; a note may reach to the end of its hour.
    let hour = TimeDelta::hours(1);
    let (first, last) = (first - hour, last + hour);
    let devices: Vec<i64> = late.iter().map(|late| late.device_id).collect();
    let metrics: Vec<i32> = late.iter().map(|late| late.metric_id).collect();
    let since: Vec<DateTime<Utc>> = late.iter().map(|late| late.since).collect();
    let until: Vec<DateTime<Utc>> = late.iter().map(|late| late.until.min(rolled)).collect();
    sqlx::query!(
        "WITH b AS (
             SELECT l.device_id, l.metric_id, date_bin('1 minute', t.at, '2001-01-01T00:00:00Z') AS minute,
                    max(t.at) AS last_at, count(*) AS samples, count(t.number) + count(t.flag) AS numbers,
                    min(coalesce(t.number, t.flag::int)) AS min, max(coalesce(t.number, t.flag::int)) AS max,
                    sum(least(greatest(coalesce(t.number, t.flag::int), -1e290), 1e290))
                        FILTER (WHERE t.text IS NULL) AS sum
             FROM unnest($1::bigint[], $2::integer[], $3::timestamptz[], $4::timestamptz[])
                  AS l (device_id, metric_id, since, until)
             CROSS JOIN LATERAL (
                 SELECT t.at, t.number, t.flag, t.text FROM telemetry t
                 WHERE t.device_id = l.device_id AND t.metric_id = l.metric_id AND t.at >= l.since AND t.at < l.until
                   AND t.at >= $5 AND t.at < $6
                 OFFSET 0) t
             GROUP BY l.device_id, l.metric_id, minute)
         INSERT INTO telemetry_minutes AS m (device_id, metric_id, at, last_at, samples, numbers, min, max, sum,
                                             last_number, last_flag, last_text)
         SELECT b.device_id, b.metric_id, b.minute, b.last_at, b.samples, b.numbers, b.min, b.max, b.sum,
                t.number, t.flag, t.text
         FROM b CROSS JOIN LATERAL (
             SELECT t.number, t.flag, t.text FROM telemetry t
             WHERE t.device_id = b.device_id AND t.metric_id = b.metric_id AND t.at = b.last_at AND t.at >= $5 AND t.at < $6
             OFFSET 0) t
         ON CONFLICT (device_id, metric_id, at) DO UPDATE SET
             last_at = excluded.last_at, samples = excluded.samples, numbers = excluded.numbers, min = excluded.min,
             max = excluded.max, sum = excluded.sum, last_number = excluded.last_number,
             last_flag = excluded.last_flag, last_text = excluded.last_text",
        &devices,
        &metrics,
        &since,
        &until,
        first,
        last,
    )
    .execute(&mut *connection)
    .await?;
    // From the samples as well: the other minutes of a long past hour may have been dropped.
    sqlx::query!(
        "WITH b AS (
             SELECT l.device_id, l.metric_id, l.hour,
                    max(t.at) AS last_at, count(*) AS samples, count(t.number) + count(t.flag) AS numbers,
                    min(coalesce(t.number, t.flag::int)) AS min, max(coalesce(t.number, t.flag::int)) AS max,
                    sum(least(greatest(coalesce(t.number, t.flag::int), -1e290), 1e290))
                        FILTER (WHERE t.text IS NULL) AS sum
             FROM (SELECT device_id, metric_id, date_bin('1 hour', since, '2001-01-01T00:00:00Z') AS hour
                   FROM unnest($1::bigint[], $2::integer[], $3::timestamptz[]) AS l (device_id, metric_id, since)) AS l
             CROSS JOIN LATERAL (
                 SELECT t.at, t.number, t.flag, t.text FROM telemetry t
                 WHERE t.device_id = l.device_id AND t.metric_id = l.metric_id
                   AND t.at >= l.hour AND t.at < l.hour + interval '1 hour' AND t.at >= $4 AND t.at < $5
                 OFFSET 0) t
             WHERE l.hour + interval '1 hour' <= $6
             GROUP BY l.device_id, l.metric_id, l.hour)
         INSERT INTO telemetry_hours AS h (device_id, metric_id, at, last_at, samples, numbers, min, max, sum,
                                           last_number, last_flag, last_text)
         SELECT b.device_id, b.metric_id, b.hour, b.last_at, b.samples, b.numbers, b.min, b.max, b.sum,
                t.number, t.flag, t.text
         FROM b CROSS JOIN LATERAL (
             SELECT t.number, t.flag, t.text FROM telemetry t
             WHERE t.device_id = b.device_id AND t.metric_id = b.metric_id AND t.at = b.last_at AND t.at >= $4 AND t.at < $5
             OFFSET 0) t
         ON CONFLICT (device_id, metric_id, at) DO UPDATE SET
             last_at = excluded.last_at, samples = excluded.samples, numbers = excluded.numbers, min = excluded.min,
             max = excluded.max, sum = excluded.sum, last_number = excluded.last_number,
             last_flag = excluded.last_flag, last_text = excluded.last_text",
        &devices,
        &metrics,
        &since,
        first,
        last,
        rolled,
    )
    .execute(connection)
    .await?;
    Ok(())
}
