//! How a bulk change goes about it: how many devices first, how fast the others, and when to stop.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

/// Devices that refuse before a change aborts, unless it says otherwise, in percent of those that have it.
pub const REFUSED_PERCENT: f64 = 10.0;

/// How far back a pace that could not be kept may be caught up, so that what was held up does not come in a burst.
const CATCH_UP: TimeDelta = TimeDelta::seconds(1);

/// The devices that get a change before all others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Canary {
    /// This many.
    Count(u32),
    /// This share of those that are to be changed, over 0 and at most 100.
    Percent(f64),
}

/// The text is neither a count nor a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a count from 1, or a percentage over 0% up to 100%, such as \"5%\"")]
pub struct NotACanary;

impl Canary {
    /// How many of `devices` it means: at least one, at most all of them.
    pub fn size(self, devices: u32) -> u32 {
        let size = match self {
            Self::Count(count) => count,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 0 and a u32, and `as` saturates"
            )]
            Self::Percent(percent) => (f64::from(devices) * percent / 100.0).ceil() as u32,
        };
        size.max(1).min(devices)
    }
}

impl FromStr for Canary {
    type Err = NotACanary;

    fn from_str(text: &str) -> Result<Self, NotACanary> {
        match text.strip_suffix('%') {
            Some(percent) => match percent.trim_end().parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self::Percent(percent)),
                _ => Err(NotACanary),
            },
            None => match text.parse::<u32>() {
                Ok(count) if count > 0 => Ok(Self::Count(count)),
                _ => Err(NotACanary),
            },
        }
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// When to stop: more than these shares of the devices that have the change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Abort {
    /// Refused it, in percent; 100 never stops.
    pub refused_percent: f64,
    /// Did not answer within `after`, in percent; 100 never stops.
    pub pending_percent: f64,
    /// How long a device has for its answer.
    pub after: Duration,
}

/// The pace of waves, so many devices a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Devices a minute, at least 1.
    pub per_minute: u32,
    /// When the next device may have the change.
    pub next_at: DateTime<Utc>,
}

impl Pace {
    /// How many devices may have the change now, at most `most`.
    pub fn allowed(self, now: DateTime<Utc>, most: u32) -> u32 {
        let late = (now - self.next_at).min(CATCH_UP);
        if late < TimeDelta::zero() {
            return 0;
        }
        let micros = late.num_microseconds().unwrap_or(i64::MAX);
        let further = micros.checked_div(self.interval()).unwrap_or_default();
        u32::try_from(further)
            .unwrap_or(u32::MAX)
            .saturating_add(1)
            .min(most)
    }

    /// The pace after `count` devices got the change at `now`.
    #[must_use]
    pub fn after(self, now: DateTime<Utc>, count: u32) -> Self {
        let from = self.next_at.max(now - CATCH_UP);
        let next_at = from + TimeDelta::microseconds(self.interval().saturating_mul(i64::from(count)));
        Self { next_at, ..self }
    }

    /// Microseconds from one device to the next.
    fn interval(self) -> i64 {
        const MINUTE: i64 = 60_000_000;
        MINUTE
            .checked_div(i64::from(self.per_minute))
            .unwrap_or(MINUTE)
            .max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_canary_is_a_count_or_a_percentage() {
        for (text, canary) in [
            ("5%", Canary::Percent(5.0)),
            ("0.5%", Canary::Percent(0.5)),
            ("100 %", Canary::Percent(100.0)),
            ("12", Canary::Count(12)),
        ] {
            assert_eq!(text.parse(), Ok(canary), "{text}");
        }
        for text in ["", "%", "0", "0%", "101%", "-1", "nan%", "five", "5 %5"] {
            assert_eq!(text.parse::<Canary>(), Err(NotACanary), "{text}");
        }
    }

    #[test]
    fn a_share_is_rounded_up() {
        for (canary, devices, size) in [
            ("5%", 1000, 50),
            ("5%", 21, 2),
            ("5%", 1, 1),
            ("0.1%", 10, 1),
            ("100%", 7, 7),
            ("3", 10, 3),
            ("30", 10, 10),
        ] {
            assert_eq!(
                canary.parse::<Canary>().unwrap().size(devices),
                size,
                "{canary} of {devices}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_canary_is_some_and_at_most_all(count in 1..5_000_u32, percent in 0.001..=100.0_f64, devices in 1..100_000_u32) {
            for canary in [Canary::Count(count), Canary::Percent(percent)] {
                prop_assert!((1..=devices).contains(&canary.size(devices)));
            }
        }

        #[test]
        fn a_canary_reads_back_as_written(percent in 0.001..=100.0_f64, count in 1..u32::MAX) {
            for canary in [Canary::Count(count), Canary::Percent(percent)] {
                prop_assert_eq!(canary.to_string().parse(), Ok(canary));
            }
        }

        #[test]
        fn the_pace_is_never_exceeded_and_is_kept_by_who_looks_often(
            per_minute in 1..20_000_u32,
            steps in prop::collection::vec(1..3_000_i64, 1..200),
        ) {
            let began = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
            let (mut now, mut given) = (began, 0_i64);
            let mut pace = Pace { per_minute, next_at: began };
            let mut looked_often = true;
            for step in steps {
                let count = pace.allowed(now, u32::MAX);
                pace = pace.after(now, count);
                given += i64::from(count);
                let elapsed = (now - began).num_milliseconds();
                // A minute's worth, the first one, and what rounding a microsecond per device adds.
                let most = elapsed * i64::from(per_minute) / 60_000 + 1;
                prop_assert!(given <= most + most / 500 + 1, "{} of {} after {} ms", given, most, elapsed);
                looked_often &= step <= CATCH_UP.num_milliseconds();
                if looked_often && per_minute > 60 {
                    prop_assert!(given >= most - 2, "{} of {} after {} ms", given, most, elapsed);
                }
                now += TimeDelta::milliseconds(step);
            }
        }
    }
}
