//! `DELETE /devices/{serial}/telemetry?metric=`.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use setpoint_model::Serial;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{Actor, App},
    http::{Context, Json, Path, Problem, Query},
};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(delete))
}

/// Which samples are to go.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeleteQuery {
    /// The metric's name; needed.
    #[param(example = "temperature")]
    metric: Option<String>,
}

/// How far a removal came.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Deleted {
    /// Samples deleted by this request.
    #[schema(example = 86400)]
    deleted: u64,
    /// Whether nothing is left; otherwise it goes on in the background, and the same request tells how far that is.
    done: bool,
}

/// Deletes every sample of one metric of a device, and frees its type: the next sample decides.
///
/// With very many samples one request is not enough: then `done` is false, and the rest goes on in the background.
#[utoipa::path(
    delete, path = "/devices/{serial}/telemetry", tag = "telemetry",
    security(("bearer" = ["telemetry:write"])),
    params(("serial" = String, Path, description = "The device's serial"), DeleteQuery),
    responses(
        (status = 200, description = "How many samples were deleted", body = Deleted),
        (status = 404, description = "No such device, or it never sent this metric"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Query(query): Query<DeleteQuery>,
) -> Result<Json<Deleted>, Problem> {
    let removed = app
        .delete_telemetry(&actor, &serial, query.metric.as_deref())
        .await?;
    Ok(Json(Deleted {
        deleted: removed.deleted,
        done: removed.done,
    }))
}
