//! REST: routes, extractors and problem+json. A handler parses, calls one use case, and presents the answer.
//!
//! Each noun has a file with `pub(super) fn routes() -> OpenApiRouter<Context>`, its paths relative to
//! `/api/v1`; [`api`] merges them. The OpenAPI document is made of the same routes.

mod activate;
mod actor;
mod alerts;
mod answer;
mod audit;
mod changes;
mod client;
mod cookie;
mod credentials;
mod devices;
mod docs;
mod etag;
mod events;
mod extract;
mod factory;
mod groups;
mod health;
mod limits;
pub mod metrics;
mod models;
mod mqtt_sessions;
mod oauth;
mod oidc;
mod openapi;
mod owners;
mod page;
mod params;
mod problem;
mod request_id;
mod schedules;
mod serve;
mod session;
mod settings;
mod stall;
mod telemetry;
mod timeline;
mod tokens;
mod totp;
mod users;
mod webhooks;
pub mod websocket;

#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef},
    http::StatusCode,
    middleware,
    response::IntoResponse,
};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer, compression::CompressionLayer, decompression::RequestDecompressionLayer,
    timeout::TimeoutLayer,
};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{app::App, config, lifecycle::Tasks};

pub use actor::DeviceActor;
pub use extract::{Json, Path, Payload, Query};
pub use metrics::HttpMetrics;
pub use page::{Page, PageQuery};
pub use problem::Problem;
pub use serve::serve;

/// Where the REST interface stands.
pub const BASE: &str = "/api/v1";

/// What handlers may ask for with `State`. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The use cases.
    pub app: App,
    /// The server's tasks, for readiness.
    pub tasks: Tasks,
    /// Cancelled when open connections are to end.
    pub stopping: CancellationToken,
    /// All metrics.
    pub registry: Arc<Registry>,
    /// Where this server is, as clients see it.
    pub public: Arc<Public>,
}

/// Where this server is, as clients see it.
#[derive(Debug, Clone, Default)]
pub struct Public {
    /// The address of HTTP; from each request without it.
    pub http: Option<String>,
    /// The address of MQTT; from each request and the ports without it.
    pub mqtt: Option<String>,
    /// The port of MQTT over TLS.
    pub mqtt_tls_port: Option<u16>,
    /// The port of MQTT over TCP.
    pub mqtt_port: Option<u16>,
}

impl Public {
    /// The address of MQTT on this host: encrypted if it can be.
    fn mqtt_at(&self, host: &str) -> String {
        match (self.mqtt_tls_port, self.mqtt_port) {
            (Some(port), _) => format!("mqtts://{host}:{port}"),
            (None, Some(port)) => format!("mqtt://{host}:{port}"),
            (None, None) => format!("mqtt://{host}"),
        }
    }
}

impl FromRef<Context> for App {
    fn from_ref(context: &Context) -> Self {
        context.app.clone()
    }
}

/// The routes of every noun, under [`BASE`]: one line each, in alphabetical order.
fn api() -> OpenApiRouter<Context> {
    let nouns = OpenApiRouter::new()
        .merge(alerts::routes())
        .merge(audit::routes())
        .merge(changes::routes())
        .merge(credentials::routes())
        .merge(devices::routes())
        .merge(events::routes())
        .merge(factory::routes())
        .merge(groups::routes())
        .merge(models::routes())
        .merge(mqtt_sessions::routes())
        .merge(oidc::routes())
        .merge(owners::routes())
        .merge(schedules::routes())
        .merge(session::routes())
        .merge(settings::routes())
        .merge(telemetry::routes())
        .merge(timeline::routes())
        .merge(tokens::routes())
        .merge(totp::routes())
        .merge(users::routes())
        .merge(webhooks::routes());
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .nest(BASE, nouns)
        .merge(activate::routes())
        .merge(health::routes())
        .merge(oauth::routes())
        .merge(metrics::routes())
}

/// The OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    openapi::with_problems(api().into_openapi())
}

/// Every route of the server with its layers; `further` routes (MQTT over WebSocket) get the same ones.
///
/// # Errors
/// When the OpenAPI document can't be rendered.
pub fn router(
    context: Context,
    limits: &config::Http,
    metrics: HttpMetrics,
    further: Router<Context>,
) -> Result<Router, serde_json::Error> {
    let (nouns, document) = api().split_for_parts();
    // Monitoring looks for these at the root; who has the base configured finds them there too.
    let (probes, _) = health::routes().merge(metrics::routes()).split_for_parts();
    let routes = nouns
        .nest(BASE, probes)
        .merge(openapi::routes(&openapi::with_problems(document))?)
        .merge(docs::routes())
        .merge(activate::assets())
        .merge(further);
    Ok(layered(routes, limits, metrics).with_state(context))
}

/// The layers around every route, from the outermost in.
fn layered<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    limits: &config::Http,
    metrics: HttpMetrics,
) -> Router<S> {
    let proxies: Arc<[IpAddr]> = limits.trusted_proxies.as_slice().into();
    let limiter = limits::Limiter::new(limits.limits.clone());
    let layers = ServiceBuilder::new()
        .layer(middleware::from_fn(request_id::identify))
        .layer(middleware::from_fn_with_state(proxies, client::locate))
        .layer(middleware::from_fn_with_state(metrics, metrics::measure))
        .layer(middleware::from_fn(docs::security_headers))
        .layer(middleware::from_fn(request_id::refuse_uncoded))
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn(request_id::explain))
        .layer(middleware::from_fn_with_state(limiter, limits::limit))
        .layer(CatchPanicLayer::custom(|_| panicked().into_response()))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            limits.request_timeout,
        ))
        .layer(DefaultBodyLimit::max(limits.max_body));
    // Innermost, so that what a body is when it is unpacked counts for its limit.
    let unpacking = RequestDecompressionLayer::new();
    routes
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(unpacking)
        .layer(layers)
}

/// The answer to a request whose handler panicked; the panic itself is in the log.
fn panicked() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error")
}
