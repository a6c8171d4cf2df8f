//! `/devices/{serial}/telemetry`.

use std::{fmt::Display, str::FromStr};

use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use setpoint_model::{
    Serial,
    telemetry::{Aggregate, Bucket, MetricList, Value},
};
use setpoint_store::telemetry::{Position, Reading};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, DeviceActor, Json, Page, Path, Payload, Problem, Query};
use crate::app::{
    Actor, App, Error, FieldErrors,
    telemetry::{self, Report},
};

/// The largest `limit`, in readings.
const MAX_LIMIT: i64 = 10_000;
/// The `limit` when none is asked for.
const DEFAULT_LIMIT: i64 = 1_000;
/// How far back history goes when `from` is not given.
const DEFAULT_SPAN: TimeDelta = TimeDelta::hours(24);

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(history, ingest))
        .routes(routes!(latest))
}

/// One value of one metric.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Item {
    /// When it was taken, or the beginning of its bucket.
    at: DateTime<Utc>,
    /// The metric.
    #[schema(example = "temperature")]
    metric: String,
    /// A number, a boolean or a text.
    #[schema(value_type = serde_json::Value, example = 21.5)]
    value: Value<'static>,
}

impl From<Reading> for Item {
    fn from(reading: Reading) -> Self {
        Self {
            at: reading.at,
            metric: reading.metric,
            value: reading.value,
        }
    }
}

/// Which part of a device's history to read.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
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

/// The newest value of each metric.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct LatestList {
    /// By metric name.
    items: Vec<Item>,
}

/// What became of the samples sent.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Stored {
    /// Samples stored; one that was there already counts.
    stored: usize,
    /// What was not stored, and why: the first hundred.
    problems: Vec<SampleProblem>,
    /// Problems beyond those.
    more_problems: usize,
    /// Objects with a time too far in the future: stored at the time of their arrival.
    clock_ahead: usize,
}

/// Why a part of the samples was not stored.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct SampleProblem {
    /// Which object of the array, from 0; null when the body is a single object.
    item: Option<usize>,
    /// The key; null when it is about the whole object.
    key: Option<String>,
    /// What is wrong.
    message: String,
}

impl From<Report> for Stored {
    fn from(report: Report) -> Self {
        let problems = report.problems.listed().iter().map(|problem| SampleProblem {
            item: problem.item,
            key: problem.key.clone(),
            message: problem.message.to_string(),
        });
        let problems: Vec<_> = problems.collect();
        let more_problems = report.problems.count() - problems.len();
        Self {
            stored: report.stored,
            problems,
            more_problems,
            clock_ahead: report.skewed,
        }
    }
}

/// Reads a device's history, oldest first.
#[utoipa::path(
    get, path = "/devices/{serial}/telemetry", tag = "telemetry",
    security(("bearer" = ["telemetry:read"])),
    params(("serial" = String, Path, description = "The device's serial"), HistoryQuery),
    responses(
        (status = 200, description = "A page of history", body = Page<Item>),
        (status = 404, description = "No such device", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is not valid", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn history(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Page<Item>>, Problem> {
    let wanted = Wanted::parse(&query, app.clock.now())?;
    let readings = app
        .telemetry(
            &actor,
            &serial,
            telemetry::Query {
                metrics: wanted.metrics.as_ref().map(MetricList::as_slice),
                from: wanted.cursor.from,
                to: wanted.cursor.to,
                buckets: wanted.buckets,
                after: wanted.cursor.after,
                limit: wanted.limit + 1,
            },
        )
        .await?;
    let cursor = |last: &Reading| {
        let after = Some(Position {
            at: last.at,
            metric_id: last.metric_id,
        });
        Cursor {
            after,
            ..wanted.cursor
        }
        .to_string()
    };
    Ok(Json(Page::of(readings, wanted.limit, cursor).map(Item::from)))
}

/// Reads the newest value of each metric that a device has sent.
#[utoipa::path(
    get, path = "/devices/{serial}/telemetry/latest", tag = "telemetry",
    security(("bearer" = ["telemetry:read"])),
    params(("serial" = String, Path, description = "The device's serial")),
    responses(
        (status = 200, description = "The newest values, by metric", body = LatestList),
        (status = 404, description = "No such device", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn latest(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
) -> Result<Json<LatestList>, Problem> {
    let readings = app.latest_telemetry(&actor, &serial).await?;
    Ok(Json(LatestList {
        items: readings.into_iter().map(Item::from).collect(),
    }))
}

/// Stores samples: an object of metrics, or an array of them, each with an optional `at`.
///
/// Answered when they are committed. The good ones are stored even if others are not.
#[utoipa::path(
    post, path = "/devices/{serial}/telemetry", tag = "telemetry",
    security(("device" = []), ("bearer" = ["telemetry:write"])),
    params(("serial" = String, Path, description = "The device's serial")),
    request_body(
        content = serde_json::Value, content_type = "application/json",
        example = json!({"temperature": 21.5, "humidity": 40, "at": "2026-01-01T12:00:00Z"}),
    ),
    responses(
        (status = 200, description = "Committed, as far as there are no problems", body = Stored),
        (status = 404, description = "No such device", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Nothing could be stored", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn ingest(
    State(app): State<App>,
    DeviceActor(actor): DeviceActor,
    Path(serial): Path<Serial>,
    Payload(body): Payload,
) -> Result<Json<Stored>, Problem> {
    Ok(Json(app.ingest(&actor, &serial, &body).await?.into()))
}

/// The parameters of a history query, understood.
struct Wanted {
    metrics: Option<MetricList>,
    buckets: Option<(Bucket, Aggregate)>,
    limit: i64,
    cursor: Cursor,
}

impl Wanted {
    fn parse(query: &HistoryQuery, now: DateTime<Utc>) -> Result<Self, Error> {
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
struct Cursor {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    after: Option<Position>,
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
