//! Telemetry: what a device may send, and how a reader may ask for it.

mod fill;
mod moment;
mod parse;
mod payload;
mod query;
mod value;
mod visit;

pub use fill::{Fill, InvalidFill};
pub use moment::{InvalidMoment, Moment};
pub use parse::parse;
pub use payload::{Limits, Malformed, Parsed, Problem, Problems, Reason, Sample, Stamp, Window};
pub use query::{Aggregate, Bucket, InvalidAggregate, InvalidBucket, InvalidMetrics, MetricList};
pub use value::{InvalidKind, Kind, Value, is_metric_name};

#[cfg(test)]
mod tests;
