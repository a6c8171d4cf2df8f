//! Appending samples: COPY straight into the table, and by way of a staging table when there are duplicates.

use sqlx::PgConnection;

use super::{Rows, end, rollups};
use crate::{Result, Store};

/// The columns in the order in which [`Rows`] encodes them.
macro_rules! copy_into {
    ($table:literal) => {
        concat!(
            "COPY ",
            $table,
            " (device_id, metric_id, at, number, flag, text) FROM STDIN (FORMAT binary)"
        )
    };
}

/// The statement of [`Store::append_telemetry`], for the benchmark that compares ways to write.
pub const APPEND_TARGET: &str = copy_into!("telemetry");

impl Store {
    /// Appends rows that are expected to be new; all of them or none. Returns how many.
    ///
    /// The fastest way, at the price that one duplicate refuses all.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] when a row is there already or comes twice: use [`Self::merge_telemetry`].
    /// [`crate::Error::Invalid`] when no partition covers a row's time.
    pub async fn append_telemetry(&self, rows: &Rows) -> Result<u64> {
        let mut transaction = self.pool.begin().await?;
        let appended = append(&mut transaction, rows).await;
        end(transaction, appended).await
    }

    /// Appends the rows that are not there yet, in one transaction. Returns how many were new.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] when no partition covers a row's time.
    pub async fn merge_telemetry(&self, rows: &Rows) -> Result<u64> {
        let mut transaction = self.pool.begin().await?;
        let merged = merge(&mut transaction, rows).await;
        end(transaction, merged).await
    }
}

async fn append(connection: &mut PgConnection, rows: &Rows) -> Result<u64> {
    let watermark = rollups::hold(connection).await?;
    let mut copy = connection.copy_in_raw(APPEND_TARGET).await?;
    copy.send(rows.to_copy()).await?;
    let appended = copy.finish().await?;
    rollups::note(connection, &rows.late(watermark)).await?;
    Ok(appended)
}

async fn merge(connection: &mut PgConnection, rows: &Rows) -> Result<u64> {
    let watermark = rollups::hold(connection).await?;
    stage(connection, rows).await?;
    let merged = sqlx::query(
        "INSERT INTO telemetry (device_id, metric_id, at, number, flag, text)
         SELECT device_id, metric_id, at, number, flag, text FROM telemetry_staging
         ON CONFLICT DO NOTHING",
    )
    .execute(&mut *connection)
    .await?;
    rollups::note(connection, &rows.late(watermark)).await?;
    Ok(merged.rows_affected())
}

/// Fills this connection's staging table, which empties itself at commit.
async fn stage(connection: &mut PgConnection, rows: &Rows) -> Result<()> {
    sqlx::query(
        "CREATE TEMPORARY TABLE IF NOT EXISTS telemetry_staging
         (device_id bigint, metric_id integer, at timestamptz, number double precision, flag boolean, text text)
         ON COMMIT DELETE ROWS",
    )
    .execute(&mut *connection)
    .await?;
    let mut copy = connection.copy_in_raw(copy_into!("telemetry_staging")).await?;
    copy.send(rows.to_copy()).await?;
    copy.finish().await?;
    Ok(())
}
