//! The removal of telemetry in small steps: of one metric of a device, and what is common with that of deleted devices
//! ([`super::purges`]).
//!
//! A removal is a row that says what is to go. Whoever holds its lease works on it; what was done is done, and anybody can
//! go on with the rest.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use setpoint_model::{DeviceId, Serial};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{end, rollups::hold_marks};
use crate::{
    Result, Store,
    audit::{self, NewEntry},
    settings::parse,
};

/// A device's metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The device.
    pub device_id: DeviceId,
    /// Its serial.
    pub serial: Serial,
    /// The metric.
    pub metric_id: i32,
}

/// Whose turn it is to work on a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The caller's, until the lease ends.
    Ours,
    /// Somebody else's.
    Theirs,
    /// Nobody's: it is done.
    Done,
}

/// A removal that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// What is removed.
    pub series: Series,
    /// Whether it was done, and what came late is left to be removed.
    pub done: bool,
}

/// Until when a step may be taken, and what follows it: leases are taken from `now` until `until`.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// The present time.
    pub now: DateTime<Utc>,
    /// Nobody else takes it before this.
    pub until: DateTime<Utc>,
    /// What ended before this is settled: nothing of it can be on its way any more.
    pub settled: DateTime<Utc>,
}

/// The notes of late samples, which go with the samples.
const NOTES: &str = "telemetry_late";

impl Store {
    /// The id of a metric that a device has sent, or whose removal is not long ago; `None` if it never did.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn device_metric(&self, device_id: DeviceId, name: &str) -> Result<Option<i32>> {
        Ok(sqlx::query_scalar!(
            "SELECT m.id FROM metrics m WHERE m.name = $2
               AND (EXISTS (SELECT FROM device_metrics s WHERE s.metric_id = m.id AND s.device_id = $1)
                    OR EXISTS (SELECT FROM telemetry_removals r WHERE r.metric_id = m.id AND r.device_id = $1))",
            device_id.0,
            name,
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Notes that a metric of a device is to be removed, unless that is so already, with an entry in the audit log; and takes
    /// the lease of it if nobody has it.
    ///
    /// # Errors
    /// [`crate::Error::Reference`] when the device is gone.
    pub async fn begin_removal(&self, series: &Series, lease: Lease, entry: &NewEntry) -> Result<Turn> {
        let mut transaction = self.pool.begin().await?;
        let turn = begin(&mut transaction, series, lease, entry).await;
        end(transaction, turn).await
    }

    /// Takes the leases of at most `limit` removals of metrics that are due: those that are not done, and those that are and
    /// are settled.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due_removals(&self, lease: Lease, limit: i64) -> Result<Vec<Removal>> {
        let rows = sqlx::query!(
            r#"WITH due AS (
                   SELECT device_id, metric_id FROM telemetry_removals
                   WHERE next_at <= $1 AND (done_at IS NULL OR done_at < $3)
                   ORDER BY next_at LIMIT $4 FOR UPDATE SKIP LOCKED)
               UPDATE telemetry_removals r SET next_at = $2 FROM due, devices d
               WHERE r.device_id = due.device_id AND r.metric_id = due.metric_id AND d.id = r.device_id
               RETURNING r.device_id, r.metric_id, d.serial, r.done_at IS NOT NULL AS "done!""#,
            lease.now,
            lease.until,
            lease.settled,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        let removal = |serial: &str, device_id, metric_id, done| {
            Ok(Removal {
                series: Series {
                    device_id: DeviceId(device_id),
                    serial: parse::<Serial>(serial)?,
                    metric_id,
                },
                done,
            })
        };
        rows.into_iter()
            .map(|row| removal(&row.serial, row.device_id, row.metric_id, row.done))
            .collect()
    }

    /// Gives the lease of a removal back: anybody may go on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release_removal(&self, series: &Series, at: DateTime<Utc>) -> Result<()> {
        sqlx::query!(
            "UPDATE telemetry_removals SET next_at = $3 WHERE device_id = $1 AND metric_id = $2",
            series.device_id.0,
            series.metric_id,
            at,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// All tables where telemetry is: of samples first, then of roll-ups and of notes. `true` for samples.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn all_telemetry_tables(&self) -> Result<Vec<(String, bool)>> {
        let samples = self.telemetry_partitions().await?.len();
        let tables = self
            .telemetry_tables(DateTime::<Utc>::MIN_UTC, NaiveDate::MAX)
            .await?
            .into_iter()
            .chain([NOTES.to_owned()]);
        Ok(tables
            .enumerate()
            .map(|(index, table)| (table, index < samples))
            .collect())
    }

    /// Deletes at most `limit` rows of these devices, of one metric or of all, from one of [`Self::all_telemetry_tables`].
    /// Returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_telemetry_rows(
        &self,
        table: &str,
        devices: &[DeviceId],
        metric_id: Option<i32>,
        limit: i64,
    ) -> Result<u64> {
        let ids: Vec<i64> = devices.iter().map(|device| device.0).collect();
        let metric = metric_id.map_or(String::new(), |id| format!(" AND metric_id = {id}"));
        let delete = format!(
            "DELETE FROM \"{table}\" WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM \"{table}\" WHERE device_id = ANY($1){metric} LIMIT $2))"
        );
        let deleted = sqlx::query(AssertSqlSafe(delete))
            // Few of the many texts come again.
            .persistent(false)
            .bind(ids)
            .bind(limit)
            .execute(&self.pool)
            .await?;
        Ok(deleted.rows_affected())
    }

    /// Completes a removal whose rows were deleted: has the device never have sent the metric, so that its next sample decides
    /// of which type it is, and tells the other servers. What has come meanwhile stays, as a whole: its roll-ups are made
    /// anew. Returns whether it is done; `false` when the roll-ups were at work for longer than `patience`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn finish_removal(
        &self,
        series: &Series,
        at: DateTime<Utc>,
        patience: Duration,
    ) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("SELECT set_config('lock_timeout', $1, true)")
            .bind(format!("{}ms", patience.as_millis().max(1)))
            .execute(&mut *transaction)
            .await?;
        match hold_marks(&mut transaction).await {
            Ok(()) => {
                let finished = finish(&mut transaction, series, at).await;
                end(transaction, finished).await?;
                Ok(true)
            }
            held => {
                let _ = transaction.rollback().await;
                held.or_else(|error| {
                    if error.is_unavailable() {
                        Ok(())
                    } else {
                        Err(error)
                    }
                })?;
                Ok(false)
            }
        }
    }

    /// Forgets a removal that is settled.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_removal(&self, series: &Series) -> Result<()> {
        sqlx::query!(
            "DELETE FROM telemetry_removals WHERE device_id = $1 AND metric_id = $2 AND done_at IS NOT NULL",
            series.device_id.0,
            series.metric_id,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

async fn begin(
    connection: &mut PgConnection,
    series: &Series,
    lease: Lease,
    entry: &NewEntry,
) -> Result<Turn> {
    let known = sqlx::query!(
        r#"SELECT r.next_at <= $3 AS "free!", r.done_at IS NOT NULL AS "done!",
                  EXISTS (SELECT FROM device_metrics s WHERE s.device_id = $1 AND s.metric_id = $2) AS "sent!"
           FROM telemetry_removals r WHERE r.device_id = $1 AND r.metric_id = $2 FOR UPDATE OF r"#,
        series.device_id.0,
        series.metric_id,
        lease.now,
    )
    .fetch_optional(&mut *connection)
    .await?;
    match &known {
        Some(known) if known.done && !known.sent => return Ok(Turn::Done),
        Some(known) if !known.done && !known.free => return Ok(Turn::Theirs),
        Some(known) if !known.done => {}
        _ => audit::write(&mut *connection, entry).await?,
    }
    sqlx::query!(
        "INSERT INTO telemetry_removals AS r (device_id, metric_id, requested_at, next_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (device_id, metric_id) DO UPDATE
         SET next_at = excluded.next_at, done_at = NULL,
             requested_at = CASE WHEN r.done_at IS NULL THEN r.requested_at ELSE excluded.requested_at END",
        series.device_id.0,
        series.metric_id,
        lease.now,
        lease.until,
    )
    .execute(connection)
    .await?;
    Ok(Turn::Ours)
}

/// Deletes roll-ups and notes that are few: what was made since the steps before.
pub(super) async fn delete_rollups(
    connection: &mut PgConnection,
    device_id: i64,
    metric_id: Option<i32>,
) -> Result<()> {
    sqlx::query!(
        "DELETE FROM telemetry_late WHERE device_id = $1 AND ($2::integer IS NULL OR metric_id = $2)",
        device_id,
        metric_id,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "DELETE FROM telemetry_minutes WHERE device_id = $1 AND ($2::integer IS NULL OR metric_id = $2)",
        device_id,
        metric_id,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "DELETE FROM telemetry_hours WHERE device_id = $1 AND ($2::integer IS NULL OR metric_id = $2)",
        device_id,
        metric_id,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn finish(connection: &mut PgConnection, series: &Series, at: DateTime<Utc>) -> Result<()> {
    let (device_id, metric_id) = (series.device_id.0, series.metric_id);
    delete_rollups(&mut *connection, device_id, Some(metric_id)).await?;
    sqlx::query!(
        "INSERT INTO telemetry_late (device_id, metric_id, since, until)
         SELECT $1, $2, hour, hour + interval '1 hour'
         FROM (SELECT DISTINCT date_bin('1 hour', at, '2001-01-01T00:00:00Z') AS hour
               FROM telemetry WHERE device_id = $1 AND metric_id = $2) AS hours",
        device_id,
        metric_id,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        r#"WITH gone AS (DELETE FROM device_metrics WHERE device_id = $1 AND metric_id = $2 RETURNING 1),
                done AS (UPDATE telemetry_removals SET done_at = $4, next_at = $4
                         WHERE device_id = $1 AND metric_id = $2)
           SELECT tell_servers('device', $3) IS NULL AS "told!" FROM gone"#,
        device_id,
        metric_id,
        series.serial.as_str(),
        at,
    )
    .fetch_optional(connection)
    .await?;
    Ok(())
}
