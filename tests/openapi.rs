//! The API's description of itself.

use reqwest::Method;
use serde_json::Value;
use setpoint_tests::Harness;

/// What DESIGN lists and this version serves, below `/api/v1`.
const ROUTES: [(&str, &[&str]); 16] = [
    ("/devices", &["get", "post"]),
    ("/devices/{serial}", &["get", "patch", "delete"]),
    ("/devices/{serial}/credential", &["post", "delete"]),
    ("/devices/{serial}/settings", &["get", "patch", "put"]),
    ("/devices/{serial}/settings/versions", &["get"]),
    ("/devices/{serial}/settings/versions/{version}", &["get"]),
    ("/devices/{serial}/settings/versions/{version}/revert", &["post"]),
    ("/devices/{serial}/telemetry", &["get", "post"]),
    ("/devices/{serial}/telemetry/latest", &["get"]),
    ("/devices/{serial}/timeline", &["get"]),
    ("/sessions", &["get"]),
    ("/sessions/{id}", &["get", "delete"]),
    ("/tokens", &["get", "post"]),
    ("/tokens/{id}", &["delete"]),
    ("/models", &["get", "post"]),
    ("/models/{name}", &["get", "put", "patch", "delete"]),
];

async fn document(server: &Harness) -> Value {
    server
        .api()
        .anonymous()
        .root(Method::GET, "/openapi.json")
        .await
        .expect(200)
}

/// A path with its parameters' names taken out.
fn shape(path: &str) -> String {
    let parts = path
        .split('/')
        .map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_route_is_described() {
    let server = Harness::start().await;
    let document = document(&server).await;
    assert!(
        document["openapi"].as_str().unwrap().starts_with("3."),
        "{}",
        document["openapi"]
    );
    let paths = document["paths"].as_object().unwrap();
    let find = |wanted: &str| {
        paths
            .iter()
            .find(|(path, _)| shape(path) == shape(wanted))
            .map(|(_, item)| item)
    };
    for (path, methods) in ROUTES {
        let path = format!("/api/v1{path}");
        let item = find(&path).unwrap_or_else(|| panic!("{path} is not described"));
        for method in methods {
            assert!(item[method].is_object(), "{method} {path}");
        }
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert!(find(path).is_some(), "{path}");
    }
}

#[tokio::test]
async fn what_is_described_is_served_and_nothing_more() {
    let server = Harness::start().await;
    let document = document(&server).await;
    for (path, item) in document["paths"].as_object().unwrap() {
        let filled = path.replace("{serial}", "A").replace("{version}", "1");
        let filled = filled
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part });
        let filled = filled.collect::<Vec<_>>().join("/");
        for method in ["get", "post", "put", "patch", "delete"] {
            let call = server
                .api()
                .anonymous()
                .root(method.to_uppercase().parse().unwrap(), &filled);
            let status = call.await.status.as_u16();
            if item[method].is_object() {
                assert!(
                    !matches!(status, 404 | 405),
                    "{method} {path} is described, but {status}"
                );
            } else {
                assert_eq!(status, 405, "{method} {path} is not described");
            }
        }
    }
}

#[tokio::test]
async fn every_operation_names_its_answers_and_its_problem() {
    let server = Harness::start().await;
    let document = document(&server).await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(
                operation["summary"].is_string() || operation["description"].is_string(),
                "{what}: no words"
            );
            assert!(operation["operationId"].is_string(), "{what}: no operationId");
            let answers = operation["responses"].as_object().unwrap();
            assert!(
                answers.keys().any(|code| code.starts_with(['2', '3'])),
                "{what}: no success"
            );
        }
    }
    references(&document, &document);
}

/// Every `$ref` leads somewhere within the document.
fn references(document: &Value, value: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference
                    .strip_prefix('#')
                    .expect("a reference within the document");
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|value| references(document, value));
        }
        Value::Array(items) => items.iter().for_each(|value| references(document, value)),
        _ => {}
    }
}

#[tokio::test]
async fn the_docs_page_needs_no_other_host() {
    let server = Harness::start().await;
    let api = server.api().anonymous();
    let mut pages = vec!["/docs".to_owned()];
    let (mut done, mut scripts) = (0, 0);
    while let Some(path) = pages.get(done).cloned() {
        done += 1;
        let answer = api.root(Method::GET, &path).await;
        assert_eq!(answer.status, 200, "{path}");
        let kind = answer.header("content-type");
        if kind.starts_with("text/html") {
            for reference in attributes(&answer.text) {
                let here = reference.starts_with("data:")
                    || !(reference.contains("//") || reference.starts_with("http"));
                assert!(here, "{path} refers to {reference}");
                let reference = reference.trim_start_matches("./");
                let full = if reference.starts_with('/') {
                    reference.to_owned()
                } else {
                    format!("/docs/{reference}")
                };
                if !full.contains(':') && !full.contains('#') && !pages.contains(&full) {
                    pages.push(full);
                }
            }
        } else {
            scripts += 1;
            for host in [
                "cdn.",
                "unpkg",
                "jsdelivr",
                "fonts.googleapis",
                "validator.swagger.io/validator/debug",
            ] {
                let loads = answer.text.contains(&format!("src=\"https://{host}"))
                    || answer.text.contains(&format!("@import url(https://{host}"))
                    || answer.text.contains(&format!("url(https://{host}"));
                assert!(!loads, "{path} loads from {host}");
            }
        }
        assert!(done < 30);
    }
    assert!(scripts >= 2, "a page with its script and its style: {pages:?}");
    let policy = api
        .root(Method::GET, "/docs")
        .await
        .header("content-security-policy");
    assert!(
        policy.contains("default-src 'self'") || policy.contains("default-src 'none'"),
        "{policy}"
    );
    assert!(
        !policy.contains("http"),
        "no other host, even if a script asked: {policy}"
    );
}

/// The values of `src` and `href` in a page.
fn attributes(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["src=\"", "href=\""] {
        for part in page.split(name).skip(1) {
            found.extend(part.split('"').next().map(str::to_owned));
        }
    }
    found
}
