//! `/models/{name}/header.h` and `/models/{name}/openapi.json`: what firmware and programs are built from.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{Actor, App, Error},
    http::{Context, Path, Problem, etag, params::ModelPath},
};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(header_file))
        .routes(routes!(component))
}

/// Gives a model as a C99 header.
///
/// A struct with a typed field per setting, and macros for keys, units, ranges, defaults, metrics and the model's version.
#[utoipa::path(
    get, path = "/models/{name}/header.h", tag = "models", security(("bearer" = ["models:read"])),
    params(
        ModelPath,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the header that is there already"),
    ),
    responses(
        (status = 200, description = "The header", body = String, content_type = "text/x-c",
         headers(("ETag" = String, description = "A digest of the text"))),
        (status = 304, description = "It is the same as the one that is there"),
        (status = 404, description = "There is no such model"),
    )
)]
async fn header_file(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let text = app.model_header(&actor, &name).await?;
    generated(&headers, "text/x-c; charset=utf-8", text)
}

/// Gives a model's settings, a patch of them, and its telemetry as OpenAPI components.
#[utoipa::path(
    get, path = "/models/{name}/openapi.json", tag = "models", security(("bearer" = ["models:read"])),
    params(
        ModelPath,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the document that is there already"),
    ),
    responses(
        (status = 200, description = "An OpenAPI document with the component schemas", body = Object,
         headers(("ETag" = String, description = "A digest of the text"))),
        (status = 304, description = "It is the same as the one that is there"),
        (status = 404, description = "There is no such model"),
    )
)]
async fn component(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let document = app.model_component(&actor, &name).await?;
    generated(&headers, "application/json", document.to_string())
}

/// The text with an `ETag` of its own: another release of the server may make another text of the same version.
fn generated(headers: &HeaderMap, kind: &'static str, text: String) -> Result<Response, Problem> {
    let digest = Sha256::digest(text.as_bytes());
    let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{digest}\"");
    let value = HeaderValue::from_str(&tag).map_err(Error::internal)?;
    if etag::none_match(headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, value)]).into_response());
    }
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(([kind, (header::ETAG, value)], text).into_response())
}
