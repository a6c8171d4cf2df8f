//! Times as people write them in a rule: `90s`, `5m`, `1h 30m`.

use std::{fmt, str::FromStr};

use chrono::TimeDelta;

/// The longest, in seconds: 7 days.
pub const LONGEST: u32 = 7 * 86_400;

/// Units, the largest first: the seconds of each, and how it may be written; the first way is the canonical one.
const UNITS: [(u32, &[&str]); 5] = [
    (7 * 86_400, &["w", "week", "weeks"]),
    (86_400, &["d", "day", "days"]),
    (3_600, &["h", "hr", "hour", "hours"]),
    (60, &["m", "min", "minute", "minutes"]),
    (1, &["s", "sec", "second", "seconds"]),
];

/// A time of whole seconds, up to [`LONGEST`]. [`fmt::Display`] gives its canonical form, which reads back the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(u32);

/// The text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time of whole s, m, h or d, up to 7d: `5m`, `1h 30m`")]
pub struct InvalidSpan;

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// So many seconds; `None` beyond [`LONGEST`].
    pub fn from_seconds(seconds: u32) -> Option<Self> {
        (seconds <= LONGEST).then_some(Self(seconds))
    }

    /// In seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// As the difference of two times.
    pub fn delta(self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.0))
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let mut rest = text.trim();
        let mut total = 0_u32;
        if rest.is_empty() {
            return Err(InvalidSpan);
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(InvalidSpan)?;
            let (count, tail) = rest.split_at_checked(digits).ok_or(InvalidSpan)?;
            let count: u32 = count.parse().map_err(|_| InvalidSpan)?;
            let tail = tail.trim_start();
            let letters = tail
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at_checked(letters).ok_or(InvalidSpan)?;
            let (seconds, _) = UNITS
                .iter()
                .find(|(_, names)| names.contains(&unit))
                .ok_or(InvalidSpan)?;
            let part = count.checked_mul(*seconds).ok_or(InvalidSpan)?;
            total = total.checked_add(part).ok_or(InvalidSpan)?;
            rest = tail.trim_start();
        }
        Self::from_seconds(total).ok_or(InvalidSpan)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let (mut rest, mut first) = (self.0, true);
        // Weeks are read, and written as days.
        for (seconds, names) in UNITS.iter().skip(1) {
            let (count, left) = (rest / seconds, rest % seconds);
            if count > 0 {
                let unit = names.first().copied().unwrap_or_default();
                write!(f, "{}{count}{unit}", if first { "" } else { " " })?;
                first = false;
            }
            rest = left;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds, canonical) in [
            ("5m", 300, "5m"),
            ("1h 30m", 5_400, "1h 30m"),
            ("1h30m", 5_400, "1h 30m"),
            ("90s", 90, "1m 30s"),
            ("90 seconds", 90, "1m 30s"),
            ("1w", 604_800, "7d"),
            ("7 days", 604_800, "7d"),
            ("0s", 0, "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(
                (span.seconds(), span.to_string().as_str()),
                (seconds, canonical),
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "m",
            "5 x",
            "-5m",
            "1.5h",
            "8d",
            "99999999999s",
            "5m,",
            "5é",
            "4294967295w",
        ] {
            assert_eq!(text.parse::<Span>(), Err(InvalidSpan), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_time_reads_back_as_written(seconds in 0..=LONGEST) {
            let span = Span::from_seconds(seconds).unwrap();
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }
    }
}
