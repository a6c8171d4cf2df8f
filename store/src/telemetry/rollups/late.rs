//! Late samples: their minutes and hours are computed again from the samples.

use std::collections::BTreeMap;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
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
                settle(&mut transaction, late, marks.rolled).await?;
                Some(count as u64)
            }
            _ => None,
        };
        transaction.commit().await?;
        Ok(settled)
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

/// Computes roll-ups of these spans again from the samples. Both tables are made from them: the other minutes of a long past
/// hour may have been dropped. Each span's samples are looked for by themselves, and its newest one once more by its key.
macro_rules! recompute {
    ($connection:expr, $table:tt, $width:tt, $spans:expr) => {{
        let spans: &[Late] = $spans;
        let (Some(first), Some(last)) = (
            spans.iter().map(|span| span.since).min(),
            spans.iter().map(|span| span.until).max(),
        ) else {
            return Ok(());
        };
        let devices: Vec<i64> = spans.iter().map(|span| span.device_id).collect();
        let metrics: Vec<i32> = spans.iter().map(|span| span.metric_id).collect();
        let since: Vec<DateTime<Utc>> = spans.iter().map(|span| span.since).collect();
        let until: Vec<DateTime<Utc>> = spans.iter().map(|span| span.until).collect();
        upsert!(
            $table,
            ["SELECT b.device_id, b.metric_id, b.bucket, b.last_at, b.samples, b.numbers, b.min, b.max, b.sum,
                    t.number, t.flag, t.text
             FROM (
                 SELECT l.device_id, l.metric_id, date_bin('"
                + $width
                + "', t.at, '2001-01-01T00:00:00Z') AS bucket,
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
                 GROUP BY l.device_id, l.metric_id, bucket) b
             CROSS JOIN LATERAL (
                 SELECT t.number, t.flag, t.text FROM telemetry t
                 WHERE t.device_id = b.device_id AND t.metric_id = b.metric_id AND t.at = b.last_at
                   AND t.at >= $5 AND t.at < $6
                 OFFSET 0) t"],
            &devices,
            &metrics,
            &since,
            &until,
            // The planner leaves out the partitions before and behind.
            first,
            last,
        )
        .execute($connection)
        .await?;
    }};
}

/// Computes the minutes of these notes again, and their hours as far as hours are made.
async fn settle(connection: &mut PgConnection, late: Vec<Late>, rolled: DateTime<Utc>) -> Result<()> {
    let hours: Vec<Late> = late.iter().filter_map(|late| hour_of(late, rolled)).collect();
    settle_minutes(&mut *connection, late, rolled).await?;
    settle_hours(connection, &hours).await
}

async fn settle_minutes(
    connection: &mut PgConnection,
    mut minutes: Vec<Late>,
    rolled: DateTime<Utc>,
) -> Result<()> {
    for late in &mut minutes {
        late.until = late.until.min(rolled);
    }
    recompute!(connection, "telemetry_minutes", "1 minute", &minutes);
    Ok(())
}

async fn settle_hours(connection: &mut PgConnection, hours: &[Late]) -> Result<()> {
    recompute!(connection, "telemetry_hours", "1 hour", hours);
    Ok(())
}

/// All of the hour of a note; `None` while that hour is not made.
fn hour_of(late: &Late, rolled: DateTime<Utc>) -> Option<Late> {
    let since = late.since.duration_trunc(TimeDelta::hours(1)).ok()?;
    let until = since + TimeDelta::hours(1);
    (until <= rolled).then(|| Late {
        since,
        until,
        ..late.clone()
    })
}
