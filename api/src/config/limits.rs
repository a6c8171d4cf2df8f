//! `[settings]`, `[telemetry]`, `[timeline]` and `[events]`: limits and batches of the application.

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
    /// The largest model, in bytes of JSON.
    #[serde(deserialize_with = "units::size")]
    pub max_model: usize,
    /// How often the publisher looks without a hint.
    #[serde(deserialize_with = "units::duration")]
    pub reconcile_every: Duration,
    /// How long the answer to a change waits for its publication.
    #[serde(deserialize_with = "units::duration")]
    pub publish_wait: Duration,
    /// Within which time a device is expected to answer a version.
    #[serde(deserialize_with = "units::duration")]
    pub expected_within: Duration,
    /// How many groups there may be.
    pub max_groups: u32,
}

/// Limits of schedules.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedules {
    /// The most schedules of one device.
    pub max_per_device: u32,
    /// The most schedules of one group.
    pub max_per_group: u32,
    /// The most days that a preview may cover.
    pub max_preview_days: u16,
}

/// Limits and batches of telemetry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// The most samples in one message or request.
    pub max_batch: usize,
    /// The most metrics in one sample.
    pub max_metrics: usize,
    /// The longest text value, in bytes.
    pub max_text: usize,
    /// The most metrics that one device may ever make up.
    pub max_metrics_per_device: usize,
    /// The most rows in one commit.
    pub batch_rows: usize,
    /// The least time between the beginnings of two commits that are not full.
    #[serde(deserialize_with = "units::duration")]
    pub batch_wait: Duration,
    /// Commits at once, each on a connection of its own.
    pub writers: usize,
    /// The most samples waiting for a commit.
    pub max_queue: usize,
    /// How far ahead of the server's clock a sample may be.
    #[serde(deserialize_with = "units::duration")]
    pub max_clock_skew: Duration,
    /// How long samples are kept.
    #[serde(deserialize_with = "units::duration")]
    pub retention: Duration,
    /// The most points of an answer that is worked out as a whole.
    pub max_points: usize,
    /// The most devices of a query over many.
    pub max_group_devices: usize,
    /// The longest that one may take.
    #[serde(deserialize_with = "units::duration")]
    pub group_timeout: Duration,
    /// Streams of history at once.
    pub max_exports: usize,
    /// For how long one request deletes samples of a metric.
    #[serde(deserialize_with = "units::duration")]
    pub delete_within: Duration,
    /// How far roll-ups stay behind the clock.
    #[serde(deserialize_with = "units::duration")]
    pub rollup_lag: Duration,
    /// How often it is looked what roll-ups are to be made.
    #[serde(deserialize_with = "units::duration")]
    pub rollup_every: Duration,
    /// How long roll-ups by minute are kept; `None` for as long as samples.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pub rollup_retention_1m: Option<Duration>,
    /// How long roll-ups by hour are kept; `None` for as long as samples.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pub rollup_retention_1h: Option<Duration>,
}

/// Limits of the timeline of devices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeline {
    /// How long entries are kept.
    #[serde(deserialize_with = "units::duration")]
    pub retention: Duration,
    /// The most entries kept of one device.
    pub max_per_device: u32,
    /// The most entries waiting to be written.
    pub max_queue: usize,
    /// The most entries of one device in a minute.
    pub max_per_minute: u32,
    /// The most refusals among them.
    pub max_refusals_per_minute: u32,
    /// How often a device's `last_seen` is written while it sends.
    #[serde(deserialize_with = "units::duration")]
    pub last_seen_every: Duration,
}

/// Limits of live events.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// The most streams open at once.
    pub max_streams: usize,
    /// The most events kept for readers that were cut off: of telemetry, and of all else.
    pub log_entries: usize,
    /// Their most bytes: of telemetry, and of all else.
    #[serde(deserialize_with = "units::size")]
    pub log_bytes: usize,
    /// How often a quiet stream says that it is alive.
    #[serde(deserialize_with = "units::duration")]
    pub heartbeat: Duration,
}

impl Settings {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        positive("settings.max_document", self.max_document)?;
        positive("settings.max_depth", self.max_depth)?;
        positive("settings.max_model", self.max_model)?;
        if self.reconcile_every.is_zero() {
            return Err(Invalid::new("settings.reconcile_every", "more than 0s"));
        }
        Ok(())
    }
}

impl Schedules {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if self.max_preview_days == 0 {
            return Err(Invalid::new("schedules.max_preview_days", "at least 1"));
        }
        Ok(())
    }
}

impl Telemetry {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        positive("telemetry.max_batch", self.max_batch)?;
        positive("telemetry.max_metrics", self.max_metrics)?;
        positive("telemetry.max_text", self.max_text)?;
        positive("telemetry.max_metrics_per_device", self.max_metrics_per_device)?;
        positive("telemetry.batch_rows", self.batch_rows)?;
        positive("telemetry.writers", self.writers)?;
        days("telemetry.retention", self.retention)?;
        positive("telemetry.max_points", self.max_points)?;
        positive("telemetry.max_group_devices", self.max_group_devices)?;
        if self.group_timeout.is_zero() {
            return Err(Invalid::new("telemetry.group_timeout", "more than 0s"));
        }
        positive("telemetry.max_exports", self.max_exports)?;
        if self.rollup_lag > LONGEST_LAG {
            return Err(Invalid::new("telemetry.rollup_lag", "0s to 1day"));
        }
        if self.rollup_every.is_zero() {
            return Err(Invalid::new("telemetry.rollup_every", "more than 0s"));
        }
        if let Some(minutes) = self.rollup_retention_1m {
            days("telemetry.rollup_retention_1m", minutes)?;
        }
        if let Some(hours) = self.rollup_retention_1h {
            days("telemetry.rollup_retention_1h", hours)?;
            if hours < self.retention {
                return Err(Invalid::new(
                    "telemetry.rollup_retention_1h",
                    "at least telemetry.retention",
                ));
            }
        }
        if self.max_queue < self.max_batch {
            return Err(Invalid::new(
                "telemetry.max_queue",
                "at least telemetry.max_batch",
            ));
        }
        Ok(())
    }
}

impl Timeline {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        days("timeline.retention", self.retention)?;
        positive("timeline.max_queue", self.max_queue)?;
        if self.max_per_device == 0 {
            return Err(Invalid::new("timeline.max_per_device", "at least 1"));
        }
        Ok(())
    }
}

impl Events {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        positive("events.max_streams", self.max_streams)?;
        positive("events.log_entries", self.log_entries)?;
        positive("events.log_bytes", self.log_bytes)?;
        if !(1..=3_600).contains(&self.heartbeat.as_secs()) {
            return Err(Invalid::new("events.heartbeat", "1s to 1h"));
        }
        Ok(())
    }
}

/// The most that roll-ups may be told to stay behind.
const LONGEST_LAG: Duration = Duration::from_secs(86_400);

/// A retention works by whole days, and a hundred years are enough for anybody.
pub(super) fn days(key: &'static str, value: Duration) -> Result<(), Invalid> {
    const DAY: u64 = 86_400;
    if (DAY..=36_525 * DAY).contains(&value.as_secs()) {
        Ok(())
    } else {
        Err(Invalid::new(key, "1day to 36525days"))
    }
}

fn positive(key: &'static str, value: usize) -> Result<(), Invalid> {
    if value == 0 {
        Err(Invalid::new(key, "at least 1"))
    } else {
        Ok(())
    }
}
