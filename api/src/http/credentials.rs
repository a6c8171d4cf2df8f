//! `/devices/{serial}/credential`.

use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::Serialize;
use setpoint_model::{Serial, credential::Secret};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, Json, Path, Problem};
use crate::app::{Actor, App};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(rotate, revoke))
}

/// What a device signs in with over MQTT.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Credential {
    /// The user name: the serial.
    #[schema(value_type = String, example = "HOME-1")]
    username: Serial,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// The password, shown only in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "spd_6f1e...")]
    token: Option<String>,
}

impl Credential {
    /// One just made.
    pub(super) fn made(username: Serial, created_at: DateTime<Utc>, secret: &Secret) -> Self {
        Self {
            username,
            created_at,
            token: Some(secret.reveal().to_owned()),
        }
    }

    /// One that the device holds.
    pub(super) fn held(username: Serial, created_at: DateTime<Utc>) -> Self {
        Self {
            username,
            created_at,
            token: None,
        }
    }
}

/// Gives a device a new token.
///
/// The old one ends at once, and so do the sessions it opened.
#[utoipa::path(
    post, path = "/devices/{serial}/credential", tag = "devices", security(("bearer" = ["devices:write"])),
    params(("serial" = String, Path, description = "The device's serial", example = "HOME-1")),
    responses(
        (status = 201, description = "Made; `token` is shown this once", body = Credential),
        (status = 404, description = "There is no such device", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn rotate(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
) -> Result<(StatusCode, Json<Credential>), Problem> {
    let (secret, at) = app.rotate_credential(&actor, &serial).await?;
    Ok((StatusCode::CREATED, Json(Credential::made(serial, at, &secret))))
}

/// Takes a device's token away.
///
/// Its sessions end at once, and it can't sign in until it is given a new one.
#[utoipa::path(
    delete, path = "/devices/{serial}/credential", tag = "devices", security(("bearer" = ["devices:write"])),
    params(("serial" = String, Path, description = "The device's serial", example = "HOME-1")),
    responses(
        (status = 204, description = "It has no token any more"),
        (status = 404, description = "There is no such device", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn revoke(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
) -> Result<StatusCode, Problem> {
    app.revoke_credential(&actor, &serial).await?;
    Ok(StatusCode::NO_CONTENT)
}
