//! People: adding, changing and removing them, and what that does to their tokens.

use serde_json::{Value, json};
use setpoint_tests::{Harness, Version};

use crate::sessions::{PASSWORD, person};

#[tokio::test]
async fn an_administrator_adds_changes_and_removes_people() {
    let server = Harness::start().await;
    let api = server.api();
    let new =
        json!({"username": "Anna", "password": PASSWORD, "role": "operator", "email": "anna@example.org"});
    let made = api.post("/users").json(&new).await.expect(201);
    assert_eq!(made["username"], "anna", "names are kept in lower case");
    assert_eq!(made["role"], "operator");
    assert!(
        !made.to_string().contains(PASSWORD) && made.get("password_hash").is_none(),
        "{made}"
    );
    api.post("/users").json(&new).await.problem(409, "user_exists");
    let list = api.get("/users").await.expect(200);
    let names: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["username"].clone())
        .collect();
    assert_eq!(names, ["admin", "anna"]);

    let changed = api
        .patch("/users/anna")
        .json(&json!({"role": "viewer", "email": null}))
        .await
        .expect(200);
    assert_eq!(
        (&changed["role"], &changed["email"]),
        (&json!("viewer"), &Value::Null)
    );
    assert_eq!(api.get("/users/ANNA").await.expect(200), changed);
    api.delete("/users/anna").await.expect(204);
    for call in [api.get("/users/anna"), api.delete("/users/anna")] {
        call.await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn wrong_fields_and_weak_passwords_are_named() {
    let server = Harness::start().await;
    let good = json!({"username": "anna", "password": PASSWORD, "role": "viewer"});
    for (field, value) in [
        ("username", json!("")),
        ("username", json!("a b")),
        ("role", json!("king")),
        ("email", json!("nobody")),
        ("password", json!("short")),
        ("password", json!("password123")),
        ("password", json!("aaaaaaaaaaaa")),
        ("password", json!("I am anna and so")),
        ("colour", json!("red")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let errors = server.api().post("/users").json(&body).await.invalid();
        assert_eq!(
            errors.as_object().unwrap().keys().collect::<Vec<_>>(),
            [field],
            "{body}"
        );
    }
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let server = Harness::start().await;
    let api = server.api();
    api.delete("/users/admin")
        .await
        .problem(409, "last_administrator");
    let demotion = json!({"role": "viewer"});
    api.patch("/users/admin")
        .json(&demotion)
        .await
        .problem(409, "last_administrator");
    person(&server, "second", "admin").await;
    api.patch("/users/admin").json(&demotion).await.expect(200);
    api.get("/users").await.problem(403, "forbidden");
}

#[tokio::test]
async fn a_token_loses_the_rights_that_its_maker_loses() {
    let server = Harness::start().await;
    let ben = person(&server, "ben", "operator").await;
    let body = json!({"name": "tools", "scopes": ["devices:write", "devices:read", "mqtt"]});
    let made = ben.post("/tokens").json(&body).await.expect(201);
    let token = server.api().with_token(made["token"].as_str().unwrap());
    token
        .post("/devices")
        .json(&json!({"serial": "A"}))
        .await
        .expect(201);
    let mut session = server.operator(Version::V5, token.token(), "ops").connect().await;

    server
        .api()
        .patch("/users/ben")
        .json(&json!({"role": "viewer"}))
        .await
        .expect(200);
    token.get("/devices").await.expect(200);
    token
        .post("/devices")
        .json(&json!({"serial": "B"}))
        .await
        .problem(403, "forbidden");
    session.ended().await;
    let mut session = server.operator(Version::V5, token.token(), "ops").connect().await;
    assert_eq!(
        session.publish("devices/A/telemetry", "{}").await,
        0x87,
        "it hears, and says nothing"
    );

    server.api().delete("/users/ben").await.expect(204);
    session.ended().await;
    token.get("/devices").await.problem(401, "unauthenticated");
    ben.get("/devices").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_person_makes_tokens_of_their_own_rights_and_sees_no_others() {
    let server = Harness::start().await;
    let viewer = person(&server, "vera", "viewer").await;
    for scope in ["admin", "settings:write", "devices:claim", "audit:read"] {
        let body = json!({"name": "more", "scopes": [scope]});
        viewer.post("/tokens").json(&body).await.problem(403, "forbidden");
    }
    let body = json!({"name": "mine", "scopes": ["devices:read"]});
    let made = viewer.post("/tokens").json(&body).await.expect(201);
    let mine = made["id"].as_str().unwrap();
    let list = viewer.get("/tokens").await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    let all = server.api().get("/tokens").await.expect(200);
    let foreign = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["id"] != mine)
        .unwrap();
    let foreign = format!("/tokens/{}", foreign["id"].as_str().unwrap());
    viewer.get(&foreign).await.problem(404, "not_found");
    viewer.delete(&foreign).await.problem(404, "not_found");
    viewer.delete(&format!("/tokens/{mine}")).await.expect(204);
}
