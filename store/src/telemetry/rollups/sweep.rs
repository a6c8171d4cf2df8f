//! The sweep: moves the watermark, and makes the roll-ups of all that it passed.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use sqlx::PgConnection;

use super::{Marks, claim};
use crate::{Result, Store};

/// One step of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// How many minutes of series were made.
    pub minutes: u64,
    /// How many hours of series were made.
    pub hours: u64,
    /// Everything before this is made now.
    pub rolled: DateTime<Utc>,
    /// Whether more is to be made.
    pub more: bool,
}

impl Store {
    /// Moves the watermark on to `until`, a whole minute; it never goes back. Writers wait for an instant. Returns whether
    /// it is there: `false` while another server is at work on the roll-ups.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] when a writer took too long to wait for.
    pub async fn announce_rollups(&self, until: DateTime<Utc>) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        sqlx::raw_sql("SET LOCAL lock_timeout = '2s'")
            .execute(&mut *transaction)
            .await?;
        let moved = sqlx::query_scalar!(r#"SELECT telemetry_announce($1) AS "moved!""#, until)
            .fetch_one(&mut *transaction)
            .await;
        match moved {
            Ok(moved) => {
                transaction.commit().await?;
                Ok(moved)
            }
            Err(error) => {
                // At once: writers wait for this lock.
                let _ = transaction.rollback().await;
                Err(error.into())
            }
        }
    }

    /// Makes the roll-ups of the oldest that is announced and not made yet, at most `widest` of it. `None` when there is
    /// nothing to do, or another server does it.
    ///
    /// # Errors
    /// When the database fails; nothing is done then.
    pub async fn sweep_rollups(&self, widest: TimeDelta) -> Result<Option<Sweep>> {
        let mut transaction = self.pool.begin().await?;
        let swept = match claim(&mut transaction).await? {
            Some(marks) if marks.rolled < marks.announced => {
                let until = marks.announced.min(marks.rolled + widest);
                Some(sweep(&mut transaction, &marks, until).await?)
            }
            _ => None,
        };
        transaction.commit().await?;
        Ok(swept)
    }

    /// Lets the index by time tell of the newest pages: before a sweep, which then reads no more than it needs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn summarize_telemetry(&self, now: DateTime<Utc>) -> Result<()> {
        sqlx::query!("SELECT telemetry_summarize($1)", now.date_naive())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

async fn sweep(connection: &mut PgConnection, marks: &Marks, until: DateTime<Utc>) -> Result<Sweep> {
    // The range is a small part of its partition whatever old statistics say of it: the index by time finds it.
    sqlx::raw_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off")
        .execute(&mut *connection)
        .await?;
    let minutes = minutes(connection, marks.rolled, until).await?;
    let hours = match (hour(marks.rolled), hour(until)) {
        (from, to) if from < to => hours(connection, from, to).await?,
        _ => 0,
    };
    sqlx::query!("UPDATE telemetry_rollup SET rolled = $1", until)
        .execute(connection)
        .await?;
    Ok(Sweep {
        minutes,
        hours,
        rolled: until,
        more: until < marks.announced,
    })
}

/// The beginning of the hour.
fn hour(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at)
}

/// Makes all minutes of a range from the samples.
async fn minutes(connection: &mut PgConnection, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<u64> {
    // A sum of doubles that overflows is an error, and one device's nonsense would stop everybody's roll-ups.
    let made = sqlx::query!(
        "WITH b AS (
             SELECT device_id, metric_id, date_bin('1 minute', at, '2001-01-01T00:00:00Z') AS minute, max(at) AS last_at,
                    count(*) AS samples, count(number) + count(flag) AS numbers,
                    min(coalesce(number, flag::int)) AS min, max(coalesce(number, flag::int)) AS max,
                    sum(least(greatest(coalesce(number, flag::int), -1e290), 1e290))
                        FILTER (WHERE text IS NULL) AS sum
             FROM telemetry WHERE at >= $1 AND at < $2
             GROUP BY device_id, metric_id, minute)
         INSERT INTO telemetry_minutes AS m (device_id, metric_id, at, last_at, samples, numbers, min, max, sum,
                                             last_number, last_flag, last_text)
         SELECT b.device_id, b.metric_id, b.minute, b.last_at, b.samples, b.numbers, b.min, b.max, b.sum,
                t.number, t.flag, t.text
         FROM b JOIN telemetry t ON t.device_id = b.device_id AND t.metric_id = b.metric_id AND t.at = b.last_at
         WHERE t.at >= $1 AND t.at < $2
         ON CONFLICT (device_id, metric_id, at) DO UPDATE SET
             last_at = excluded.last_at, samples = excluded.samples, numbers = excluded.numbers, min = excluded.min,
             max = excluded.max, sum = excluded.sum, last_number = excluded.last_number,
             last_flag = excluded.last_flag, last_text = excluded.last_text",
        from,
        to,
    )
    .execute(connection)
    .await?;
    Ok(made.rows_affected())
}

/// Makes all hours of a range from the minutes.
async fn hours(connection: &mut PgConnection, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<u64> {
    let made = sqlx::query!(
        "WITH b AS (
             SELECT device_id, metric_id, date_bin('1 hour', at, '2001-01-01T00:00:00Z') AS hour, max(at) AS minute,
                    sum(samples) AS samples, sum(numbers) AS numbers, min(min) AS min, max(max) AS max, sum(sum) AS sum
             FROM telemetry_minutes WHERE at >= $1 AND at < $2
             GROUP BY device_id, metric_id, hour)
         INSERT INTO telemetry_hours AS h (device_id, metric_id, at, last_at, samples, numbers, min, max, sum,
                                           last_number, last_flag, last_text)
         SELECT b.device_id, b.metric_id, b.hour, m.last_at, b.samples, b.numbers, b.min, b.max, b.sum,
                m.last_number, m.last_flag, m.last_text
         FROM b JOIN telemetry_minutes m ON m.device_id = b.device_id AND m.metric_id = b.metric_id AND m.at = b.minute
         WHERE m.at >= $1 AND m.at < $2
         ON CONFLICT (device_id, metric_id, at) DO UPDATE SET
             last_at = excluded.last_at, samples = excluded.samples, numbers = excluded.numbers, min = excluded.min,
             max = excluded.max, sum = excluded.sum, last_number = excluded.last_number,
             last_flag = excluded.last_flag, last_text = excluded.last_text",
        from,
        to,
    )
    .execute(connection)
    .await?;
    Ok(made.rows_affected())
}
