//! `/devices/{serial}/telemetry`.

mod delete;
mod encode;
mod format;
mod group;
mod picture;
mod query;
mod stream;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use setpoint_model::{Serial, telemetry::MetricList};
use setpoint_store::telemetry::Reading;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, DeviceActor, Json, Page, Path, Payload, Problem, Query};
use crate::app::{
    Actor, App, Error, FieldErrors,
    telemetry::{Pages, Report},
};

use encode::Item;
use format::Format;
use query::{HistoryQuery, Wanted, field};
use stream::Streamed;

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(history, ingest))
        .routes(routes!(latest))
        .merge(delete::routes())
        .routes(routes!(picture::picture))
        .routes(routes!(group::history))
        .routes(routes!(group::latest))
}

impl From<Reading> for Item {
    fn from(reading: Reading) -> Self {
        Self {
            at: reading.at,
            serial: None,
            metric: reading.metric.into(),
            value: Some(reading.value),
        }
    }
}

/// Which newest values to read.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct LatestQuery {
    /// Metrics, with commas between, 64 at most; all without it. One that the device doesn't have has no item.
    #[param(example = "temperature,humidity")]
    metric: Option<String>,
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

/// Reads a device's history, oldest first: JSON in pages, CSV and NDJSON as streams of the whole range.
///
/// A stream that breaks off without its end (the connection is cut) is not the whole.
#[utoipa::path(
    get, path = "/devices/{serial}/telemetry", tag = "telemetry",
    security(("bearer" = ["telemetry:read"])),
    params(("serial" = String, Path, description = "The device's serial"), HistoryQuery),
    responses(
        (status = 200, description = "A page of history; as CSV or NDJSON, all of it", content(
            (Page<Item> = "application/json"),
            (String = "text/csv", example = "at,metric,value\r\n2026-01-01T12:00:00Z,temperature,21.5\r\n"),
            (Item = "application/x-ndjson"),
        )),
        (status = 404, description = "No such device"),
        (status = 406, description = "There is no format that the client accepts"),
        (status = 422, description = "A parameter is not valid, or it would be too many points"),
        (status = 503, description = "Too many streams are open"),
    )
)]
async fn history(
    State(context): State<Context>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Query(query): Query<HistoryQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let app = &context.app;
    let format = Format::wanted(query.format.as_deref(), &headers)?;
    let wanted = Wanted::parse(&query.asked(), format, app.clock.now())?;
    if format == Format::Json {
        let pages = app.telemetry(&actor, &serial, wanted.query.clone()).await?;
        return page(pages, &wanted).await;
    }
    let limit = wanted.limit;
    let export = app.export_telemetry(&actor, &serial, wanted.query, limit).await?;
    let streamed = Streamed {
        export,
        format,
        serials: false,
        name: serial.to_string(),
        stopping: context.stopping.clone(),
    };
    streamed.answer().await
}

/// The page that is wanted.
async fn page(mut pages: Pages, wanted: &Wanted) -> Result<Response, Problem> {
    let limit = wanted.page_limit();
    // One more, to see whether there is a next page.
    let points = pages.next(limit.saturating_add(1)).await?;
    let page = Page::of(points, limit, |last| wanted.cursor(last)).map(Item::from);
    let vary = [(header::VARY, HeaderValue::from_static("accept"))];
    Ok((vary, Json(page)).into_response())
}

/// Reads the newest value of each metric that a device has sent.
#[utoipa::path(
    get, path = "/devices/{serial}/telemetry/latest", tag = "telemetry",
    security(("bearer" = ["telemetry:read"])),
    params(("serial" = String, Path, description = "The device's serial"), LatestQuery),
    responses(
        (status = 200, description = "The newest values, by metric", body = LatestList),
        (status = 404, description = "No such device"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn latest(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Query(query): Query<LatestQuery>,
) -> Result<Json<LatestList>, Problem> {
    let mut errors = FieldErrors::new();
    let metrics = field::<MetricList>(&mut errors, "metric", query.metric.as_deref());
    if !errors.is_empty() {
        return Err(Error::Invalid { errors }.into());
    }
    let metrics = metrics.as_ref().map(MetricList::as_slice);
    let readings = app.latest_telemetry(&actor, &serial, metrics).await?;
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
        (status = 404, description = "No such device"),
        (status = 415, description = "The content coding is none of gzip and identity"),
        (status = 422, description = "Nothing could be stored"),
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
