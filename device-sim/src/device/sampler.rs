//! When a device reports its temperature, and what it reports.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use setpoint_model::Serial;
use tokio::time::Instant;

use super::TelemetryPlan;
use crate::weather::Weather;

/// The sensor of one device and its schedule.
#[derive(Debug)]
pub(super) struct Sampler {
    plan: TelemetryPlan,
    weather: Weather,
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Sampler {
    pub(super) fn new(plan: TelemetryPlan, serial: &Serial) -> Self {
        Self {
            plan,
            weather: Weather::around(serial),
            due: None,
            last: None,
        }
    }

    /// When the next sample is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn at_least_once(&self) -> bool {
        self.plan.at_least_once
    }

    /// A session began: a sample that fell due meanwhile is due at once, others keep their time.
    pub(super) fn session_began(&mut self, now: Instant) {
        self.due = Some(self.due.map_or(now + self.plan.first_after, |due| due.max(now)));
    }

    /// The settings may ask for another interval: it counts from the last sample.
    pub(super) fn interval_changed(&mut self, asked: Duration, now: Instant) {
        if let (None, Some(last)) = (self.plan.every, self.last) {
            self.due = Some((last + asked).max(now));
        }
    }

    /// The sample, if it is due; the next one is due after the plan's interval, or else the one `asked` for.
    pub(super) fn sample(&mut self, asked: Duration, now: Instant, at: DateTime<Utc>) -> Option<Value> {
        self.due.filter(|due| *due <= now)?;
        self.last = Some(now);
        self.due = Some(now + self.plan.every.unwrap_or(asked));
        let reading = self.weather.read(at);
        Some(json!({ "temperature": reading.temperature, "humidity": reading.humidity, "at": at }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn sampler(every: Option<Duration>) -> Sampler {
        let plan = TelemetryPlan {
            every,
            ..TelemetryPlan::default()
        };
        Sampler::new(plan, &"HOME-1".parse().unwrap())
    }

    #[test]
    fn it_samples_at_once_and_then_as_the_settings_ask() {
        let (mut sampler, start) = (sampler(None), Instant::now());
        assert_eq!(sampler.due(), None);
        sampler.session_began(start);
        let sample = sampler.sample(MINUTE, start, DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(sample["at"], "1970-01-01T00:00:00Z");
        assert_eq!(
            sampler.sample(MINUTE, start + MINUTE / 2, DateTime::UNIX_EPOCH),
            None
        );
        assert_eq!(sampler.due(), Some(start + MINUTE));
    }

    #[test]
    fn a_new_interval_counts_from_the_last_sample() {
        let (mut sampler, start) = (sampler(None), Instant::now());
        sampler.session_began(start);
        sampler.sample(MINUTE, start, DateTime::UNIX_EPOCH).unwrap();
        sampler.interval_changed(MINUTE * 10, start + MINUTE / 2);
        assert_eq!(sampler.due(), Some(start + MINUTE * 10));
        sampler.interval_changed(MINUTE, start + MINUTE * 5);
        assert_eq!(sampler.due(), Some(start + MINUTE * 5));
    }

    #[test]
    fn an_interval_of_its_own_overrides_the_settings() {
        let (mut sampler, start) = (sampler(Some(MINUTE * 2)), Instant::now());
        sampler.session_began(start);
        sampler.sample(MINUTE, start, DateTime::UNIX_EPOCH).unwrap();
        sampler.interval_changed(MINUTE, start);
        assert_eq!(sampler.due(), Some(start + MINUTE * 2));
    }

    #[test]
    fn coming_back_keeps_the_schedule() {
        let (mut sampler, start) = (sampler(None), Instant::now());
        sampler.session_began(start);
        sampler.sample(MINUTE, start, DateTime::UNIX_EPOCH).unwrap();
        sampler.session_began(start + MINUTE / 2);
        assert_eq!(sampler.due(), Some(start + MINUTE));
        sampler.session_began(start + MINUTE * 3);
        assert_eq!(sampler.due(), Some(start + MINUTE * 3));
    }
}
