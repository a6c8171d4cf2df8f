//! `[bulk_changes]`: limits of bulk changes.

use std::time::Duration;

use serde::Deserialize;

use super::{error::Invalid, limits::days, units};

/// Limits of bulk changes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkChanges {
    /// The most devices of one change.
    pub max_devices: usize,
    /// The most changes that run or are paused.
    pub max_open: i64,
    /// How long a device has for its answer unless the change says otherwise.
    #[serde(deserialize_with = "units::duration")]
    pub answer_within: Duration,
    /// How long changes that ended are kept.
    #[serde(deserialize_with = "units::duration")]
    pub retention: Duration,
}

impl BulkChanges {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if !(1..=1_000_000).contains(&self.max_devices) {
            return Err(Invalid::new("bulk_changes.max_devices", "1 to 1000000"));
        }
        if self.max_open < 1 {
            return Err(Invalid::new("bulk_changes.max_open", "at least 1"));
        }
        if !(1..=7 * 86_400).contains(&self.answer_within.as_secs()) {
            return Err(Invalid::new("bulk_changes.answer_within", "1s to 7days"));
        }
        days("bulk_changes.retention", self.retention)
    }
}
