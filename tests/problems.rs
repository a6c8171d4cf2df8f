//! Every error is a problem (RFC 9457) with a code and the request's id.

use reqwest::Method;
use serde_json::json;
use setpoint_tests::Harness;

#[tokio::test]
async fn each_status_has_its_problem() {
    let server = Harness::start().await;
    server.device("HOME-1").await;
    let api = server.api();
    api.post("/devices").body("{").await.problem(400, "malformed");
    let anonymous = api.anonymous().get("/devices").await;
    anonymous.problem(401, "unauthenticated");
    // RFC 6750, section 3.1: no error where nothing was presented.
    assert_eq!(anonymous.header("www-authenticate"), "Bearer");
    let wrong = api.with_token("spt_wrong").get("/devices").await;
    wrong.problem(401, "unauthenticated");
    assert_eq!(wrong.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    api.anonymous()
        .get("/devices")
        .header("authorization", "Bearer")
        .await
        .problem(401, "unauthenticated");
    api.anonymous()
        .get("/devices")
        .header("authorization", "nonsense")
        .await
        .problem(401, "unauthenticated");
    let reader = api.scoped(&["devices:read"]).await;
    let refused = reader.delete("/devices/HOME-1").await;
    let forbidden = refused.problem(403, "forbidden");
    assert_eq!(
        refused.header("www-authenticate"),
        "Bearer error=\"insufficient_scope\", scope=\"devices:write\""
    );
    assert!(
        forbidden["detail"].as_str().unwrap().contains("devices:write"),
        "{forbidden}"
    );
    api.get("/devices/NOBODY").await.problem(404, "not_found");
    api.get("/nothing/here").await.problem(404, "not_found");
    api.root(Method::GET, "/nothing").await.problem(404, "not_found");
    let wrong = api.call(Method::PATCH, "/devices").await;
    wrong.problem(405, "method_not_allowed");
    assert!(wrong.header("allow").contains("POST"), "{wrong:?}");
    api.post("/devices")
        .json(&json!({"serial": "HOME-1"}))
        .await
        .problem(409, "device_exists");
    let stale = api
        .patch("/devices/HOME-1/settings")
        .header("if-match", "\"9\"")
        .json(&json!({}))
        .await;
    stale.problem(412, "version_mismatch");
    api.post("/devices")
        .json(&json!({}))
        .await
        .problem(422, "validation_failed");
}

#[tokio::test]
async fn a_body_has_a_limit() {
    let server = Harness::setup().with("http.max_body", "2 KiB").start().await;
    let api = server.api();
    let body = |size: usize| json!({"serial": "A", "name": "x".repeat(size)}).to_string();
    api.post("/devices")
        .body(body(3_000))
        .await
        .problem(413, "too_large");
    // Neither a promise of the length nor its absence helps.
    let chunks = futures_util::stream::iter(vec![Ok::<_, std::io::Error>(body(3_000))]);
    api.post("/devices")
        .body(reqwest::Body::wrap_stream(chunks))
        .await
        .problem(413, "too_large");
    api.post("/devices").body(body(100)).await.expect(201);
}

#[tokio::test]
async fn the_request_id_is_given_or_taken() {
    let server = Harness::start().await;
    let one = server.api().get("/devices/NOBODY").await;
    let two = server.api().get("/devices/NOBODY").await;
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    let given = server
        .api()
        .get("/devices/NOBODY")
        .header("x-request-id", "mine-7")
        .await;
    assert_eq!(given.problem(404, "not_found")["request_id"], "mine-7");
    let hostile = server
        .api()
        .get("/devices/NOBODY")
        .header("x-request-id", "a b<script>")
        .await;
    assert_ne!(hostile.problem(404, "not_found")["request_id"], "a b<script>");
    let fine = server.api().get("/devices").await;
    assert!(
        !fine.header("x-request-id").is_empty(),
        "good answers have one too"
    );
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_503() {
    let server = Harness::setup()
        .gated()
        .with("http.request_timeout", "200ms")
        .start()
        .await;
    server.gate().stall();
    let waiting = server.api().get("/devices").await;
    waiting.problem(503, "unavailable");
    assert!(!waiting.header("retry-after").is_empty());
    server.back().await;
}

#[tokio::test]
async fn answers_have_security_headers() {
    let server = Harness::start().await;
    let answer = server.api().get("/devices").await;
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("x-frame-options"), "DENY");
    for name in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
        assert_eq!(answer.header(name), "same-origin", "{name}");
    }
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(answer.header("content-type").starts_with("application/json"));
}
