//! `/session/totp` and `/users/{username}/totp`: the second factor.

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use qrcode::{QrCode, render::svg};
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, Json, Path, Problem};
use crate::app::{Actor, App, Error};

/// Width and height of the QR code at least, in pixels.
const QR_SIZE: u32 = 240;
/// Secrets are shown once, and no cache keeps them.
const NO_STORE: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(enrol))
        .routes(routes!(confirm))
        .routes(routes!(disable))
        .routes(routes!(reset))
}

/// What an authenticator needs to know; shown this once.
#[derive(Serialize, utoipa::ToSchema)]
struct Enrolment {
    /// The secret in base 32, for who types it in.
    #[schema(example = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")]
    secret: String,
    /// The same as an `otpauth:` address.
    otpauth_url: String,
    /// That address as a QR code: an SVG image.
    qr_svg: String,
}

/// The first code.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    /// The six digits that the authenticator shows.
    #[schema(example = "123456")]
    code: String,
}

/// For who loses their authenticator; shown this once.
#[derive(Serialize, utoipa::ToSchema)]
struct RecoveryCodes {
    /// Each signs in once in place of a code.
    recovery_codes: Vec<String>,
}

/// Who one is, once more.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Proof {
    /// One's password.
    password: String,
    /// The six digits that the authenticator shows, or a recovery code.
    #[schema(example = "123456")]
    code: String,
}

/// Begins to enrol a second factor (TOTP, RFC 6238). It counts once it is confirmed.
#[utoipa::path(
    post, path = "/session/totp", tag = "people", security(("session" = [])),
    responses(
        (status = 200, description = "What the authenticator needs to know, this once", body = Enrolment),
        (status = 409, description = "`totp_enabled`; `no_password`"),
    )
)]
async fn enrol(State(app): State<App>, actor: Actor) -> Result<impl IntoResponse, Problem> {
    let enrolment = app.enrol_totp(&actor).await?;
    let code = QrCode::new(enrolment.url.as_bytes()).map_err(Error::internal)?;
    let qr_svg = code
        .render::<svg::Color<'_>>()
        .min_dimensions(QR_SIZE, QR_SIZE)
        .build();
    let body = Enrolment {
        secret: enrolment.secret,
        otpauth_url: enrolment.url,
        qr_svg,
    };
    Ok(([NO_STORE], Json(body)))
}

/// Confirms the second factor by its first code. From now on signing in asks for one.
#[utoipa::path(
    post, path = "/session/totp/confirm", tag = "people", security(("session" = [])), request_body = Confirmation,
    responses(
        (status = 200, description = "Enabled, with ten recovery codes, this once", body = RecoveryCodes),
        (status = 409, description = "`totp_not_begun`"),
        (status = 422, description = "`code` is wrong"),
        (status = 429, description = "Too many wrong codes; see Retry-After"),
    )
)]
async fn confirm(
    State(app): State<App>,
    actor: Actor,
    Json(confirmation): Json<Confirmation>,
) -> Result<impl IntoResponse, Problem> {
    let codes = app.confirm_totp(&actor, &confirmation.code).await?;
    let recovery_codes = codes.iter().map(|code| code.reveal()).collect();
    Ok(([NO_STORE], Json(RecoveryCodes { recovery_codes })))
}

/// Disables one's second factor.
#[utoipa::path(
    post, path = "/session/totp/disable", tag = "people", security(("session" = [])), request_body = Proof,
    responses(
        (status = 204, description = "Disabled"),
        (status = 409, description = "`totp_disabled`"),
        (status = 422, description = "`password` or `code` is wrong"),
        (status = 429, description = "Too many failures; see Retry-After"),
    )
)]
async fn disable(
    State(app): State<App>,
    actor: Actor,
    Json(proof): Json<Proof>,
) -> Result<StatusCode, Problem> {
    app.disable_totp(&actor, proof.password, &proof.code).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the second factor of a person who lost it.
#[utoipa::path(
    delete, path = "/users/{username}/totp", tag = "people", security(("bearer" = ["admin"])),
    params(("username" = String, Path, description = "Their name", example = "anna")),
    responses(
        (status = 204, description = "Gone"),
        (status = 404, description = "There is nobody of this name, or they have none"),
    )
)]
async fn reset(
    State(app): State<App>,
    actor: Actor,
    Path(username): Path<String>,
) -> Result<StatusCode, Problem> {
    app.reset_totp(&actor, &username).await?;
    Ok(StatusCode::NO_CONTENT)
}
