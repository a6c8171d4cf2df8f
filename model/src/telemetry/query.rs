//! How history may be asked for: which metrics, in which buckets, by which aggregate.

use std::{fmt, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::is_metric_name;

/// The most metrics one query may name.
const MAX_METRICS: usize = 64;

/// The longest bucket, in seconds: 366 days.
const MAX_BUCKET_SECONDS: u32 = 366 * 86_400;

/// Monday, 2001-01-01T00:00:00Z, in microseconds since 1970: where a bucket of any width begins.
const ORIGIN_MICROS: i64 = 978_307_200_000_000;

/// Widths that people find easy to think in, in seconds: from 1 s over 1 min, 1 h, 1 d and 1 w to a quarter of a year.
const EASY_SECONDS: [u32; 22] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400,
    172_800, 604_800, 2_419_200, 7_862_400,
];

/// The width of a bucket of history: `30s`, `5m`, `1h`, `1d`, `1w`; one second to 366 days.
///
/// Buckets begin at whole multiples of their width since Monday, 2001-01-01T00:00:00Z, so days are UTC days
/// and weeks begin on Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket(u32);

/// The text is not the width of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a whole number with s, m, h, d or w, from 1s to 366d: `5m`")]
pub struct InvalidBucket;

impl Bucket {
    /// The widest: 366 days.
    pub const WIDEST: Self = Self(MAX_BUCKET_SECONDS);

    /// The narrowest width that people find easy of which no more than `points` have a part between `from` and the time
    /// before `to`.
    pub fn easy(from: DateTime<Utc>, to: DateTime<Utc>, points: u32) -> Self {
        let fits = |width: &Self| width.count(from, to) <= u64::from(points.max(1));
        let mut widths = EASY_SECONDS.into_iter().map(Self);
        widths.find(fits).unwrap_or(Self::WIDEST)
    }

    /// The width in seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// The width.
    pub fn width(self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.0))
    }

    /// The beginning of the bucket that holds `at`.
    pub fn begin(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let width = i64::from(self.0) * 1_000_000;
        let micros = at.timestamp_micros();
        let into = micros.wrapping_sub(ORIGIN_MICROS).rem_euclid(width);
        DateTime::from_timestamp_micros(micros.saturating_sub(into)).unwrap_or(at)
    }

    /// How many buckets have a part between `from` and the time before `to`.
    pub fn count(self, from: DateTime<Utc>, to: DateTime<Utc>) -> u64 {
        if from >= to {
            return 0;
        }
        let width = u64::from(self.0) * 1_000_000;
        let micros = to
            .timestamp_micros()
            .abs_diff(self.begin(from).timestamp_micros());
        micros.div_ceil(width)
    }
}

impl FromStr for Bucket {
    type Err = InvalidBucket;

    fn from_str(text: &str) -> Result<Self, InvalidBucket> {
        match seconds(text) {
            Some(width @ 1..=MAX_BUCKET_SECONDS) => Ok(Self(width)),
            _ => Err(InvalidBucket),
        }
    }
}

/// The seconds of a whole number with `s`, `m`, `h`, `d` or `w`.
pub(super) fn seconds(text: &str) -> Option<u32> {
    let unit = text.chars().next_back()?;
    let seconds: u32 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let count = text.strip_suffix(unit)?;
    if !count.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    count.parse::<u32>().ok()?.checked_mul(seconds)
}

/// How the samples of one bucket become one value. Booleans count as 0 and 1; texts have `count` and `last` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    /// The arithmetic mean.
    #[default]
    Avg,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The sum.
    Sum,
    /// How many samples there are, of whatever type.
    Count,
    /// The newest.
    Last,
}

/// The text names no aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one of avg, min, max, sum, count, last")]
pub struct InvalidAggregate;

impl Aggregate {
    /// Its name in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Last => "last",
        }
    }
}

impl FromStr for Aggregate {
    type Err = InvalidAggregate;

    fn from_str(text: &str) -> Result<Self, InvalidAggregate> {
        [
            Self::Avg,
            Self::Min,
            Self::Max,
            Self::Sum,
            Self::Count,
            Self::Last,
        ]
        .into_iter()
        .find(|aggregate| aggregate.as_str() == text)
        .ok_or(InvalidAggregate)
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Metric names with commas between: `temperature,humidity`. At most 64, each named once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricList(Vec<String>);

/// The text is not a list of metric names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at most 64 metric names with commas between, each 1 to 64 of A-Z a-z 0-9 . _ -")]
pub struct InvalidMetrics;

impl MetricList {
    /// The names, in the order of the query.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for MetricList {
    type Err = InvalidMetrics;

    fn from_str(text: &str) -> Result<Self, InvalidMetrics> {
        let mut names: Vec<String> = Vec::new();
        for name in text.split(',').map(str::trim) {
            if !is_metric_name(name) || names.len() == MAX_METRICS {
                return Err(InvalidMetrics);
            }
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        Ok(Self(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn buckets_begin_where_the_database_says() {
        for (bucket, inside, begin) in [
            ("5m", "2026-03-01T12:04:59.999999Z", "2026-03-01T12:00:00Z"),
            ("5m", "2026-03-01T12:05:00Z", "2026-03-01T12:05:00Z"),
            ("1d", "2026-03-01T12:00:00Z", "2026-03-01T00:00:00Z"),
            ("1w", "2026-03-01T12:00:00Z", "2026-02-23T00:00:00Z"),
            ("1d", "1999-12-31T23:00:00Z", "1999-12-31T00:00:00Z"),
        ] {
            let bucket: Bucket = bucket.parse().unwrap();
            assert_eq!(bucket.begin(at(inside)), at(begin), "{inside}");
        }
    }

    #[test]
    fn an_easy_width_is_the_narrowest_that_fits() {
        let noon = at("2026-03-01T12:00:00Z");
        for (hours, points, easy) in [
            (24, 100, "15m"),
            (24, 24, "1h"),
            (1, 4_000, "1s"),
            (8_760, 100, "1w"),
            (0, 1, "1s"),
        ] {
            let easy: Bucket = easy.parse().unwrap();
            assert_eq!(
                Bucket::easy(noon, noon + TimeDelta::hours(hours), points),
                easy,
                "{hours}"
            );
        }
        let all = at("0000-01-01T00:00:00Z");
        assert_eq!(Bucket::easy(all, noon, 100), Bucket::WIDEST);
    }

    #[test]
    fn a_bucket_counts_when_any_part_of_it_is_asked_for() {
        let hour: Bucket = "1h".parse().unwrap();
        let noon = at("2026-03-01T12:00:00Z");
        for (minutes, count) in [(-60, 0), (0, 0), (1, 1), (60, 1), (61, 2), (90, 2), (1440, 24)] {
            assert_eq!(
                hour.count(noon, noon + TimeDelta::minutes(minutes)),
                count,
                "{minutes}"
            );
        }
        let half = noon + TimeDelta::minutes(30);
        assert_eq!(hour.count(half, half + TimeDelta::hours(1)), 2);
        let all = at("0000-01-01T00:00:00Z");
        assert_eq!(
            "1s".parse::<Bucket>()
                .unwrap()
                .count(all, at("9999-12-31T23:59:59Z")),
            315_569_519_999
        );
    }
}
