//! Telemetry in the database: appending, reading, roll-ups, partitions and purges.

mod append;
mod buckets;
mod catalog;
mod group;
mod history;
mod partitions;
mod pieces;
mod purges;
mod removal;
mod retention;
mod rollups;
mod rows;
mod storage;
mod strays;

use sqlx::{Postgres, Transaction};

use crate::Result;

pub use append::APPEND_TARGET;
pub use buckets::{BucketPosition, BucketReading, Buckets};
pub use catalog::{DeviceMetric, TelemetryDevice};
pub use group::{Fleet, LatestOf, SeriesCount};
pub use history::{History, Latest, Position, Reading};
pub use partitions::Partition;
pub use removal::{Lease, Removal, Series, Turn};
pub use retention::ExpiredDevices;
pub use rollups::{Marks, Rollup, Step, Sweep};
pub use rows::Rows;
pub use storage::{Storage, TableSize};

#[cfg(test)]
mod tests;

/// Commits, or takes back at once rather than when the connection is next used: what it holds, others wait for.
async fn end<T>(transaction: Transaction<'_, Postgres>, outcome: Result<T>) -> Result<T> {
    match outcome {
        Ok(value) => {
            transaction.commit().await?;
            Ok(value)
        }
        Err(error) => {
            // Without a connection it is taken back by the server.
            let _ = transaction.rollback().await;
            Err(error)
        }
    }
}
