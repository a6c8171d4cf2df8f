//! One's own account: password, e-mail address, and being kept out.

use serde_json::{Value, json};
use setpoint_tests::{Harness, eventually};

use crate::sessions::{PASSWORD, person, sign_in};

const ANOTHER: &str = "coffee at ten, rarely";

#[tokio::test]
async fn a_person_changes_their_own_password() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "viewer").await;
    let (second, ben) = (
        sign_in(&server, "anna", PASSWORD).await,
        person(&server, "ben", "viewer").await,
    );
    let change = |current: &str, new: &str| {
        let body = json!({"current": current, "new": new});
        anna.post("/session/password").json(&body)
    };
    for (current, new, field) in [
        ("not this one", ANOTHER, "current"),
        (PASSWORD, PASSWORD, "new"),
        (PASSWORD, "short", "new"),
        (PASSWORD, "password123", "new"),
        (PASSWORD, "I am anna and so", "new"),
    ] {
        let errors = change(current, new).await.invalid();
        assert_eq!(
            errors.as_object().unwrap().keys().collect::<Vec<_>>(),
            [field],
            "{new}"
        );
    }
    second.get("/session").await.expect(200);
    change(PASSWORD, ANOTHER).await.expect(204);
    anna.get("/session").await.expect(200);
    second.get("/session").await.problem(401, "unauthenticated");
    ben.get("/session").await.expect(200);
    let old = json!({"username": "anna", "password": PASSWORD});
    let old = server.api().anonymous().post("/session").json(&old).await;
    old.problem(401, "unauthenticated");
    sign_in(&server, "anna", ANOTHER).await;

    let log = server
        .api()
        .get("/audit?action=password.change")
        .await
        .expect(200);
    let entry = &log["items"][0];
    assert_eq!(
        (&entry["actor"], &entry["object"], &entry["outcome"]),
        (&json!("user:anna"), &json!("user:anna"), &json!("done"))
    );
    assert!(!log.to_string().contains(ANOTHER) && !log.to_string().contains("argon2"));
    eventually!({
        let refused = server.api().get("/audit?action=password.check").await.expect(200);
        refused["items"][0]["outcome"] == "refused"
    });
}

#[tokio::test]
async fn guessing_the_password_at_an_open_session_is_slowed_down() {
    let server = Harness::setup().with("sign_in.max_failures", "3").start().await;
    let anna = person(&server, "anna", "viewer").await;
    let change = |current: &str| {
        let body = json!({"current": current, "new": ANOTHER});
        anna.post("/session/password").json(&body)
    };
    for _ in 0..3 {
        assert!(change("not this one").await.invalid()["current"].is_string());
    }
    let answer = change(PASSWORD).await;
    answer.problem(429, "too_many_requests");
    assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
}

#[tokio::test]
async fn a_person_reads_their_account_and_changes_their_address() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "viewer").await;
    let who = anna.get("/session").await.expect(200);
    assert_eq!(
        (&who["username"], &who["role"], &who["email"]),
        (&json!("anna"), &json!("viewer"), &Value::Null)
    );
    let patch = |email: Value| anna.patch("/session").json(&json!({"email": email}));
    let changed = patch(json!("anna@example.org")).await.expect(200);
    assert_eq!(changed["email"], "anna@example.org");
    assert_eq!(changed["csrf_token"], who["csrf_token"]);
    assert!(patch(json!("nobody")).await.invalid()["email"].is_string());
    let more = json!({"email": null, "role": "admin"});
    assert!(anna.patch("/session").json(&more).await.invalid()["role"].is_string());
    assert_eq!(patch(Value::Null).await.expect(200)["email"], Value::Null);
    assert_eq!(
        server.api().get("/users/anna").await.expect(200)["role"],
        "viewer"
    );
}

#[tokio::test]
async fn an_account_is_not_for_tokens() {
    let server = Harness::start().await;
    let api = server.api();
    let who = api.get("/session").await.expect(200);
    assert_eq!((&who["email"], &who["totp"]), (&Value::Null, &Value::Null));
    let password = json!({"current": "x", "new": ANOTHER});
    for call in [
        api.patch("/session").json(&json!({"email": null})),
        api.post("/session/password").json(&password),
        api.post("/session/totp"),
        api.post("/session/totp/confirm").json(&json!({"code": "123456"})),
        api.post("/session/totp/disable")
            .json(&json!({"password": "x", "code": "123456"})),
    ] {
        call.await.problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn who_is_disabled_is_kept_out_until_that_is_taken_back() {
    let server = Harness::start().await;
    let api = server.api();
    let ben = person(&server, "ben", "operator").await;
    let body = json!({"name": "tools", "scopes": ["devices:read", "mqtt"]});
    let made = ben.post("/tokens").json(&body).await.expect(201);
    let token = api.with_token(made["token"].as_str().unwrap());
    token.get("/devices").await.expect(200);
    let watcher = server.operator(setpoint_tests::Version::V5, token.token(), "ops");
    let mut session = watcher.connect().await;

    let disabled = api.patch("/users/ben").json(&json!({"disabled": true})).await;
    assert_eq!(disabled.expect(200)["disabled"], true);
    ben.get("/session").await.problem(401, "unauthenticated");
    token.get("/devices").await.problem(401, "unauthenticated");
    session.ended().await;
    let who = json!({"username": "ben", "password": PASSWORD});
    let anonymous = api.anonymous();
    let refused = anonymous.post("/session").json(&who).await;
    refused.problem(401, "unauthenticated");

    api.patch("/users/ben")
        .json(&json!({"disabled": false}))
        .await
        .expect(200);
    ben.get("/session").await.problem(401, "unauthenticated");
    token.get("/devices").await.expect(200);
    anonymous.post("/session").json(&who).await.expect(200);

    let last = api.patch("/users/admin").json(&json!({"disabled": true})).await;
    last.problem(409, "last_administrator");
}
