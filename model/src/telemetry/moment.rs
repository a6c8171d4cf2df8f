//! Times in a query: as they are, or counted from now.

use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};

use super::query::seconds;

/// A time in a query: RFC 3339, `now`, or so long ago (`-24h`, `now-24h`; the units are those of a bucket).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This time, in whole microseconds as the database keeps it.
    At(DateTime<Utc>),
    /// So many seconds ago.
    Ago(u32),
}

/// The text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time in RFC 3339 (2026-01-01T12:00:00Z), or how long ago it was: -24h")]
pub struct InvalidMoment;

impl Moment {
    /// Which time that is, if it is `now`.
    pub fn at(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(at) => at,
            Self::Ago(seconds) => now
                .checked_sub_signed(TimeDelta::seconds(i64::from(seconds)))
                .unwrap_or(now),
        }
    }
}

impl FromStr for Moment {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Self, InvalidMoment> {
        let relative = text.strip_prefix("now").unwrap_or(text);
        if relative.is_empty() && text == "now" {
            return Ok(Self::Ago(0));
        }
        if let Some(ago) = relative.strip_prefix('-') {
            return seconds(ago).map(Self::Ago).ok_or(InvalidMoment);
        }
        // An unescaped `+` of `+01:00` arrives as a space.
        let at = DateTime::parse_from_rfc3339(&text.replace(' ', "+")).map_err(|_| InvalidMoment)?;
        DateTime::from_timestamp_micros(at.timestamp_micros())
            .map(Self::At)
            .ok_or(InvalidMoment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_given_or_counted_from_now() {
        let now: DateTime<Utc> = "2026-03-01T12:00:00Z".parse().unwrap();
        for (text, at) in [
            ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"),
            ("2026-03-01T12:00:00+01:00", "2026-03-01T11:00:00Z"),
            ("2026-03-01T12:00:00 01:00", "2026-03-01T11:00:00Z"),
            ("2026-03-01T12:00:00.123456789Z", "2026-03-01T12:00:00.123456Z"),
            ("now", "2026-03-01T12:00:00Z"),
            ("-90m", "2026-03-01T10:30:00Z"),
            ("now-1d", "2026-02-28T12:00:00Z"),
            ("-0s", "2026-03-01T12:00:00Z"),
        ] {
            let at: DateTime<Utc> = at.parse().unwrap();
            assert_eq!(text.parse::<Moment>().map(|read| read.at(now)), Ok(at), "{text}");
        }
        for wrong in [
            "",
            "-",
            "now-",
            "24h",
            "now+1h",
            "-1",
            "--1h",
            "-1y",
            "yesterday",
            "2026-03-01",
        ] {
            assert_eq!(wrong.parse::<Moment>(), Err(InvalidMoment), "{wrong}");
        }
    }
}
