//! Pages for people: the landing page, and the API's documentation, which needs nothing from other servers.

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::{Html, Response},
    routing::get,
};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Swagger UI styles elements from its script and draws icons from `data:` addresses; all else is our own.
const DOCS_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// Nothing is loaded and nothing may frame it: right for JSON, and for pages without assets.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// No page of another site may hold on to a window of ours, or embed what we answer (HTML standard; Fetch standard).
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

const LANDING: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Setpoint</title>
<meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\"></head>
<body><h1>Setpoint</h1>
<p>This server is up. What it can do: <a href=\"/docs/\">API documentation</a>,
<a href=\"/openapi.json\">OpenAPI document</a>.</p>
<p>Is it well? <a href=\"/healthz\">liveness</a>, <a href=\"/readyz\">readiness</a>.</p>
</body></html>
";

/// The pages.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    // No validator: its badge would be fetched from another server.
    let config = Config::new(["/openapi.json"])
        .validator_url("none")
        .try_it_out_enabled(true);
    let swagger = Router::from(SwaggerUi::new("/docs").config(config));
    swagger
        .layer(middleware::from_fn(docs_policy))
        .route("/", get(async || Html(LANDING)))
}

async fn docs_policy(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, DOCS_POLICY);
    response
}

/// Headers that every answer carries, unless its handler set its own.
pub(super) async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let ours: [(HeaderName, HeaderValue); 7] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (OPENER_POLICY, HeaderValue::from_static("same-origin")),
        (RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    for (name, value) in ours {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}
