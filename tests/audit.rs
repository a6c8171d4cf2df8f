//! The audit log.

use serde_json::{Value, json};
use setpoint_tests::{Harness, eventually};

use crate::{
    claiming::claimed,
    sessions::{PASSWORD, person},
};

async fn entries(server: &Harness, query: &str) -> Vec<Value> {
    let list = server.api().get(&format!("/audit?{query}")).await.expect(200);
    list["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn every_change_tells_who_what_where_and_how_it_was() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "owner").await;
    let token = claimed(&server, &anna, "A").await;
    anna.patch("/devices/A")
        .json(&json!({"name": "Hall"}))
        .await
        .expect(200);
    anna.patch("/devices/A/settings")
        .json(&json!({"label": "x"}))
        .await
        .expect(200);
    anna.delete("/devices/A/registration").await.expect(204);
    server
        .api()
        .patch("/users/anna")
        .json(&json!({"role": "viewer"}))
        .await
        .expect(200);

    let of_device = entries(&server, "object=device:A").await;
    let actions: Vec<&str> = of_device
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "device.unregister",
            "settings.write",
            "device.update",
            "device.enrol",
            "device.claim"
        ]
    );
    for entry in &of_device {
        assert_eq!(entry["outcome"], "done", "{entry}");
        assert_eq!(entry["address"], "127.0.0.1", "{entry}");
    }
    let update = &of_device[2];
    assert_eq!(update["actor"], "user:anna");
    assert_eq!(
        (&update["before"]["name"], &update["after"]["name"]),
        (&json!(""), &json!("Hall"))
    );
    let role = entries(&server, "action=user.update").await;
    assert_eq!(
        (&role[0]["before"]["role"], &role[0]["after"]["role"]),
        (&json!("owner"), &json!("viewer"))
    );
    let all = server.api().get("/audit?limit=1000").await.text;
    for secret in [PASSWORD, token.as_str(), anna.cookie.as_str(), "argon2"] {
        assert!(!all.contains(secret), "{all}");
    }
}

#[tokio::test]
async fn sign_ins_and_refusals_are_told_too() {
    let server = Harness::start().await;
    let vera = person(&server, "vera", "viewer").await;
    let wrong = json!({"username": "vera", "password": "not this one"});
    server
        .api()
        .anonymous()
        .post("/session")
        .json(&wrong)
        .await
        .problem(401, "unauthenticated");
    vera.delete("/devices/A").await.problem(403, "forbidden");
    assert_eq!(
        entries(&server, "action=session.begin&outcome=done").await.len(),
        1
    );
    eventually!(
        entries(&server, "action=session.begin&outcome=refused")
            .await
            .len()
            == 1
    );
    let refused = eventually!(
        entries(&server, "action=device.delete&outcome=refused")
            .await
            .pop()
    );
    assert_eq!(
        (&refused["actor"], &refused["object"]),
        (&json!("user:vera"), &json!("device:A"))
    );
}

#[tokio::test]
async fn it_is_read_in_pages_and_exported() {
    let server = Harness::start().await;
    for number in 0..5 {
        server.device(&format!("A{number}")).await;
    }
    let first = server
        .api()
        .get("/audit?action=device.create&limit=3")
        .await
        .expect(200);
    assert_eq!(first["items"].as_array().unwrap().len(), 3);
    assert_eq!(first["items"][0]["object"], "device:A4", "newest first");
    let next = first["next"].as_str().unwrap();
    let rest = entries(&server, &format!("action=device.create&limit=3&cursor={next}")).await;
    assert_eq!(rest.len(), 2);
    let lines = server
        .api()
        .get("/audit?action=device.create&format=ndjson")
        .await;
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    assert_eq!(lines.text.lines().count(), 5);
    assert!(
        lines
            .text
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
    let table = server
        .api()
        .get("/audit?action=device.create&format=csv&limit=2")
        .await;
    assert_eq!(table.text.lines().count(), 3);
    assert!(
        table
            .text
            .starts_with("id,at,actor,action,object,address,outcome,before,after\r\n")
    );
    assert!(table.header("link").contains("rel=\"next\""));
    for query in ["limit=0", "format=pdf", "who=me", "from=yesterday"] {
        server.api().get(&format!("/audit?{query}")).await.invalid();
    }
}

#[tokio::test]
async fn postgres_takes_nothing_of_it_back() {
    let server = Harness::start().await;
    server.device("A").await;
    let before = entries(&server, "").await;
    for statement in [
        "update audit set actor = 'nobody'",
        "update audit set outcome = outcome where false or id = 1",
        "delete from audit",
        "delete from audit where action = 'device.create'",
        "truncate audit",
        "truncate audit cascade",
    ] {
        server
            .sql(&format!(
                "do $$ begin
                     begin {statement}; exception when insufficient_privilege then return; end;
                     raise exception 'was allowed';
                 end $$"
            ))
            .await;
    }
    assert_eq!(entries(&server, "").await, before);
}

#[tokio::test]
async fn an_entry_is_kept_for_as_long_as_is_configured() {
    let mut server = Harness::setup().with("audit.retention", "2days").start().await;
    // What is over is looked for at the start, and then every ten minutes.
    server.stop().await;
    server
        .sql(
            "insert into audit (at, actor, action, object, outcome)
             select now() - make_interval(days => age), 'user:anna', 'test', 'age:' || age, 'done'
             from generate_series(1, 4) age",
        )
        .await;
    server.start_again().await;
    let kept = eventually!({
        let kept = entries(&server, "action=test").await;
        (kept.len() < 4).then_some(kept)
    });
    let kept: Vec<&Value> = kept.iter().map(|entry| &entry["object"]).collect();
    assert_eq!(kept, ["age:1"]);
}
