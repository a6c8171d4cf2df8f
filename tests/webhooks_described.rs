//! Webhooks: what they may say, and how they are changed.

use serde_json::{Value, json};
use setpoint_tests::Harness;

#[tokio::test]
async fn each_refusal_is_exact() {
    let server = Harness::start().await;
    let api = server.api();
    let refused = async |body: Value| api.post("/webhooks").json(&body).await.invalid();
    let with = |field: &str, value: Value| {
        let mut body = json!({"name": "ops", "url": "https://example.com/", "events": ["presence"]});
        body[field] = value;
        body
    };
    assert_eq!(
        refused(json!({})).await,
        json!({"name": "is needed", "url": "is needed", "events": "is needed"})
    );
    for (field, value, message) in [
        (
            "name",
            json!("-a"),
            "1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit",
        ),
        (
            "url",
            json!("example.com"),
            "must be a URL such as https://example.com/hook",
        ),
        (
            "url",
            json!("ftp://example.com/"),
            "must begin with https:// or http://",
        ),
        (
            "url",
            json!("https://me:secret@example.com/"),
            "must not hold a user name or password; use headers",
        ),
        (
            "url",
            json!("http://example.com/"),
            "must begin with https://: webhooks.allow_http",
        ),
        (
            "url",
            json!("https://10.0.0.1/"),
            "10.0.0.1 is a private address: webhooks.allow_private",
        ),
        (
            "url",
            json!("https://0x7f.1/"),
            "127.0.0.1 is a loopback address: webhooks.allow_private",
        ),
        (
            "url",
            json!("https://[::ffff:169.254.169.254]/"),
            "::ffff:169.254.169.254 is a link-local address: webhooks.allow_private",
        ),
        (
            "url",
            json!("http://1.1.1.1/"),
            "1.1.1.1 is reached over https alone: webhooks.allow_http",
        ),
        (
            "url",
            json!(format!("https://example.com/{}", "x".repeat(2048))),
            "at most 2048 bytes",
        ),
        (
            "events",
            json!(["telemetry"]),
            "telemetry is too much for webhooks: read it over REST or MQTT, or follow GET /events",
        ),
        ("events", json!([]), "at least one"),
        ("events", json!("presence"), "must be a list"),
        ("serial", json!("NOBODY"), "there is no such device"),
        ("group", json!("nothing"), "there is no such group"),
        (
            "selector",
            json!("a="),
            "expected a value at character 3, found the end",
        ),
        (
            "secret",
            json!("hunter2"),
            "must be whsec_ followed by 24 to 64 bytes in base64",
        ),
        ("enabled", json!("yes"), "must be true or false"),
        ("colour", json!("red"), "unknown field"),
    ] {
        let errors = refused(with(field, value.clone())).await;
        assert_eq!(errors, json!({field: message}), "{value}");
    }
    let errors = refused(with("headers", json!({"Host": "a", "X-A": 1}))).await;
    assert_eq!(
        errors,
        json!({"headers.Host": "is set by the server", "headers.X-A": "must be a text"})
    );
    api.post("/webhooks").body("[]").await.problem(400, "malformed");
    api.post("/webhooks")
        .body(format!("{{\"name\":\"{}\"}}", "x".repeat(100_000)))
        .await
        .problem(413, "too_large");
    for path in ["/webhooks/none", "/webhooks/none/deliveries", "/webhooks/-"] {
        api.get(path).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_webhook_is_changed_with_care() {
    let server = Harness::setup().with("webhooks.max_hooks", "2").start().await;
    let api = server.api();
    let body = json!({"name": "ops", "url": "https://example.com/?key=of-mine", "events": ["presence"]});
    let made = api.post("/webhooks").json(&body).await;
    assert_eq!(made.header("location"), "/api/v1/webhooks/ops");
    assert_eq!(made.header("etag"), "\"1\"");
    assert_eq!(made.header("cache-control"), "no-store");
    let secret = made.expect(201)["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "{secret}");
    api.post("/webhooks")
        .json(&body)
        .await
        .problem(409, "webhook_exists");
    let given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let other = json!({
        "name": "other", "url": "https://example.com/", "events": ["settings"], "secret": given,
        "headers": {"Authorization": "Bearer a-token-of-mine"}
    });
    let made = api.post("/webhooks").json(&other).await.expect(201);
    assert_eq!(made["secret"], given);
    let third = json!({"name": "third", "url": "https://example.com/", "events": ["settings"]});
    api.post("/webhooks")
        .json(&third)
        .await
        .problem(409, "too_many_webhooks");

    let shown = api.get("/webhooks/other").await;
    assert_eq!(shown.expect(200)["headers"], json!(["authorization"]));
    assert!(shown.json().get("secret").is_none());
    let list = api.get("/webhooks?limit=1").await.expect(200);
    assert_eq!(
        (&list["items"][0]["name"], &list["next"]),
        (&json!("ops"), &json!("ops"))
    );
    let list = api.get("/webhooks?cursor=ops").await.expect(200);
    assert_eq!(
        (&list["items"][0]["name"], &list["next"]),
        (&json!("other"), &Value::Null)
    );

    let patch = api
        .patch("/webhooks/ops")
        .header("if-match", "\"7\"")
        .json(&json!({"enabled": false}));
    assert_eq!(patch.await.problem(412, "version_mismatch")["current_version"], 1);
    let errors = api
        .patch("/webhooks/ops")
        .json(&json!({"name": "a", "secret": given}))
        .await
        .invalid();
    assert_eq!(
        errors,
        json!({"name": "can't be changed", "secret": "is changed with POST /webhooks/{name}/secret"})
    );
    let patch = json!({"enabled": false, "events": ["settings", "presence"]});
    let patched = api
        .patch("/webhooks/ops")
        .header("if-match", "\"1\"")
        .json(&patch)
        .await;
    assert_eq!(patched.header("etag"), "\"2\"");
    let patched = patched.expect(200);
    assert_eq!(
        (&patched["enabled"], &patched["events"]),
        (&json!(false), &json!(["presence", "settings"]))
    );
    let rotated = api
        .post("/webhooks/ops/secret")
        .json(&json!({"grace": "never"}))
        .await
        .invalid();
    assert_eq!(rotated, json!({"grace": "must be a duration such as 24h"}));
    let rotated = api.post("/webhooks/ops/secret").await.expect(200);
    assert_ne!(rotated["secret"], secret);
    assert!(rotated["previous_secret_until"].is_string(), "{rotated}");

    api.delete("/webhooks/other").await.expect(204);
    api.get("/webhooks/other").await.problem(404, "not_found");
    let log = api.get("/audit?object=webhook:ops").await.expect(200);
    let entries = log["items"].as_array().unwrap();
    assert_eq!(entries.len(), 3, "{log}");
    assert_eq!(entries[1]["before"]["enabled"], true, "{log}");
    assert_eq!(entries[1]["after"]["enabled"], false, "{log}");
    let log = api.get("/audit").await.text;
    for hidden in [
        &secret,
        given,
        "key=of-mine",
        "a-token-of-mine",
        rotated["secret"].as_str().unwrap(),
    ] {
        assert!(!log.contains(hidden), "{hidden} is in the audit log");
    }
}
