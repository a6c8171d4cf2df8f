//! `[settings]` and `[telemetry]`: limits and batches of the application.

use std::time::Duration;

use serde::Deserialize;

use super::{error::Invalid, units};

/// Limits of settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The largest document, in bytes of JSON.
    #[serde(deserialize_with = "units::size")]
    pub max_document: usize,
    /// How deep a document may nest.
    pub max_depth: usize,
    /// How often the publisher looks without a hint.
    #[serde(deserialize_with = "units::duration")]
    pub reconcile_every: Duration,
}

/// Limits and batches of telemetry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// The most samples in one message or request.
    pub max_batch: usize,
    /// The most metrics in one sample.
    pub max_metrics: usize,
    /// The longest text value, in characters.
    pub max_text: usize,
    /// The most rows in one commit.
    pub batch_rows: usize,
    /// How long a commit waits for more rows.
    #[serde(deserialize_with = "units::duration")]
    pub batch_wait: Duration,
    /// The most samples waiting for a commit.
    pub max_queue: usize,
    /// How far ahead of the server's clock a sample may be.
    #[serde(deserialize_with = "units::duration")]
    pub max_clock_skew: Duration,
}

impl Settings {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        positive("settings.max_document", self.max_document)?;
        positive("settings.max_depth", self.max_depth)?;
        if self.reconcile_every.is_zero() {
            return Err(Invalid::new("settings.reconcile_every", "more than 0s"));
        }
        Ok(())
    }
}

impl Telemetry {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        positive("telemetry.max_batch", self.max_batch)?;
        positive("telemetry.max_metrics", self.max_metrics)?;
        positive("telemetry.max_text", self.max_text)?;
        positive("telemetry.batch_rows", self.batch_rows)?;
        if self.max_queue < self.max_batch {
            return Err(Invalid::new(
                "telemetry.max_queue",
                "at least telemetry.max_batch",
            ));
        }
        Ok(())
    }
}

fn positive(key: &'static str, value: usize) -> Result<(), Invalid> {
    if value == 0 {
        Err(Invalid::new(key, "at least 1"))
    } else {
        Ok(())
    }
}
