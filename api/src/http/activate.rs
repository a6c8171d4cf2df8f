//! `/activate`: where the owner enters the code that a device shows.

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use setpoint_model::Serial;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, Json, Problem};
use crate::app::{Actor, App, Error, claims::Decision, policy::Action};

const PAGE: &str = include_str!("activate/page.html");
const SCRIPT: &str = include_str!("activate/page.js");
const STYLE: &str = include_str!("activate/page.css");

/// Its own script and style, and nothing else; no other page may frame it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

/// The page and what it asks; their path is RFC 8628's `verification_uri`, outside the base.
pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(page, activate))
}

/// What the page loads.
pub(super) fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let asset =
        |kind: &'static str, text: &'static str| get(async move || ([(header::CONTENT_TYPE, kind)], text));
    Router::new()
        .route(
            "/activate/page.js",
            asset("text/javascript; charset=utf-8", SCRIPT),
        )
        .route("/activate/page.css", asset("text/css; charset=utf-8", STYLE))
}

/// What a person enters.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Activation {
    /// The code that the device shows, in any case, with or without the dash.
    #[schema(example = "BDWP-HQPK")]
    user_code: String,
    /// `approve` or `deny`; without it, what the code stands for is shown and nothing decided.
    #[schema(example = "approve")]
    decision: Option<String>,
}

/// What the code stands for.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Activated {
    /// The device.
    #[schema(value_type = String, example = "HOME-1")]
    serial: Serial,
    /// Its model.
    #[schema(example = "home")]
    model: String,
    /// Whether it showed its factory secret.
    proven: bool,
    /// From which address it asked.
    address: Option<String>,
    /// `pending`, `approved` or `denied`.
    #[schema(example = "approved")]
    state: &'static str,
}

/// The page where the owner of a device enters its code.
#[utoipa::path(
    get, path = "/activate", tag = "claiming", security(()),
    responses((status = 200, description = "The page", body = String, content_type = "text/html"))
)]
async fn page() -> Response {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE)).into_response()
}

/// Shows what a device's code stands for, and registers that device to who approves.
#[utoipa::path(
    post, path = "/activate", tag = "claiming", security(("session" = []), ("bearer" = ["devices:claim"])),
    request_body = Activation,
    responses(
        (status = 200, description = "The device, and what became of its claim", body = Activated),
        (status = 404, description = "No such code waits"),
        (status = 409, description = "`device_registered`, `device_in_use` or `device_stolen`"),
        (status = 429, description = "Too many wrong codes; see Retry-After"),
    )
)]
async fn activate(
    State(app): State<App>,
    actor: Actor,
    body: Result<Json<Activation>, Problem>,
) -> Result<Json<Activated>, Problem> {
    app.authorize(&actor, Action::ClaimDevice)?;
    let Json(activation) = body?;
    let (decision, state) = match activation.decision.as_deref() {
        None => (Decision::Look, "pending"),
        Some("approve") => (Decision::Approve, "approved"),
        Some("deny") => (Decision::Deny, "denied"),
        Some(_) => return Err(Error::invalid("decision", "approve or deny").into()),
    };
    let claim = app.decide_claim(&actor, &activation.user_code, decision).await?;
    Ok(Json(Activated {
        serial: claim.serial,
        model: claim.model,
        proven: claim.proven,
        address: claim.address,
        state,
    }))
}
