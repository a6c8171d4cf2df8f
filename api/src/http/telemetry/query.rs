//! The parameters of a history query, and the cursor by which it goes on.

use std::{fmt::Display, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use setpoint_model::telemetry::{Aggregate, Bucket, MetricList};
use setpoint_store::telemetry::Position;

use crate::app::{Error, FieldErrors};

/// The largest `limit`, in readings.
const MAX_LIMIT: i64 = 10_000;
/// The `limit` when none is asked for.
const DEFAULT_LIMIT: i64 = 1_000;
/// How far back history goes when `from` is not given.
const DEFAULT_SPAN: TimeDelta = TimeDelta::hours(24);

/// Which part of a device's history to read.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    /// Metrics, with commas between; all without it. One that the device doesn't have has no items.
    #[param(example = "temperature,humidity")]
    metric: Option<String>,
    /// The earliest time, RFC 3339; 24 hours before `to` without it.
    from: Option<String>,
    /// The first time that is too late; now without it.
    to: Option<String>,
    /// The width of a bucket: `30s`, `5m`, `1h`, `1d`, `1w`, in UTC. Without it, samples as they came.
    #[param(example = "5m")]
    bucket: Option<String>,
    /// With `bucket`: `avg` (the default), `min`, `max`, `sum`, `count` or `last`.
    agg: Option<String>,
    /// How many items at most: 1 to 10000, 1000 by default.
    limit: Option<i64>,
    /// Where to go on: the `next` of the page before. It also holds that page's `from` and `to`.
    cursor: Option<String>,
}

/// The parameters of a history query, understood.
pub(super) struct Wanted {
    pub(super) metrics: Option<MetricList>,
    pub(super) buckets: Option<(Bucket, Aggregate)>,
    pub(super) limit: i64,
    pub(super) cursor: Cursor,
}

impl Wanted {
    pub(super) fn parse(query: &HistoryQuery, now: DateTime<Utc>) -> Result<Self, Error> {
        let mut errors = FieldErrors::new();
        let metrics = field::<MetricList>(&mut errors, "metric", query.metric.as_deref());
        let bucket = field::<Bucket>(&mut errors, "bucket", query.bucket.as_deref());
        let aggregate = field::<Aggregate>(&mut errors, "agg", query.agg.as_deref());
        let to = field::<Moment>(&mut errors, "to", query.to.as_deref()).map_or(now, |to| to.0);
        let from = field::<Moment>(&mut errors, "from", query.from.as_deref());
        let from = from.map_or(to - DEFAULT_SPAN, |from| from.0);
        let given = field::<Cursor>(&mut errors, "cursor", query.cursor.as_deref());
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            errors.insert("limit".to_owned(), format!("1 to {MAX_LIMIT}"));
        }
        if aggregate.is_some() && query.bucket.is_none() {
            errors.insert("agg".to_owned(), "needs `bucket`".to_owned());
        }
        if from > to && !errors.contains_key("to") {
            errors
                .entry("from".to_owned())
                .or_insert_with(|| "must not be after `to`".to_owned());
        }
        if !errors.is_empty() {
            return Err(Error::Invalid { errors });
        }
        let cursor = given.unwrap_or(Cursor {
            from,
            to,
            after: None,
        });
        let buckets = bucket.map(|bucket| (bucket, aggregate.unwrap_or_default()));
        Ok(Self {
            metrics,
            buckets,
            limit,
            cursor,
        })
    }
}

fn field<T: FromStr<Err: Display>>(errors: &mut FieldErrors, name: &str, text: Option<&str>) -> Option<T> {
    match text?.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            errors.insert(name.to_owned(), error.to_string());
            None
        }
    }
}

/// A time in a query.
struct Moment(DateTime<Utc>);

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // An unescaped `+` of `+01:00` arrives as a space.
        DateTime::parse_from_rfc3339(&text.replace(' ', "+"))
            .map(|at| Self(at.with_timezone(&Utc)))
            .map_err(|_| "a time in RFC 3339: 2026-01-01T12:00:00Z")
    }
}

/// Where a page ended, with the bounds of the first page, so that "the last 24 hours" stand still meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Cursor {
    pub(super) from: DateTime<Utc>,
    pub(super) to: DateTime<Utc>,
    pub(super) after: Option<Position>,
}

impl Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (at, metric) = self
            .after
            .map_or((0, 0), |after| (after.at.timestamp_micros(), after.metric_id));
        let (from, to) = (self.from.timestamp_micros(), self.to.timestamp_micros());
        write!(f, "{from}.{to}.{at}.{metric}")
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "not the `next` of a page";
        let mut numbers = text.split('.').map(str::parse::<i64>);
        let mut time = || {
            let micros = numbers.next()?.ok()?;
            DateTime::from_timestamp_micros(micros)
        };
        let (from, to, at) = (time().ok_or(WRONG)?, time().ok_or(WRONG)?, time().ok_or(WRONG)?);
        let metric = numbers.next().and_then(Result::ok).ok_or(WRONG)?;
        let metric_id = i32::try_from(metric).map_err(|_| WRONG)?;
        if numbers.next().is_some() {
            return Err(WRONG);
        }
        Ok(Self {
            from,
            to,
            after: Some(Position { at, metric_id }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> HistoryQuery {
        HistoryQuery {
            metric: None,
            from: None,
            to: None,
            bucket: None,
            agg: None,
            limit: None,
            cursor: None,
        }
    }

    fn now() -> DateTime<Utc> {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn errors(query: &HistoryQuery) -> Vec<String> {
        match Wanted::parse(query, now()) {
            Err(Error::Invalid { errors }) => errors.into_keys().collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn without_parameters_it_is_the_last_day_as_it_came() {
        let wanted = Wanted::parse(&query(), now()).unwrap();
        assert_eq!(
            (wanted.cursor.from, wanted.cursor.to),
            (now() - DEFAULT_SPAN, now())
        );
        assert!(wanted.metrics.is_none() && wanted.buckets.is_none());
        assert_eq!(wanted.limit, DEFAULT_LIMIT);
    }

    #[test]
    fn every_wrong_parameter_is_named() {
        let text = |text: &str| Some(text.to_owned());
        let all = HistoryQuery {
            metric: text("a b"),
            from: text("yesterday"),
            to: text("tomorrow"),
            bucket: text("5"),
            agg: text("median"),
            limit: Some(0),
            cursor: text("1.2"),
        };
        assert_eq!(
            errors(&all),
            ["agg", "bucket", "cursor", "from", "limit", "metric", "to"]
        );
        assert_eq!(
            errors(&HistoryQuery {
                agg: text("avg"),
                ..query()
            }),
            ["agg"]
        );
        assert_eq!(
            errors(&HistoryQuery {
                from: text("2026-03-01T12:00:01Z"),
                ..query()
            }),
            ["from"]
        );
        assert_eq!(
            errors(&HistoryQuery {
                limit: Some(MAX_LIMIT + 1),
                ..query()
            }),
            ["limit"]
        );
    }

    #[test]
    fn a_plus_in_a_time_need_not_be_escaped() {
        let query = HistoryQuery {
            from: Some("2026-03-01T12:00:00 01:00".to_owned()),
            ..query()
        };
        assert_eq!(
            Wanted::parse(&query, now()).unwrap().cursor.from,
            now() - TimeDelta::hours(1)
        );
    }

    #[test]
    fn a_cursor_reads_back_as_written() {
        let after = Position {
            at: now() - TimeDelta::microseconds(1),
            metric_id: 7,
        };
        let cursor = Cursor {
            from: now() - DEFAULT_SPAN,
            to: now(),
            after: Some(after),
        };
        let read: Cursor = cursor.to_string().parse().unwrap();
        assert_eq!(
            (read.from, read.to, read.after),
            (cursor.from, cursor.to, cursor.after)
        );
        for wrong in [
            "",
            "1",
            "1.2.3",
            "1.2.3.x",
            "1.2.3.4.5",
            "1.2.3.99999999999",
            "9223372036854775807.1.1.1",
        ] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }
}
