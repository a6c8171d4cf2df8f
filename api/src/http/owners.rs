//! `/devices/{serial}/owners` and `/devices/{serial}/registration`.

use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::Serialize;
use setpoint_model::Serial;
use setpoint_store::owners;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, Json, Path, Problem, params::DevicePath};
use crate::app::{Actor, App};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(share, unshare))
        .routes(routes!(unregister))
}

/// Somebody a device is registered to, or shared with.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Owner {
    /// The person.
    #[schema(example = "anna")]
    username: String,
    /// Whether another owner let them in.
    shared: bool,
    /// Since when.
    since: DateTime<Utc>,
}

impl From<owners::Owner> for Owner {
    fn from(owner: owners::Owner) -> Self {
        Self {
            username: owner.username,
            shared: owner.shared,
            since: owner.since,
        }
    }
}

/// A device's owners.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Owners {
    /// Whom it is registered to first.
    items: Vec<Owner>,
}

/// Lists a device's owners.
#[utoipa::path(
    get, path = "/devices/{serial}/owners", tag = "devices", security(("bearer" = ["devices:read"])),
    params(DevicePath),
    responses(
        (status = 200, description = "Its owners", body = Owners),
        (status = 404, description = "There is no such device"),
    )
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
) -> Result<Json<Owners>, Problem> {
    let owners = app.owners(&actor, &serial).await?;
    Ok(Json(Owners {
        items: owners.into_iter().map(Owner::from).collect(),
    }))
}

/// Lets another person see and set a device.
#[utoipa::path(
    put, path = "/devices/{serial}/owners/{username}", tag = "devices", security(("bearer" = ["devices:claim"])),
    params(DevicePath, ("username" = String, Path, description = "Whom to let in", example = "ben")),
    responses(
        (status = 204, description = "They may"),
        (status = 404, description = "There is no such device, or nobody of this name"),
    )
)]
async fn share(
    State(app): State<App>,
    actor: Actor,
    Path((serial, username)): Path<(Serial, String)>,
) -> Result<StatusCode, Problem> {
    app.share_device(&actor, &serial, &username).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a share: another's, or one's own.
#[utoipa::path(
    delete, path = "/devices/{serial}/owners/{username}", tag = "devices", security(("bearer" = ["devices:claim"])),
    params(DevicePath, ("username" = String, Path, description = "Whom to let out", example = "ben")),
    responses(
        (status = 204, description = "They may no more"),
        (status = 404, description = "There is no such device or share"),
    )
)]
async fn unshare(
    State(app): State<App>,
    actor: Actor,
    Path((serial, username)): Path<(Serial, String)>,
) -> Result<StatusCode, Problem> {
    app.unshare_device(&actor, &serial, &username).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a device back.
///
/// Its sessions end, its token is dead, its retained messages are cleared. Its serial begins anew: nothing of the past
/// can be seen by who claims it next. Whom it is only shared with ends their share alone.
#[utoipa::path(
    delete, path = "/devices/{serial}/registration", tag = "devices", security(("bearer" = ["devices:claim"])),
    params(DevicePath),
    responses(
        (status = 204, description = "It is nobody's"),
        (status = 404, description = "There is no such device"),
    )
)]
async fn unregister(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
) -> Result<StatusCode, Problem> {
    app.unregister(&actor, &serial).await?;
    Ok(StatusCode::NO_CONTENT)
}
