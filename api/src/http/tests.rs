//! What every route gets from the layers and extractors, shown on routes made for it.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{Method, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde::Deserialize;
use serde_json::{Value, json};
use setpoint_model::Serial;
use tower::ServiceExt;

use super::{HttpMetrics, Json, Path, Query, layered, request_id};
use crate::config::{Config, Sources};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Thing {
    name: String,
    size: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    limit: Option<i64>,
}

/// A server of a few routes with a body limit of 100 bytes and a time-out of a second.
struct Served {
    router: Router,
    registry: Registry,
}

impl Served {
    fn new() -> Self {
        let sources = Sources::default()
            .with("http.max_body", "100 B")
            .with("http.request_timeout", "1s");
        let limits = Config::load(&sources).unwrap().http;
        let mut registry = Registry::default();
        let metrics = HttpMetrics::new(&mut registry);
        let router = Router::new()
            .route(
                "/things",
                post(async |Json(thing): Json<Thing>| format!("{}{:?}", thing.name, thing.size)),
            )
            .route(
                "/things",
                get(async |Query(filter): Query<Filter>| format!("{:?}", filter.limit)),
            )
            .route(
                "/things/{serial}",
                get(async |Path(serial): Path<Serial>| serial.to_string()),
            )
            .route("/panic", get(async || -> &'static str { panic!("as asked") }))
            .route("/never", get(std::future::pending::<&'static str>))
            .route("/long", get(async || "a".repeat(10_000)));
        Self {
            router: layered(router, &limits, metrics),
            registry,
        }
    }

    async fn send(&self, request: Request) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, body: impl Into<Body>) -> Response {
        self.send(Request::post("/things").body(body.into()).unwrap())
            .await
    }
}

async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

/// The problem in an answer, whose request id is the one in the header.
async fn problem(response: Response) -> Value {
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/problem+json"
    );
    let status = response.status().as_u16();
    let id = response.headers()[request_id::HEADER]
        .to_str()
        .unwrap()
        .to_owned();
    let problem: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(
        (&problem["status"], &problem["request_id"]),
        (&json!(status), &json!(id))
    );
    problem
}

#[tokio::test]
async fn what_no_handler_answers_is_a_problem() {
    let served = Served::new();
    let unknown = problem(served.get("/nothing").await).await;
    assert_eq!(
        (&unknown["status"], &unknown["code"]),
        (&json!(404), &json!("not_found"))
    );

    let request = Request::builder()
        .method(Method::DELETE)
        .uri("/things")
        .body(Body::empty())
        .unwrap();
    let wrong = served.send(request).await;
    assert_eq!(wrong.headers()[header::ALLOW], "POST,GET,HEAD");
    assert_eq!(problem(wrong).await["code"], "method_not_allowed");
}

#[tokio::test]
async fn a_body_that_will_not_do_is_told_precisely() {
    let served = Served::new();
    assert_eq!(
        text(served.post(r#"{"name":"a","size":1}"#).await).await,
        "aSome(1)"
    );
    for (body, status, code, errors) in [
        ("{", 400, "malformed", None),
        ("", 400, "malformed", None),
        ("[1", 400, "malformed", None),
        (
            r#"{"size":1}"#,
            422,
            "validation_failed",
            Some(json!({"name": "is needed"})),
        ),
        (
            r#"{"name":"a","size":"b"}"#,
            422,
            "validation_failed",
            Some(json!({"size": "invalid type: string \"b\", expected u8"})),
        ),
        (
            r#"{"name":"a","nam":1}"#,
            422,
            "validation_failed",
            Some(json!({"nam": "is not known here; known: `name` or `size`"})),
        ),
    ] {
        let problem = problem(served.post(body).await).await;
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&json!(status), &json!(code)),
            "{body}"
        );
        assert_eq!(problem.get("errors"), errors.as_ref(), "{body}");
    }
    let large = served.post(format!(r#"{{"name":"{}"}}"#, "a".repeat(100))).await;
    assert_eq!(problem(large).await["code"], "too_large");
}

#[tokio::test]
async fn a_path_that_names_nothing_is_not_found() {
    let served = Served::new();
    assert_eq!(text(served.get("/things/HOME-1").await).await, "HOME-1");
    assert_eq!(problem(served.get("/things/-x").await).await["code"], "not_found");
}

#[tokio::test]
async fn a_query_that_will_not_do_names_the_field() {
    let served = Served::new();
    assert_eq!(text(served.get("/things?limit=3").await).await, "Some(3)");
    let wrong = problem(served.get("/things?limit=x").await).await;
    assert_eq!(wrong["status"], 422);
    assert_eq!(wrong["errors"], json!({"limit": "invalid digit found in string"}));
    let unknown = problem(served.get("/things?limt=3").await).await;
    assert_eq!(
        unknown["errors"],
        json!({"limt": "is not known here; known: `limit`"})
    );
}

#[tokio::test]
async fn a_panic_is_a_problem_of_that_request_alone() {
    let served = Served::new();
    let answer = problem(served.get("/panic").await).await;
    assert_eq!(
        (&answer["code"], &answer["detail"]),
        (&json!("internal"), &json!("internal error"))
    );
    assert_eq!(served.get("/things").await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_answered() {
    let served = Served::new();
    let begun = tokio::time::Instant::now();
    let answer = served.get("/never").await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!(answer.headers()[header::RETRY_AFTER], "2");
    assert_eq!(problem(answer).await["status"], 503);
}

#[tokio::test]
async fn a_request_keeps_its_id_unless_it_could_spoil_the_log() {
    let served = Served::new();
    for (given, kept) in [("abc-1", true), ("a b", false), (&*"x".repeat(65), false)] {
        let request = Request::get("/nothing")
            .header(request_id::HEADER, given)
            .body(Body::empty())
            .unwrap();
        let problem = problem(served.send(request).await).await;
        assert_eq!(problem["request_id"] == given, kept, "{given}");
    }
}

#[tokio::test]
async fn answers_are_compressed_and_carry_the_security_headers() {
    let served = Served::new();
    let request = Request::get("/long")
        .header(header::ACCEPT_ENCODING, "gzip")
        .body(Body::empty())
        .unwrap();
    let answer = served.send(request).await;
    assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
    assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert!(answer.headers().contains_key(header::CONTENT_SECURITY_POLICY));
    assert!(!answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[tokio::test]
async fn requests_are_counted_by_route_template() {
    let served = Served::new();
    for path in ["/things/A", "/things/B", "/nothing/1", "/nothing/2"] {
        served.get(path).await;
    }
    let mut text = String::new();
    encode(&mut text, &served.registry).unwrap();
    for line in [
        r#"http_requests_total{route="/things/{serial}",method="GET",status="200"} 2"#,
        r#"http_requests_total{route="unmatched",method="GET",status="404"} 2"#,
        r#"http_request_duration_seconds_count{route="/things/{serial}",method="GET"} 2"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// Every operation says who may call it, and every scope it names exists: other tests walk this document.
#[test]
fn every_operation_names_its_scope() {
    let document = serde_json::to_value(super::document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| (format!("{method} {path}"), operation))
    });
    for (name, operation) in operations {
        let security = operation["security"]
            .as_array()
            .unwrap_or_else(|| panic!("{name} names no security"));
        assert!(!security.is_empty(), "{name}");
        for scope in security.iter().flat_map(|s| s["bearer"].as_array()).flatten() {
            assert!(
                scope.as_str().unwrap().parse::<setpoint_model::Scope>().is_ok(),
                "{name}: {scope}"
            );
        }
        assert!(operation["responses"]["default"].is_object(), "{name}");
        assert!(operation["summary"].is_string(), "{name} has no summary");
    }
}
