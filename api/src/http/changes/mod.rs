//! `/changes`: bulk changes of settings.

mod body;
mod request;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use setpoint_model::change::{Command, Outcome};
use setpoint_store::changes::DevicePage;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use self::{
    body::{ChangeBody, DeviceBody, DryRunBody},
    request::NewChange,
};
use super::{
    Context, Json, Page, Path, Payload, Problem, Query,
    page::{self, IdPageQuery},
    params::ChangePath,
};
use crate::app::{Actor, App, Error};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(begin, list))
        .routes(routes!(read))
        .routes(routes!(devices))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(cancel))
        .routes(routes!(undo))
}

/// Begins a bulk change, or with `dry_run` tells what it would do.
///
/// The devices are those that the selection means now. The canary gets the change first; when those devices have
/// answered, or had `abort.after` to do so, the others get it in waves. No further device is touched once more than
/// `abort.refused_percent` of those that have it refused it, or more than `abort.pending_percent` did not answer in time.
#[utoipa::path(
    post, path = "/changes", tag = "changes", security(("bearer" = ["settings:write"])), request_body = NewChange,
    responses(
        (status = 202, description = "Begun", body = ChangeBody),
        (status = 200, description = "With `dry_run`: what it would do", body = DryRunBody),
        (status = 400, description = "Not a JSON object, too deep, or with a key twice"),
        (status = 409, description = "Too many changes run or are paused"),
        (status = 413, description = "Larger than the limit"),
        (status = 422, description = "A field is not valid, the selection means no device or too many, or the patch is \
         valid for none of them: `errors` says what and why"),
    )
)]
async fn begin(
    State(app): State<App>,
    actor: Actor,
    body: Result<Payload, Problem>,
) -> Result<Response, Problem> {
    // Who may not is told so, whatever the body.
    app.authorize_change(&actor)?;
    let (request, dry_run) = NewChange::read(&body?, app.settings.limits)?;
    if dry_run {
        let would = app.try_change(&actor, &request).await?;
        return Ok(Json(DryRunBody::from(would)).into_response());
    }
    let begun = app.begin_change(&actor, &request).await?;
    Ok((StatusCode::ACCEPTED, Json(ChangeBody::from(begun))).into_response())
}

/// Lists bulk changes, newest first.
#[utoipa::path(
    get, path = "/changes", tag = "changes", security(("bearer" = ["settings:read"])), params(IdPageQuery),
    responses((status = 200, description = "A page of changes", body = Page<ChangeBody>))
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<IdPageQuery>,
) -> Result<Json<Page<ChangeBody>>, Problem> {
    let limit = page::limit(query.limit)?;
    let changes = app.changes(&actor, query.cursor, limit + 1).await?;
    let page = Page::of(changes, limit, |last| last.change.id.to_string());
    Ok(Json(page.map(ChangeBody::from)))
}

/// Shows a bulk change and how far it is at this moment.
#[utoipa::path(
    get, path = "/changes/{id}", tag = "changes", security(("bearer" = ["settings:read"])),
    params(ChangePath),
    responses(
        (status = 200, description = "The change", body = ChangeBody),
        (status = 404, description = "There is no such change"),
    )
)]
async fn read(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<Uuid>,
) -> Result<Json<ChangeBody>, Problem> {
    Ok(Json(app.change(&actor, id).await?.into()))
}

/// Which devices of a change to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DevicesQuery {
    /// Those that stand there: `refused`, `invalid`, ...
    #[param(example = "refused")]
    state: Option<String>,
    /// How many items at most: 1 to 1000, 100 by default.
    limit: Option<i64>,
    /// Where to go on: the `next` of the page before.
    cursor: Option<i32>,
}

/// Lists the devices of a bulk change, in the order in which they get it.
#[utoipa::path(
    get, path = "/changes/{id}/devices", tag = "changes", security(("bearer" = ["settings:read"])),
    params(ChangePath, DevicesQuery),
    responses(
        (status = 200, description = "A page of devices", body = Page<DeviceBody>),
        (status = 404, description = "There is no such change"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn devices(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<Uuid>,
    Query(query): Query<DevicesQuery>,
) -> Result<Json<Page<DeviceBody>>, Problem> {
    let limit = page::limit(query.limit)?;
    let outcome = query.state.as_deref().map(outcome).transpose()?;
    let page = DevicePage {
        outcome,
        after: query.cursor,
        limit: limit + 1,
    };
    let devices = app.change_devices(&actor, id, page).await?;
    let page = Page::of(devices, limit, |last| last.place.to_string());
    Ok(Json(page.map(DeviceBody::from)))
}

fn outcome(text: &str) -> Result<Outcome, Error> {
    text.parse().map_err(|_| {
        let known: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        Error::invalid("state", format!("must be one of {}", known.join(", ")))
    })
}

/// Holds a bulk change: no further device is touched until it is resumed.
#[utoipa::path(
    post, path = "/changes/{id}/pause", tag = "changes", security(("bearer" = ["settings:write"])),
    params(ChangePath),
    responses(
        (status = 200, description = "It is paused", body = ChangeBody),
        (status = 404, description = "There is no such change"),
        (status = 409, description = "It has ended: `state`"),
    )
)]
async fn pause(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<Uuid>,
) -> Result<Json<ChangeBody>, Problem> {
    let change = app.command_change(&actor, id, Command::Pause).await?;
    Ok(Json(change.into()))
}

/// Goes on with a bulk change that was paused.
#[utoipa::path(
    post, path = "/changes/{id}/resume", tag = "changes", security(("bearer" = ["settings:write"])),
    params(ChangePath),
    responses(
        (status = 200, description = "It goes on", body = ChangeBody),
        (status = 404, description = "There is no such change"),
        (status = 409, description = "It has ended: `state`"),
    )
)]
async fn resume(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<Uuid>,
) -> Result<Json<ChangeBody>, Problem> {
    let change = app.command_change(&actor, id, Command::Resume).await?;
    Ok(Json(change.into()))
}

/// Stops a bulk change for good: devices that have it keep it, no further one is touched.
#[utoipa::path(
    post, path = "/changes/{id}/cancel", tag = "changes", security(("bearer" = ["settings:write"])),
    params(ChangePath),
    responses(
        (status = 200, description = "It is cancelled", body = ChangeBody),
        (status = 404, description = "There is no such change"),
        (status = 409, description = "It has ended otherwise: `state`"),
    )
)]
async fn cancel(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<Uuid>,
) -> Result<Json<ChangeBody>, Problem> {
    let change = app.command_change(&actor, id, Command::Cancel).await?;
    Ok(Json(change.into()))
}

/// Takes a bulk change back that is paused or has ended.
///
/// Each device gets a new version with its former overrides of the keys of the patch. A key that somebody changed since
/// stays as it is; such devices are counted under `kept`, and their message names the keys.
#[utoipa::path(
    post, path = "/changes/{id}/undo", tag = "changes", security(("bearer" = ["settings:write"])),
    params(ChangePath),
    responses(
        (status = 202, description = "It is being taken back, or was", body = ChangeBody),
        (status = 404, description = "There is no such change"),
        (status = 409, description = "It runs: pause or cancel it first"),
    )
)]
async fn undo(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<Uuid>,
) -> Result<(StatusCode, Json<ChangeBody>), Problem> {
    let change = app.command_change(&actor, id, Command::Undo).await?;
    Ok((StatusCode::ACCEPTED, Json(change.into())))
}
