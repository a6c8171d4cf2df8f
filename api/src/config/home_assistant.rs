//! `[home_assistant]`: what Home Assistant is told of devices.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};
use setpoint_model::topic::DiscoveryPrefix;

use super::{error::Invalid, units};

/// What Home Assistant is told of devices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HomeAssistant {
    /// Below which topics it looks for them.
    #[serde(deserialize_with = "prefix")]
    pub prefix: DiscoveryPrefix,
    /// How often what it was told is compared with the database without a hint.
    #[serde(deserialize_with = "units::duration")]
    pub reconcile_every: Duration,
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DiscoveryPrefix, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

impl HomeAssistant {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if self.reconcile_every.is_zero() {
            return Err(Invalid::new("home_assistant.reconcile_every", "more than 0s"));
        }
        Ok(())
    }
}
