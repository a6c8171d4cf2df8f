//! Signing in, staying signed in, and signing out.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use setpoint_tests::{Api, Harness, eventually, harness::api::Call};

/// A password that will do.
pub(crate) const PASSWORD: &str = "tea at nine, mostly";

/// Somebody signed in: their cookie and CSRF token.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    api: Api,
    pub(crate) cookie: String,
    pub(crate) csrf: String,
}

impl Person {
    /// Signs in to the server of `api`.
    pub(crate) async fn sign_in(api: Api, username: &str, password: &str) -> Self {
        let body = json!({"username": username, "password": password});
        let answer = api.post("/session").json(&body).await;
        let csrf = answer.expect(200)["csrf_token"].as_str().unwrap().to_owned();
        let cookie = answer.header("set-cookie");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Self { api, cookie, csrf }
    }

    /// A request below `/api/v1` with the cookie and the CSRF token.
    pub(crate) fn call(&self, method: Method, path: &str) -> Call {
        let call = self.api.call(method, path).header("cookie", &self.cookie);
        call.header("x-csrf-token", &self.csrf)
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> Call {
        self.call(Method::POST, path)
    }

    pub(crate) fn patch(&self, path: &str) -> Call {
        self.call(Method::PATCH, path)
    }

    pub(crate) fn put(&self, path: &str) -> Call {
        self.call(Method::PUT, path)
    }

    pub(crate) fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    /// Decides on a device's code.
    pub(crate) fn activate(&self, body: &Value) -> Call {
        let call = self
            .api
            .root(Method::POST, "/activate")
            .header("cookie", &self.cookie);
        call.header("x-csrf-token", &self.csrf).json(body)
    }
}

/// Signs in.
pub(crate) async fn sign_in(server: &Harness, username: &str, password: &str) -> Person {
    Person::sign_in(server.api().anonymous(), username, password).await
}

/// Adds a person and signs them in.
pub(crate) async fn person(server: &Harness, username: &str, role: &str) -> Person {
    let body = json!({"username": username, "password": PASSWORD, "role": role});
    server.api().post("/users").json(&body).await.expect(201);
    sign_in(server, username, PASSWORD).await
}

#[tokio::test]
async fn a_cookie_keeps_a_person_signed_in() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "viewer").await;
    let api = server.api().anonymous();
    let answer = api
        .post("/session")
        .json(&json!({"username": "ANNA", "password": PASSWORD}))
        .await;
    let cookie = answer.header("set-cookie");
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(
        !cookie.contains("Secure"),
        "without TLS it would not come back: {cookie}"
    );
    let behind_tls = api.post("/session").header("x-forwarded-proto", "https");
    let answer = behind_tls
        .json(&json!({"username": "anna", "password": PASSWORD}))
        .await;
    assert!(answer.header("set-cookie").contains("; Secure"));

    let who = anna.get("/session").await.expect(200);
    assert_eq!(
        (&who["username"], &who["role"]),
        (&json!("anna"), &json!("viewer"))
    );
    assert_eq!(
        who["csrf_token"],
        anna.csrf.as_str(),
        "a reloaded page finds it again"
    );
    anna.get("/devices").await.expect(200);
    api.get("/session").await.problem(401, "unauthenticated");
    let token = server.api().get("/session").await.expect(200);
    assert_eq!(
        (&token["username"], token.get("csrf_token")),
        (&json!("admin"), None)
    );
}

#[tokio::test]
async fn a_session_changes_nothing_without_its_csrf_token() {
    let server = Harness::start().await;
    let (anna, ben) = (
        person(&server, "anna", "operator").await,
        person(&server, "ben", "operator").await,
    );
    let api = server.api().anonymous();
    let body = json!({"serial": "A"});
    let bare = api.post("/devices").header("cookie", &anna.cookie).json(&body);
    bare.await.problem(403, "csrf");
    let foreign = api
        .post("/devices")
        .header("cookie", &anna.cookie)
        .header("x-csrf-token", &ben.csrf);
    foreign.json(&body).await.problem(403, "csrf");
    anna.post("/devices").json(&body).await.expect(201);
    let credentials = json!({"username": "anna", "password": PASSWORD});
    let other_site = api.post("/session").header("sec-fetch-site", "cross-site");
    other_site.json(&credentials).await.problem(403, "csrf");
    // Where a browser doesn't say that, its `Origin` does.
    let from = |origin: &str| api.post("/session").header("origin", origin).json(&credentials);
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1", ""] {
        from(origin).await.problem(403, "csrf");
    }
    from(api.server()).await.expect(200);
}

#[tokio::test]
async fn signing_out_ends_one_session_or_all() {
    let server = Harness::start().await;
    let first = person(&server, "anna", "viewer").await;
    let (second, third) = (
        sign_in(&server, "anna", PASSWORD).await,
        sign_in(&server, "anna", PASSWORD).await,
    );
    let ended = first.delete("/session").await;
    ended.expect(204);
    assert!(ended.header("set-cookie").contains("Max-Age=0"));
    first.get("/session").await.problem(401, "unauthenticated");
    second.get("/session").await.expect(200);
    second.delete("/session?everywhere").await.expect(204);
    third.get("/session").await.problem(401, "unauthenticated");

    let fourth = sign_in(&server, "anna", PASSWORD).await;
    let patch = json!({"password": "another good one"});
    server.api().patch("/users/anna").json(&patch).await.expect(200);
    fourth.get("/session").await.problem(401, "unauthenticated");
    sign_in(&server, "anna", "another good one").await;
}

#[tokio::test]
async fn a_session_ends_when_it_was_idle_or_is_old() {
    let server = Harness::start().await;
    for (column, age) in [("last_used_at", "13 hours"), ("created_at", "31 days")] {
        let anna = person(&server, column, "viewer").await;
        anna.get("/session").await.expect(200);
        let aged = format!("update sessions set {column} = {column} - interval '{age}'");
        server.sql(&aged).await;
        anna.get("/session").await.problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn guessing_passwords_is_slowed_down() {
    let server = Harness::setup().with("sign_in.max_failures", "3").start().await;
    person(&server, "anna", "viewer").await;
    let api = server.api().anonymous();
    for name in ["anna", "nobody"] {
        let wrong = json!({"username": name, "password": "not this one"});
        for _ in 0..3 {
            api.post("/session")
                .json(&wrong)
                .await
                .problem(401, "unauthenticated");
        }
        let right = json!({"username": name, "password": PASSWORD});
        let answer = api.post("/session").json(&right).await;
        answer.problem(429, "too_many_requests");
        assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
    }
    let other = json!({"username": "admin", "password": "not this one"});
    api.post("/session")
        .json(&other)
        .await
        .problem(401, "unauthenticated");
}

#[tokio::test]
async fn too_many_requests_are_answered_429() {
    let limited = |key: &str| {
        let setup = Harness::setup().with("http.limits.limit_loopback", "true");
        setup.with("http.limits.burst", "1").with(key, "5").start()
    };
    let server = limited("http.limits.per_address").await;
    let api = server.api().anonymous();
    // Many at once, so that a slow machine is too fast as well.
    let refused = eventually!({
        let answers = join_all((0..20).map(|_| async { api.root(Method::GET, "/healthz").await })).await;
        answers.into_iter().find(|answer| answer.status == 429)
    });
    refused.problem(429, "too_many_requests");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0);
    eventually!(api.root(Method::GET, "/healthz").await.status == 200);

    let server = limited("http.limits.per_token").await;
    eventually!({
        let answers = join_all((0..20).map(|_| async { server.api().get("/devices").await })).await;
        answers.iter().any(|answer| answer.status == 429)
    });
    let other = server.api().anonymous().root(Method::GET, "/healthz");
    assert_eq!(other.await.status, 200, "another client has its own limit");
}

#[tokio::test]
async fn no_other_origin_may_read_an_answer() {
    let server = Harness::start().await;
    for method in [Method::OPTIONS, Method::GET] {
        let call = server.api().anonymous().root(method, "/api/v1/session");
        let call = call.header("origin", "https://evil.example");
        let answer = call.header("access-control-request-method", "GET").await;
        for header in ["access-control-allow-origin", "access-control-allow-credentials"] {
            assert_eq!(answer.header(header), "");
        }
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(
            answer
                .header("content-security-policy")
                .contains("default-src 'none'")
        );
    }
}
