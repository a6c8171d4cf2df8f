//! Roll-ups by minute and hour: how they follow the samples (`migrations/0100_telemetry_rollups.sql` tells the idea).

/// Writes rows of a roll-up, in the order of its columns here; a row that is there already is replaced. The table and the
/// rows' statement are literals, so that both are checked when this is compiled.
macro_rules! upsert {
    ($table:tt, [$($rows:tt)*], $($bound:expr),+ $(,)?) => {
        sqlx::query!(
            "INSERT INTO " + $table + " AS r (device_id, metric_id, at, last_at, samples, numbers, min, max, sum,
                                              last_number, last_flag, last_text) "
                + $($rows)*
                + " ON CONFLICT (device_id, metric_id, at) DO UPDATE SET
                 last_at = excluded.last_at, samples = excluded.samples, numbers = excluded.numbers,
                 min = excluded.min, max = excluded.max, sum = excluded.sum, last_number = excluded.last_number,
                 last_flag = excluded.last_flag, last_text = excluded.last_text",
            $($bound),+
        )
    };
}

mod late;
mod minutes;
mod partitions;
mod sweep;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Postgres, Transaction};

use crate::{Result, Store};

pub use partitions::Rollup;
pub use sweep::{Step, Sweep};

/// Where the roll-ups are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// What is written before this is noted as late.
    pub announced: DateTime<Utc>,
    /// The minutes before this are made, and the hours that end before it.
    pub rolled: DateTime<Utc>,
    /// Before this samples were dropped for their age.
    pub raw_from: DateTime<Utc>,
    /// Before this minutes were.
    pub minutes_from: DateTime<Utc>,
    /// Before this hours were.
    pub hours_from: DateTime<Utc>,
}

/// A part of one hour of one series, in whole minutes, whose roll-ups are to be computed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) device_id: i64,
    pub(super) metric_id: i32,
    pub(super) since: DateTime<Utc>,
    pub(super) until: DateTime<Utc>,
}

/// Holds the watermark where it is until the end of the transaction. Returns it: what is written before it is late.
pub(super) async fn hold(connection: &mut PgConnection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar!(r#"SELECT telemetry_hold() AS "watermark!""#)
        .fetch_one(connection)
        .await?)
}

/// Waits for who is at work on the roll-ups, and may have read the samples before they went.
pub(super) async fn hold_marks(connection: &mut PgConnection) -> Result<()> {
    sqlx::query!("SELECT rolled FROM telemetry_rollup FOR UPDATE")
        .fetch_one(connection)
        .await?;
    Ok(())
}

/// Notes what came late, in the transaction of the samples.
pub(super) async fn note(connection: &mut PgConnection, late: &[Late]) -> Result<()> {
    if late.is_empty() {
        return Ok(());
    }
    let devices: Vec<i64> = late.iter().map(|late| late.device_id).collect();
    let metrics: Vec<i32> = late.iter().map(|late| late.metric_id).collect();
    let since: Vec<DateTime<Utc>> = late.iter().map(|late| late.since).collect();
    let until: Vec<DateTime<Utc>> = late.iter().map(|late| late.until).collect();
    sqlx::query!(
        "INSERT INTO telemetry_late (device_id, metric_id, since, until)
         SELECT * FROM unnest($1::bigint[], $2::integer[], $3::timestamptz[], $4::timestamptz[])",
        &devices,
        &metrics,
        &since,
        &until,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Where the roll-ups are, as this transaction sees it.
pub(super) async fn marks(connection: &mut PgConnection) -> Result<Marks> {
    Ok(sqlx::query_as!(
        Marks,
        "SELECT announced, rolled, raw_from, minutes_from, hours_from FROM telemetry_rollup"
    )
    .fetch_one(connection)
    .await?)
}

/// The same, held against everybody else who would move them; `None` while somebody does.
async fn claim(transaction: &mut Transaction<'_, Postgres>) -> Result<Option<Marks>> {
    // Each of these statements has its own sense of time, and no use for a plan over all partitions. A step is small,
    // but a minute at full speed on a slow machine may take longer than a request should.
    sqlx::raw_sql("SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL statement_timeout = '5min'")
        .execute(&mut **transaction)
        .await?;
    Ok(sqlx::query_as!(
        Marks,
        "SELECT announced, rolled, raw_from, minutes_from, hours_from FROM telemetry_rollup FOR UPDATE SKIP LOCKED"
    )
    .fetch_optional(&mut **transaction)
    .await?)
}

impl Store {
    /// Where the roll-ups are, and how many notes of late samples wait (counted up to 100,000).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rollup_marks(&self) -> Result<(Marks, i64)> {
        let mut connection = self.pool.acquire().await?;
        let marks = marks(&mut connection).await?;
        let late = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM (SELECT FROM telemetry_late LIMIT 100000) AS late"#
        )
        .fetch_one(&mut *connection)
        .await?;
        Ok((marks, late))
    }
}
