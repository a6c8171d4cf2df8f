//! The parameters of a history query, and the cursor by which it goes on.

use std::{fmt::Display, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use setpoint_model::{
    DeviceId,
    telemetry::{Aggregate, Bucket, Fill, MetricList, Moment},
};

use super::format::Format;
use crate::app::{
    Error, FieldErrors,
    telemetry::{Buckets, Place, Point, Query},
};

/// The largest `limit` of a page, in readings.
const MAX_LIMIT: i64 = 10_000;
/// The `limit` of a page when none is asked for.
const DEFAULT_LIMIT: i64 = 1_000;
/// How far back history goes when `from` is not given.
pub(super) const DEFAULT_SPAN: TimeDelta = TimeDelta::hours(24);

/// Which part of a device's history to read, and how.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    /// Metrics, with commas between; all without it. One that the device doesn't have has no items.
    #[param(example = "temperature,humidity")]
    metric: Option<String>,
    /// The earliest time, RFC 3339 or so long ago: `-24h`; 24 hours before `to` without it.
    #[param(example = "-24h")]
    from: Option<String>,
    /// The first time that is too late, RFC 3339, so long ago, or `now`, which it is without it.
    to: Option<String>,
    /// The width of a bucket: `30s`, `5m`, `1h`, `1d`, `1w`, in UTC. Without it, samples as they came.
    #[param(example = "5m")]
    bucket: Option<String>,
    /// With `bucket`: `avg` (the default), `min`, `max`, `sum`, `count` or `last`.
    agg: Option<String>,
    /// With `bucket`, what stands in a bucket without samples, for each metric that has samples in the range: `none` (the
    /// default: the bucket is left out), `null`, `previous` (the bucket before it that has some), `linear` (between the
    /// buckets around it), or a number.
    #[param(example = "null")]
    fill: Option<String>,
    /// How many items at most. JSON: 1 to 10000, 1000 by default; CSV and NDJSON: all by default.
    limit: Option<i64>,
    /// Where to go on: the `next` of the page before. It also holds that page's `from` and `to`.
    cursor: Option<String>,
    /// `json`, `csv` or `ndjson`; without it, what `Accept` says.
    #[param(example = "json")]
    pub(super) format: Option<String>,
}

/// The parameters that every history query has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub(super) metric: Option<&'a str>,
    pub(super) from: Option<&'a str>,
    pub(super) to: Option<&'a str>,
    pub(super) bucket: Option<&'a str>,
    pub(super) agg: Option<&'a str>,
    pub(super) fill: Option<&'a str>,
    pub(super) limit: Option<i64>,
    pub(super) cursor: Option<&'a str>,
    /// Whether `agg` and `fill` mean something without `bucket`.
    pub(super) always_in_buckets: bool,
}

impl HistoryQuery {
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked {
            metric: self.metric.as_deref(),
            from: self.from.as_deref(),
            to: self.to.as_deref(),
            bucket: self.bucket.as_deref(),
            agg: self.agg.as_deref(),
            fill: self.fill.as_deref(),
            limit: self.limit,
            cursor: self.cursor.as_deref(),
            always_in_buckets: false,
        }
    }
}

/// The parameters of a history query, understood.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) query: Query,
    /// How the samples of a bucket become one value, whether its width is given or not.
    pub(super) aggregate: Aggregate,
    /// What stands in a bucket without samples.
    pub(super) fill: Fill,
    /// The most items, if it was said.
    pub(super) limit: Option<i64>,
}

impl Wanted {
    pub(super) fn parse(asked: &Asked<'_>, format: Format, now: DateTime<Utc>) -> Result<Self, Error> {
        let mut errors = FieldErrors::new();
        let metrics = field::<MetricList>(&mut errors, "metric", asked.metric);
        let width = field::<Bucket>(&mut errors, "bucket", asked.bucket);
        let aggregate = field::<Aggregate>(&mut errors, "agg", asked.agg);
        let fill = field::<Fill>(&mut errors, "fill", asked.fill);
        let (from, to) = range(&mut errors, asked.from, asked.to, now);
        let given = field::<Cursor>(&mut errors, "cursor", asked.cursor);
        let wrong_limit = match (format, asked.limit) {
            (_, None) => None,
            (Format::Json, Some(limit)) if !(1..=MAX_LIMIT).contains(&limit) => {
                Some(format!("1 to {MAX_LIMIT}"))
            }
            (_, Some(limit)) if limit < 1 => Some("at least 1".to_owned()),
            _ => None,
        };
        errors.extend(wrong_limit.map(|message| ("limit".to_owned(), message)));
        if format != Format::Json && asked.cursor.is_some() {
            errors.insert("cursor".to_owned(), "is of pages, which are JSON".to_owned());
        }
        if asked.bucket.is_none() && !asked.always_in_buckets {
            for (name, given) in [("agg", asked.agg), ("fill", asked.fill)] {
                if given.is_some() && !errors.contains_key(name) {
                    errors.insert(name.to_owned(), "needs `bucket`".to_owned());
                }
            }
        }
        if !errors.is_empty() {
            return Err(Error::Invalid { errors });
        }
        let cursor = given.unwrap_or(Cursor {
            from,
            to,
            after: None,
        });
        let (aggregate, fill) = (aggregate.unwrap_or_default(), fill.unwrap_or_default());
        let buckets = width.map(|width| Buckets {
            width,
            aggregate,
            fill,
        });
        Ok(Self {
            query: Query {
                metrics: metrics.map(|metrics| metrics.as_slice().to_vec()),
                from: cursor.from,
                to: cursor.to,
                buckets,
                after: cursor.after,
            },
            aggregate,
            fill,
            limit: asked.limit,
        })
    }

    /// The most items of a page.
    pub(super) fn page_limit(&self) -> i64 {
        self.limit.unwrap_or(DEFAULT_LIMIT)
    }

    /// The cursor behind a page's last item.
    pub(super) fn cursor(&self, last: &Point) -> String {
        let cursor = Cursor {
            from: self.query.from,
            to: self.query.to,
            after: Some(last.place()),
        };
        cursor.to_string()
    }
}

/// The range that is asked for.
pub(super) fn range(
    errors: &mut FieldErrors,
    from: Option<&str>,
    to: Option<&str>,
    now: DateTime<Utc>,
) -> (DateTime<Utc>, DateTime<Utc>) {
    let until = field::<Moment>(errors, "to", to).map_or(now, |to| to.at(now));
    let since = field::<Moment>(errors, "from", from);
    let since = since.map_or(until - DEFAULT_SPAN, |from| from.at(now));
    if since > until && !errors.contains_key("to") {
        errors
            .entry("from".to_owned())
            .or_insert_with(|| "must not be after `to`".to_owned());
    }
    (since, until)
}

/// Reads a parameter, and notes what is wrong with it.
pub(super) fn field<T: FromStr<Err: Display>>(
    errors: &mut FieldErrors,
    name: &str,
    text: Option<&str>,
) -> Option<T> {
    match text?.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            errors.insert(name.to_owned(), error.to_string());
            None
        }
    }
}

/// Where a page ended, with the bounds of the first page, so that "the last 24 hours" stand still meanwhile.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    after: Option<Place>,
}

impl Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (from, to) = (self.from.timestamp_micros(), self.to.timestamp_micros());
        let (at, metric, device) = self.after.map_or((0, 0, 0), |after| {
            (after.at.timestamp_micros(), after.metric_id, after.device.0)
        });
        write!(f, "{from}.{to}.{at}.{metric}.{device}")
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "not the `next` of a page";
        let mut numbers = text.split('.').map(str::parse::<i64>);
        let mut number = || numbers.next().and_then(Result::ok).ok_or(WRONG);
        let time = |micros| DateTime::from_timestamp_micros(micros).ok_or(WRONG);
        let (from, to, at) = (time(number()?)?, time(number()?)?, time(number()?)?);
        let metric_id = i32::try_from(number()?).map_err(|_| WRONG)?;
        let device = DeviceId(number()?);
        if numbers.next().is_some() || from > to {
            return Err(WRONG);
        }
        Ok(Self {
            from,
            to,
            after: Some(Place {
                at,
                device,
                metric_id,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(asked: &Asked<'_>) -> Result<Wanted, Error> {
        Wanted::parse(asked, Format::Json, now())
    }

    fn now() -> DateTime<Utc> {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn errors(asked: &Asked<'_>) -> Vec<String> {
        match parse(asked) {
            Err(Error::Invalid { errors }) => errors.into_keys().collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn without_parameters_it_is_the_last_day_as_it_came() {
        let wanted = parse(&Asked::default()).unwrap();
        assert_eq!(
            (wanted.query.from, wanted.query.to),
            (now() - DEFAULT_SPAN, now())
        );
        assert!(wanted.query.metrics.is_none() && wanted.query.buckets.is_none());
        assert_eq!(wanted.page_limit(), DEFAULT_LIMIT);
    }

    #[test]
    fn every_wrong_parameter_is_named() {
        let all = Asked {
            metric: Some("a b"),
            from: Some("yesterday"),
            to: Some("tomorrow"),
            bucket: Some("5"),
            agg: Some("median"),
            fill: Some("zero"),
            limit: Some(0),
            cursor: Some("1.2"),
            always_in_buckets: false,
        };
        assert_eq!(
            errors(&all),
            ["agg", "bucket", "cursor", "fill", "from", "limit", "metric", "to"]
        );
        for asked in [
            Asked {
                agg: Some("avg"),
                ..Asked::default()
            },
            Asked {
                bucket: Some("1h"),
                agg: Some("Avg"),
                ..Asked::default()
            },
        ] {
            assert_eq!(errors(&asked), ["agg"]);
        }
        let future = Asked {
            from: Some("2026-03-01T12:00:01Z"),
            ..Asked::default()
        };
        assert_eq!(errors(&future), ["from"]);
        let many = Asked {
            limit: Some(MAX_LIMIT + 1),
            ..Asked::default()
        };
        assert_eq!(errors(&many), ["limit"]);
        assert!(
            Wanted::parse(&many, Format::Csv, now()).is_ok(),
            "a stream may be long"
        );
    }

    #[test]
    fn a_cursor_reads_back_as_written() {
        let after = Place {
            at: now() - TimeDelta::microseconds(1),
            device: DeviceId(5),
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
            "1.2.3.4",
            "1.2.3.4.x",
            "1.2.3.4.5.6",
            "1.2.3.99999999999.5",
            "9223372036854775807.1.1.1.1",
            "2.1.1.1.1",
        ] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }
}
