//! What is counted of HTTP, and where all metrics are read.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, Problem};
use crate::app::{Actor, Error, policy::Action};

/// Upper bounds of the latency histogram, in seconds.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// The route of requests that match none, so that guessing addresses makes no new series.
const UNMATCHED: &str = "unmatched";

/// Counts of HTTP requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabels, Histogram, fn() -> Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    method: &'static str,
}

impl HttpMetrics {
    /// Registers the counts.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        };
        registry.register(
            "http_requests",
            "HTTP requests answered",
            metrics.requests.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "Time from a request's headers to its answer's",
            metrics.latency.clone(),
        );
        metrics
    }
}

/// Counts each request by route template, method and status.
pub async fn measure(State(metrics): State<HttpMetrics>, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or(UNMATCHED, MatchedPath::as_str)
        .to_owned();
    let method = method(&request);
    let began = Instant::now();
    let response = next.run(request).await;
    let elapsed = began.elapsed();
    let status = response.status().as_u16();
    tracing::debug!(route, method, status, ?elapsed, "answered");
    metrics
        .latency
        .get_or_create(&RouteLabels {
            route: route.clone(),
            method,
        })
        .observe(elapsed.as_secs_f64());
    metrics
        .requests
        .get_or_create(&RequestLabels {
            route,
            method,
            status,
        })
        .inc();
    response
}

/// The method, of a fixed choice: a client may invent methods, and each would be a series.
fn method(request: &Request) -> &'static str {
    match request.method().as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// The routes of the address that metrics have of their own, where nobody signs in.
pub fn separate(registry: Arc<Registry>) -> Router {
    let read = move || {
        let answer = render(&registry);
        async move { answer }
    };
    Router::new().route("/metrics", get(read))
}

/// Prometheus metrics, in the OpenMetrics text format.
#[utoipa::path(
    get, path = "/metrics", tag = "server",
    security(("bearer" = ["metrics:read"])),
    responses((status = 200, description = "All metrics", body = String, content_type = "application/openmetrics-text"))
)]
async fn metrics(actor: Actor, State(context): State<Context>) -> Result<Response, Problem> {
    context.app.authorize_all(&actor, Action::ReadMetrics)?;
    render(&context.registry)
}

fn render(registry: &Registry) -> Result<Response, Problem> {
    let mut text = String::new();
    encode(&mut text, registry).map_err(Error::internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
