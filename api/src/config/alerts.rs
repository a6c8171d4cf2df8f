//! `[alerts]`: limits of alerts.

use std::time::Duration;

use serde::Deserialize;

use super::{error::Invalid, units};

/// Limits of alerts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alerts {
    /// The most rules.
    pub max_rules: i64,
    /// How long a resolved alert is still shown as such.
    #[serde(deserialize_with = "units::duration")]
    pub keep_resolved: Duration,
    /// How often all devices of every rule are looked at, whatever was heard of them.
    #[serde(deserialize_with = "units::duration")]
    pub sweep_every: Duration,
    /// The most devices whose newest values are remembered.
    pub max_watched: usize,
    /// The most devices that wait to be looked at.
    pub max_waiting: usize,
    /// The most samples of one metric that are read back when a device is looked at.
    pub max_samples: u32,
}

impl Alerts {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        const DAY: u64 = 86_400;
        if !(0..=10_000).contains(&self.max_rules) {
            return Err(Invalid::new("alerts.max_rules", "0 to 10000"));
        }
        if self.keep_resolved.as_secs() > 365 * DAY {
            return Err(Invalid::new("alerts.keep_resolved", "at most 365days"));
        }
        if !(1..=DAY).contains(&self.sweep_every.as_secs()) {
            return Err(Invalid::new("alerts.sweep_every", "1s to 1day"));
        }
        for (key, value) in [
            ("alerts.max_watched", self.max_watched),
            ("alerts.max_waiting", self.max_waiting),
        ] {
            if value == 0 {
                return Err(Invalid::new(key, "at least 1"));
            }
        }
        if !(1..=100_000).contains(&self.max_samples) {
            return Err(Invalid::new("alerts.max_samples", "1 to 100000"));
        }
        Ok(())
    }
}
