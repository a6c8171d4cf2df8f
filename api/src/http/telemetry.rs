//! `/devices/{serial}/telemetry`.

mod query;

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use setpoint_model::{
    Serial,
    telemetry::{MetricList, Value},
};
use setpoint_store::telemetry::{Position, Reading};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, DeviceActor, Json, Page, Path, Payload, Problem, Query};
use crate::app::{
    Actor, App,
    telemetry::{self, Report},
};

use query::{Cursor, HistoryQuery, Wanted};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(history, ingest))
        .routes(routes!(latest))
}

/// One value of one metric.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = TelemetryItem)]
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
