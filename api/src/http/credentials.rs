//! `/devices/{serial}/credential`.

use std::time::Duration;

use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use setpoint_model::{Serial, credential::Secret};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, Json, Path, Payload, Problem, params::DevicePath};
use crate::app::{Actor, App, Error};

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

/// How a token is replaced.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// How long the old token goes on: `1h`, at most 30 days; not at all without it.
    #[schema(example = "1h")]
    grace: Option<String>,
}

/// Gives a device a new token.
///
/// The old one ends, and so do the sessions it opened: at once, or after `grace`.
#[utoipa::path(
    post, path = "/devices/{serial}/credential", tag = "devices", security(("bearer" = ["devices:write"])),
    params(DevicePath),
    request_body = Option<Rotation>,
    responses(
        (status = 201, description = "Made; `token` is shown this once", body = Credential),
        (status = 404, description = "There is no such device"),
    )
)]
async fn rotate(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Payload(body): Payload,
) -> Result<(StatusCode, Json<Credential>), Problem> {
    let rotation = match body.is_empty() {
        true => Rotation::default(),
        false => Json::<Rotation>::read(&body)?,
    };
    let grace = match &rotation.grace {
        None => Duration::ZERO,
        Some(text) => humantime::parse_duration(text)
            .map_err(|_| Error::invalid("grace", "a duration such as \"1h\" or \"30m\""))?,
    };
    let (secret, at) = app.rotate_credential(&actor, &serial, grace).await?;
    Ok((StatusCode::CREATED, Json(Credential::made(serial, at, &secret))))
}

/// Takes a device's token away.
///
/// Its sessions end at once, and it can't sign in until it is given a new one.
#[utoipa::path(
    delete, path = "/devices/{serial}/credential", tag = "devices", security(("bearer" = ["devices:write"])),
    params(DevicePath),
    responses(
        (status = 204, description = "It has no token any more"),
        (status = 404, description = "There is no such device"),
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
