//! `[webhooks]`: limits of webhooks, where they may go, and how often they are tried.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};
use setpoint_model::webhook::{Limits, Retry, address::Allowed};

use super::{error::Invalid, units};

/// The longest that an attempt, and with it a connection, may take.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// Limits of webhooks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// The most webhooks.
    pub max_hooks: u32,
    /// The longest URL, in bytes.
    pub max_url: usize,
    /// The most headers of one.
    pub max_headers: usize,
    /// Special addresses that may be reached.
    #[serde(deserialize_with = "allowed")]
    pub allow_private: Allowed,
    /// Whether public addresses may be reached without TLS.
    pub allow_http: bool,
    /// The longest until there is a connection.
    #[serde(deserialize_with = "units::duration")]
    pub connect_timeout: Duration,
    /// The longest that an attempt may take.
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// The most of an answer's body that is read, in bytes.
    #[serde(deserialize_with = "units::size")]
    pub max_answer: usize,
    /// Requests at once.
    pub max_requests: usize,
    /// Requests to one webhook at once.
    pub max_requests_per_hook: usize,
    /// The pause after a first failure.
    #[serde(deserialize_with = "units::duration")]
    pub retry_first: Duration,
    /// The longest pause.
    #[serde(deserialize_with = "units::duration")]
    pub retry_longest: Duration,
    /// Attempts in all.
    pub max_attempts: u32,
    /// How long the former secret still signs.
    #[serde(deserialize_with = "units::duration")]
    pub secret_grace: Duration,
    /// The most events of one webhook that may wait.
    pub max_waiting: u32,
    /// The most kept of what was delivered, and of what was given up, of one webhook.
    pub max_kept: u32,
    /// How long what was delivered is kept.
    #[serde(deserialize_with = "units::duration")]
    pub keep_delivered: Duration,
    /// How long what was not delivered is kept.
    #[serde(deserialize_with = "units::duration")]
    pub keep_dead: Duration,
}

impl Webhooks {
    /// How much a webhook may say.
    pub fn limits(&self) -> Limits {
        Limits {
            url: self.max_url,
            headers: self.max_headers,
        }
    }

    /// How often a delivery is tried.
    pub fn retry(&self) -> Retry {
        Retry {
            first: self.retry_first,
            longest: self.retry_longest,
            attempts: self.max_attempts,
        }
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let positive = |key, value: usize| match value {
            0 => Err(Invalid::new(key, "at least 1")),
            _ => Ok(()),
        };
        if !(1..=1_000).contains(&self.max_hooks) {
            return Err(Invalid::new("webhooks.max_hooks", "1 to 1000"));
        }
        positive("webhooks.max_url", self.max_url)?;
        positive("webhooks.max_requests", self.max_requests)?;
        positive("webhooks.max_requests_per_hook", self.max_requests_per_hook)?;
        if self.max_attempts == 0 {
            return Err(Invalid::new("webhooks.max_attempts", "at least 1"));
        }
        if self.max_waiting == 0 {
            return Err(Invalid::new("webhooks.max_waiting", "at least 1"));
        }
        for (key, value) in [
            ("webhooks.connect_timeout", self.connect_timeout),
            ("webhooks.timeout", self.timeout),
        ] {
            if value.is_zero() || value > MAX_TIMEOUT {
                return Err(Invalid::new(key, "more than 0s, at most 5m"));
            }
        }
        if self.retry_first.is_zero() || self.retry_first > self.retry_longest {
            return Err(Invalid::new(
                "webhooks.retry_first",
                "more than 0s, at most webhooks.retry_longest",
            ));
        }
        Ok(())
    }
}

/// A list of networks, or `true` for every address, or `false` for none.
fn allowed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Allowed, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Every(bool),
        These(Vec<String>),
    }
    let wrong = || D::Error::custom("networks such as [\"10.0.0.0/8\"], or true, are needed");
    match Given::deserialize(deserializer).map_err(|_| wrong())? {
        Given::Every(true) => Ok(Allowed::All),
        Given::Every(false) => Ok(Allowed::Networks(Vec::new())),
        Given::These(texts) => {
            let networks = texts.iter().map(|text| text.parse().map_err(|_| wrong()));
            Ok(Allowed::Networks(networks.collect::<Result<_, _>>()?))
        }
    }
}
