//! API tokens.

use chrono::TimeDelta;
use serde_json::{Value, json};
use setpoint_model::{Clock as _, SystemClock, clock::ManualClock};
use setpoint_tests::{Api, Harness, Version};

#[tokio::test]
async fn a_token_is_shown_once() {
    let server = Harness::start().await;
    let body = json!({"name": "ci", "scopes": ["devices:read", "mqtt"]});
    let made = server.api().post("/tokens").json(&body).await.expect(201);
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("spt_"), "secret scanners find it");
    let id = made["id"].as_str().unwrap();
    let list = server.api().get("/tokens").await;
    assert!(!list.text.contains(token));
    let items = list.expect(200)["items"].as_array().unwrap().clone();
    let listed = items.iter().find(|item| item["id"] == id).unwrap();
    assert_eq!(listed["name"], "ci");
    assert_eq!(listed["scopes"], json!(["devices:read", "mqtt"]));
    assert_eq!(listed["expires_at"], Value::Null);
    assert!(listed.get("hash").is_none(), "{listed}");
    let holder = server.api().with_token(token);
    holder.get("/devices").await.expect(200);
    holder
        .post("/devices")
        .json(&json!({"serial": "A"}))
        .await
        .problem(403, "forbidden");
}

#[tokio::test]
async fn a_token_never_may_more_than_its_maker() {
    let server = Harness::start().await;
    // Making tokens is the administrator's, whatever else a token may do.
    for scopes in [
        &["devices:read"][..],
        &["devices:write", "settings:write", "mqtt"],
    ] {
        let maker = server.api().scoped(scopes).await;
        for wanted in [json!(["admin"]), json!(["models:write"])] {
            let body = json!({"name": "more", "scopes": wanted});
            maker.post("/tokens").json(&body).await.problem(403, "forbidden");
        }
    }
}

#[tokio::test]
async fn what_a_token_makes_ends_no_later_than_it_does() {
    let server = Harness::start().await;
    let make = async |maker: &Api, end: Value| {
        let body = json!({"name": "x", "scopes": ["devices:read", "tokens:write"], "expires_at": end});
        maker.post("/tokens").json(&body).await
    };
    let end = json!("2100-01-01T00:00:00Z");
    let maker = make(server.api(), end.clone()).await.expect(201);
    let maker = server.api().with_token(maker["token"].as_str().unwrap());
    for later in ["2100-01-01T00:00:01Z", "2101-01-01T00:00:00Z"] {
        let errors = make(&maker, json!(later)).await.invalid();
        let message = "no later than that of the token it is made with: 2100-01-01T00:00:00Z";
        assert_eq!(errors, json!({"expires_at": message}));
    }
    let sooner = json!("2099-01-01T00:00:00Z");
    for (asked, given) in [
        (Value::Null, &end),
        (end.clone(), &end),
        (sooner.clone(), &sooner),
    ] {
        let made = make(&maker, asked).await.expect(201);
        assert_eq!(&made["expires_at"], given, "{made}");
    }
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let server = Harness::start().await;
    for (body, field) in [
        (json!({"scopes": ["mqtt"]}), "name"),
        (json!({"name": "", "scopes": ["mqtt"]}), "name"),
        (json!({"name": "x"}), "scopes"),
        (json!({"name": "x", "scopes": []}), "scopes"),
        (json!({"name": "x", "scopes": ["everything"]}), "scopes"),
        (
            json!({"name": "x", "scopes": ["mqtt"], "expires_at": "tomorrow"}),
            "expires_at",
        ),
        (
            json!({"name": "x", "scopes": ["mqtt"], "expires_at": "2020-01-01T00:00:00Z"}),
            "expires_at",
        ),
        (
            json!({"name": "x", "scopes": ["mqtt"], "colour": "red"}),
            "colour",
        ),
    ] {
        let errors = server.api().post("/tokens").json(&body).await.invalid();
        assert_eq!(
            errors.as_object().unwrap().keys().collect::<Vec<_>>(),
            [field],
            "{body}: {errors}"
        );
    }
}

#[tokio::test]
async fn an_expired_token_is_none() {
    let clock = ManualClock::new(SystemClock.now());
    let server = Harness::setup().at(&clock).start().await;
    let soon = clock.now() + TimeDelta::hours(1);
    let body = json!({"name": "brief", "scopes": ["devices:read", "mqtt"], "expires_at": soon});
    let made = server.api().post("/tokens").json(&body).await.expect(201);
    let token = made["token"].as_str().unwrap();
    let holder = server.api().with_token(token);
    clock.advance(TimeDelta::hours(1) - TimeDelta::microseconds(1));
    holder.get("/devices").await.expect(200);
    server.operator(Version::V3, token, "early").connect().await;
    clock.advance(TimeDelta::microseconds(1));
    holder.get("/devices").await.problem(401, "unauthenticated");
    assert_eq!(server.operator(Version::V3, token, "late").refused().await, 5);
}

#[tokio::test]
async fn deleting_ends_it_at_once_everywhere() {
    let server = Harness::start().await;
    let made = server
        .api()
        .post("/tokens")
        .json(&json!({"name": "x", "scopes": ["devices:read", "mqtt"]}))
        .await;
    let made = made.expect(201);
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let holder = server.api().with_token(token);
    holder.get("/devices").await.expect(200);
    let mut session = server.operator(Version::V5, token, "ops").connect().await;
    assert_eq!(session.subscribe(&["devices/#"]).await, [1]);
    server.api().delete(&format!("/tokens/{id}")).await.expect(204);
    holder.get("/devices").await.problem(401, "unauthenticated");
    session.ended().await;
    assert_eq!(server.operator(Version::V5, token, "ops").refused().await, 0x87);
    server
        .api()
        .delete(&format!("/tokens/{id}"))
        .await
        .problem(404, "not_found");
}
