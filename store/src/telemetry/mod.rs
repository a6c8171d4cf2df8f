//! Telemetry in the database: appending, reading, roll-ups, partitions and purges.

mod append;
mod buckets;
mod catalog;
mod group;
mod history;
mod partitions;
mod pieces;
mod removal;
mod rollups;
mod rows;

pub use append::APPEND_TARGET;
pub use buckets::{BucketPosition, BucketReading, Buckets};
pub use catalog::{DeviceMetric, TelemetryDevice};
pub use group::{Fleet, LatestOf, SeriesCount};
pub use history::{History, Latest, Position, Reading};
pub use partitions::Partition;
pub use rollups::{Marks, Rollup, Sweep};
pub use rows::Rows;

#[cfg(test)]
mod tests;
