//! `/devices/{serial}/timeline`.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use setpoint_model::{Serial, timeline::Kind};
use setpoint_store::timeline::{EntryPosition, StoredEntry};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, Json, Page, Path, Problem, Query};
use crate::app::{Actor, App, Error};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(timeline))
}

/// Something that happened to a device.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = TimelineItem)]
struct Item {
    /// When.
    at: DateTime<Utc>,
    /// What: `connected`, `disconnected`, `settings_changed`, `telemetry_rejected`, ...
    #[schema(value_type = Kind)]
    kind: String,
    /// The facts, by kind: a disconnection's `session` and `reason`, for example.
    data: serde_json::Value,
}

impl From<StoredEntry> for Item {
    fn from(entry: StoredEntry) -> Self {
        Self {
            at: entry.at,
            kind: entry.kind,
            data: entry.data,
        }
    }
}

/// Which entries to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct TimelineQuery {
    /// Only entries of these kinds, with commas between.
    #[param(example = "connected,disconnected")]
    kind: Option<String>,
    /// How many items at most: 1 to 1000, 100 by default.
    limit: Option<i64>,
    /// Where to go on: the `next` of the page before.
    cursor: Option<String>,
}

/// Lists what happened to a device, newest first.
#[utoipa::path(
    get, path = "/devices/{serial}/timeline", tag = "devices", security(("bearer" = ["devices:read"])),
    params(("serial" = String, Path, description = "The device's serial"), TimelineQuery),
    responses(
        (status = 200, description = "A page of the timeline", body = Page<Item>),
        (status = 404, description = "No such device"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn timeline(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Query(query): Query<TimelineQuery>,
) -> Result<Json<Page<Item>>, Problem> {
    let limit = super::page::limit(query.limit)?;
    let kinds = query.kind.as_deref().map_or(Ok(Vec::new()), kinds)?;
    let after = query.cursor.as_deref().map(position).transpose()?;
    let entries = app.timeline(&actor, &serial, &kinds, after, limit + 1).await?;
    Ok(Json(Page::of(entries, limit, cursor).map(Item::from)))
}

fn kinds(text: &str) -> Result<Vec<Kind>, Error> {
    let kinds = text.split(',').map(|kind| kind.trim().parse());
    kinds.collect::<Result<_, _>>().map_err(|error| {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        Error::invalid("kind", format!("{error}; known: {}", known.join(", ")))
    })
}

fn cursor(last: &StoredEntry) -> String {
    format!("{}.{}", last.at.timestamp_micros(), last.id)
}

fn position(cursor: &str) -> Result<EntryPosition, Error> {
    let parse = || {
        let (at, id) = cursor.split_once('.')?;
        let at = DateTime::from_timestamp_micros(at.parse().ok()?)?;
        Some(EntryPosition {
            at,
            id: id.parse().ok()?,
        })
    };
    parse().ok_or_else(|| Error::invalid("cursor", "not the `next` of a page"))
}
