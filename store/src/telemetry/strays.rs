//! Samples that were on their way to a commit when their metric was removed.

use chrono::{DateTime, Utc};
use setpoint_model::telemetry::Kind;
use sqlx::{AssertSqlSafe, PgConnection};

use super::{Series, end, rollups::hold_marks};
use crate::{Result, Store, settings::parse};

impl Store {
    /// Removes what was on its way to a commit when its metric was removed, at most `limit` samples of a partition: all of it,
    /// or what is of another type than the metric has by now. Returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_strays(&self, table: &str, series: &Series, limit: i64) -> Result<u64> {
        let mut transaction = self.pool.begin().await?;
        let removed = strays(&mut transaction, table, series, limit).await;
        end(transaction, removed).await
    }
}

async fn strays(connection: &mut PgConnection, table: &str, series: &Series, limit: i64) -> Result<u64> {
    let (device_id, metric_id) = (series.device_id.0, series.metric_id);
    let kind = sqlx::query_scalar!(
        "SELECT type FROM device_metrics WHERE device_id = $1 AND metric_id = $2",
        device_id,
        metric_id,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let kind = kind.flatten().map(|kind| parse::<Kind>(&kind)).transpose()?;
    let other = match kind {
        None => "true",
        Some(Kind::Number) => "number IS NULL",
        Some(Kind::Boolean) => "flag IS NULL",
        Some(Kind::String) => "text IS NULL",
    };
    let delete = format!(
        "DELETE FROM \"{table}\" WHERE ctid = ANY(ARRAY(
             SELECT ctid FROM \"{table}\" WHERE device_id = $1 AND metric_id = $2 AND {other} LIMIT $3))
         RETURNING date_bin('1 hour', at, '2001-01-01T00:00:00Z')"
    );
    let mut hours: Vec<DateTime<Utc>> = sqlx::query_scalar(AssertSqlSafe(delete))
        .persistent(false)
        .bind(device_id)
        .bind(metric_id)
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?;
    let gone = hours.len() as u64;
    hours.sort_unstable();
    hours.dedup();
    if hours.is_empty() {
        return Ok(0);
    }
    // Their roll-ups are made anew from what is left, which may be nothing.
    hold_marks(&mut *connection).await?;
    let (first, last) = (hours.first().copied(), hours.last().copied());
    sqlx::query!(
        "WITH minutes AS (
             DELETE FROM telemetry_minutes WHERE device_id = $1 AND metric_id = $2
             AND at >= $4 AND at < $5::timestamptz + interval '1 hour'
             AND date_bin('1 hour', at, '2001-01-01T00:00:00Z') = ANY($3)),
         hours AS (
             DELETE FROM telemetry_hours WHERE device_id = $1 AND metric_id = $2 AND at >= $4 AND at <= $5 AND at = ANY($3))
         INSERT INTO telemetry_late (device_id, metric_id, since, until)
         SELECT $1, $2, hour, hour + interval '1 hour' FROM unnest($3::timestamptz[]) AS hour",
        device_id,
        metric_id,
        &hours,
        first,
        last,
    )
    .execute(connection)
    .await?;
    Ok(gone)
}
