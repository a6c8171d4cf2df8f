//! Telemetry in the database: appending, reading, partitions and purges.

mod append;
mod catalog;
mod history;
mod partitions;
mod removal;
mod rows;

pub use append::APPEND_TARGET;
pub use catalog::{DeviceMetric, TelemetryDevice};
pub use history::{History, Latest, Position, Reading};
pub use partitions::Partition;
pub use rows::Rows;

#[cfg(test)]
mod tests;
