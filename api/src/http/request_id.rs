//! A request's id: taken from or given in `x-request-id`, on every log line, and in every problem.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;
use uuid::Uuid;

use super::Problem;

/// The header, both ways.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken from a client, in characters.
const MAX_LENGTH: usize = 64;

#[derive(Debug, Clone)]
struct RequestId(String);

/// The outer layer: gives the request its id and its span, and the answer the header.
pub(super) async fn identify(mut request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(HEADER)
        .and_then(|given| given.to_str().ok())
        .filter(|id| is_well(id));
    let id = id.map_or_else(|| Uuid::new_v4().simple().to_string(), str::to_owned);
    let span =
        tracing::info_span!("http", request_id = id, method = %request.method(), path = request.uri().path());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

/// The inner layer: writes the id into problems, and makes problems of the bare errors that axum and the layers
/// below answer with (an unknown path, a wrong method, a time-out).
pub(super) async fn explain(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    let mut response = next.run(request).await;
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if is_bare_error(&response) => Problem::of_status(status, sentence(status)),
        None => return response,
    };
    let mut told = Problem {
        request_id: id.map(Into::into),
        ..problem
    }
    .into_response();
    // What else the answer says stays: Allow of a 405, Retry-After, WWW-Authenticate.
    for (name, value) in response.headers() {
        if !matches!(*name, header::CONTENT_TYPE | header::CONTENT_LENGTH) {
            told.headers_mut().insert(name, value.clone());
        }
    }
    told
}

/// Around the compression: a client that takes an answer neither with a coding of ours nor without any (RFC 9110, section
/// 12.5.3) is told so, rather than sent what it doesn't take.
pub(super) async fn refuse_uncoded(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    let response = next.run(request).await;
    let refused = StatusCode::NOT_ACCEPTABLE;
    let told = response.extensions().get::<Problem>();
    if response.status() != refused || told.is_some_and(|problem| problem.status == refused.as_u16()) {
        return response;
    }
    let detail = "this can be had as it is (`identity`) or in `gzip`";
    Problem {
        request_id: id.map(Into::into),
        ..Problem::of_status(refused, detail)
    }
    .into_response()
}

/// Whether this is an error that no handler of ours wrote.
fn is_bare_error(response: &Response) -> bool {
    let status = response.status();
    let content = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    (status.is_client_error() || status.is_server_error())
        && content.is_none_or(|content| content.starts_with("text/plain"))
}

fn sentence(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "there is nothing at this address",
        StatusCode::METHOD_NOT_ALLOWED => "this address takes other methods; see the Allow header",
        StatusCode::SERVICE_UNAVAILABLE => "the request took too long",
        StatusCode::PAYLOAD_TOO_LARGE => "the body is larger than this server takes",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            "the body's coding is none of those in the Accept-Encoding header"
        }
        _ => status.canonical_reason().unwrap_or("the request failed"),
    }
}

/// Whether an id from outside may stand in our log.
fn is_well(id: &str) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}
