//! Schedules over REST: making, changing, removing them, and every refusal.

use reqwest::Method;
use serde_json::{Value, json};
use setpoint_model::clock::ManualClock;
use setpoint_tests::{Answer, Harness};

const LIST: &str = "/devices/HOME-1/schedules";
const NIGHT: &str = "/devices/HOME-1/schedules/night";

fn night() -> Value {
    json!({"days": ["mon", "fri"], "from": "22:00", "to": "06:30", "settings": {"privacyMode": true}})
}

/// A server whose clock stands: no window begins or ends meanwhile.
async fn server() -> Harness {
    let clock = ManualClock::new("2026-01-15T12:00:00Z".parse().unwrap());
    let server = Harness::setup().at(&clock).start().await;
    server.device("HOME-1").await;
    server
}

fn without_times(mut body: Value) -> Value {
    for field in ["version", "created_at", "updated_at"] {
        assert!(!body[field].is_null(), "{body}");
        body.as_object_mut().unwrap().remove(field);
    }
    body
}

fn named(body: &Value) -> Vec<&str> {
    let items = body["items"].as_array().unwrap().iter();
    items.map(|item| item["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_schedule_is_made_shown_changed_and_removed() {
    let server = server().await;
    let api = server.api();
    let mut body = night();
    body["name"] = "night".into();
    let made = api.post(LIST).json(&body).await;
    let shown = json!({
        "name": "night", "days": ["mon", "fri"], "from": "22:00", "to": "06:30", "settings": {"privacyMode": true},
        "enabled": true, "priority": 0, "state": "waiting"
    });
    assert_eq!(without_times(made.expect(201)), shown);
    assert_eq!(made.header("location"), format!("/api/v1{NIGHT}"));
    let tag = made.header("etag");
    assert_eq!(tag, format!("\"{}\"", made.json()["version"]));
    let read = api.get(NIGHT).await;
    assert_eq!((read.header("etag"), read.expect(200)), (tag, made.json()));

    let patched = api
        .patch(NIGHT)
        .json(&json!({"enabled": false, "priority": 5}))
        .await;
    let body = patched.expect(200);
    assert_eq!(
        (&body["enabled"], &body["priority"], &body["state"]),
        (&json!(false), &json!(5), &json!("disabled"))
    );
    assert_ne!(patched.header("etag"), made.header("etag"));
    let again = api.patch(NIGHT).json(&json!({"priority": 5})).await;
    assert_eq!(again.expect(200), body, "nothing changed");

    let once = json!({
        "starts_at": "2020-12-24T17:00:00+01:00", "ends_at": "2020-12-25T00:00:00Z", "settings": {"label": "x"}
    });
    let replaced = without_times(api.put(NIGHT).json(&once).await.expect(200));
    assert_eq!(
        replaced,
        json!({
            "name": "night", "starts_at": "2020-12-24T16:00:00Z", "ends_at": "2020-12-25T00:00:00Z",
            "settings": {"label": "x"}, "enabled": true, "priority": 0, "state": "over"
        })
    );
    for name in ["c", "a", "b"] {
        api.put(&format!("{LIST}/{name}"))
            .json(&night())
            .await
            .expect(201);
    }
    let first = api.get(&format!("{LIST}?limit=2")).await.expect(200);
    assert_eq!(named(&first), ["a", "b"]);
    let rest = format!("{LIST}?cursor={}", first["next"].as_str().unwrap());
    let rest = api.get(&rest).await.expect(200);
    assert_eq!((named(&rest), &rest["next"]), (vec!["c", "night"], &Value::Null));

    api.delete(NIGHT).await.expect(204);
    api.get(NIGHT).await.problem(404, "not_found");
    api.delete(NIGHT).await.problem(404, "not_found");
}

#[tokio::test]
async fn what_is_wrong_is_named_and_changes_nothing() {
    let server = server().await;
    let put = |body: Value| {
        let call = server.api().put(NIGHT).json(&body);
        async { call.await.invalid() }
    };
    assert_eq!(
        put(json!({})).await,
        json!({"days": "is needed", "from": "is needed", "to": "is needed", "settings": "is needed"})
    );
    let with = |field: &str, value: Value| {
        let mut body = night();
        body[field] = value;
        body
    };
    let times = "must be a time of day such as \"06:30\", 00:00 to 23:59";
    assert_eq!(put(with("from", json!("25:00"))).await, json!({"from": times}));
    assert_eq!(
        put(with("colour", json!(1))).await,
        json!({"colour": "unknown field"})
    );
    assert_eq!(
        put(with("name", json!("day"))).await,
        json!({"name": "must be the one in the path, or left out"})
    );
    // Judged as a PATCH of the settings is.
    let settings = json!({"privacyMode": 1, "reportInterval": 5, "colour": "red"});
    let patched = server
        .api()
        .patch("/devices/HOME-1/settings")
        .json(&settings)
        .await
        .invalid();
    assert_eq!(patched["colour"], "unknown setting");
    assert_eq!(patched.as_object().unwrap().len(), 3);
    let judged = put(with("settings", settings)).await;
    for (key, message) in patched.as_object().unwrap() {
        assert_eq!(judged[format!("settings.{key}")], *message);
    }
    assert_eq!(judged.as_object().unwrap().len(), 3);

    let post = |body: Value| {
        let call = server.api().post(LIST).json(&body);
        async { call.await.invalid() }
    };
    assert_eq!(post(night()).await, json!({"name": "is needed"}));
    let name = "a schedule's name is 1 to 64 of A-Z a-z 0-9 . _ -, begins with a letter or digit, and is not `preview`";
    assert_eq!(post(with("name", json!("preview"))).await, json!({"name": name}));
    assert_eq!(post(with("name", json!("a b"))).await, json!({"name": name}));
    assert_eq!(
        post(with("name", json!(7))).await,
        json!({"name": "must be a text"})
    );
    let bad = server.api().put(&format!("{LIST}/a%20b")).json(&night()).await;
    assert_eq!(bad.invalid(), json!({"name": name}));
    let unread = server
        .api()
        .post(LIST)
        .body("{\"name\":\"a\",\"name\":\"b\"}")
        .await;
    unread.problem(400, "malformed");
    assert_eq!(server.api().get(LIST).await.expect(200)["items"], json!([]));
    let whole = with("settings", json!({"reportInterval": 60.0}));
    let whole = server.api().put(NIGHT).json(&whole).await.expect(201);
    assert_eq!(whole["settings"].to_string(), r#"{"reportInterval":60}"#);
}

#[tokio::test]
async fn names_versions_and_limits_are_held() {
    let server = Harness::setup()
        .with("schedules.max_per_device", "2")
        .with("settings.max_document", "300")
        .start()
        .await;
    server.device("HOME-1").await;
    let api = server.api();
    let made = api.put(NIGHT).json(&night()).await;
    made.expect(201);
    let mut body = night();
    body["name"] = "night".into();
    api.post(LIST).json(&body).await.problem(409, "schedule_exists");

    let guarded = |method: Method, tag: &str| {
        let call = api.call(method, NIGHT).header("if-match", tag);
        async { call.json(&night()).await }
    };
    let current = made.json()["version"].clone();
    let mismatch = |answer: Answer| answer.problem(412, "version_mismatch")["current_version"].clone();
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        assert_eq!(mismatch(guarded(method, "\"999\"").await), current);
    }
    guarded(Method::PUT, &made.header("etag")).await.expect(200);
    let absent = api
        .put(&format!("{LIST}/new"))
        .header("if-match", "\"1\"")
        .json(&night())
        .await;
    absent.problem(404, "not_found");
    guarded(Method::PUT, "7").await.problem(400, "malformed");

    api.put(&format!("{LIST}/second"))
        .json(&night())
        .await
        .expect(201);
    let third = api.put(&format!("{LIST}/third")).json(&night()).await;
    third.problem(409, "too_many_schedules");
    // A version is never used again, not even by another schedule of the same name.
    api.delete(NIGHT).await.expect(204);
    let anew = api.put(NIGHT).json(&night()).await;
    assert!(anew.expect(201)["version"].as_i64() > current.as_i64());
    // All of one device's together are no larger than a document.
    let long = |label: usize| json!({"settings": {"label": "x".repeat(label)}});
    api.patch(NIGHT).json(&long(40)).await.expect(200);
    let deep = json!({"settings": {"label": [[[[[[[[1]]]]]]]]}});
    api.patch(NIGHT).json(&deep).await.problem(400, "malformed");
    let many: Value = (0..30)
        .map(|n| (format!("k{n}"), json!(n)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let large = json!({"settings": many});
    assert_eq!(api.patch(NIGHT).json(&large).await.status, 422);
}

#[tokio::test]
async fn a_name_that_can_be_none_and_a_device_that_is_none_are_not_found() {
    let server = server().await;
    for path in [
        "/devices/HOME-1/schedules/x",
        "/devices/HOME-1/schedules/a%20b",
        "/devices/HOME-2/schedules",
        "/devices/HOME-2/schedules/night",
        "/devices/HOME-2/schedules/preview",
        "/groups/none/schedules",
        "/groups/none/schedules/preview",
    ] {
        server.api().get(path).await.problem(404, "not_found");
    }
    let mut body = night();
    body["name"] = "night".into();
    for path in ["/devices/HOME-2/schedules", "/groups/none/schedules"] {
        server
            .api()
            .post(path)
            .json(&body)
            .await
            .problem(404, "not_found");
    }
}

#[tokio::test]
async fn changes_stand_in_the_audit_log() {
    let server = server().await;
    server.api().put(NIGHT).json(&night()).await.expect(201);
    server
        .api()
        .patch(NIGHT)
        .json(&json!({"enabled": false}))
        .await
        .expect(200);
    server
        .api()
        .patch(NIGHT)
        .json(&json!({"enabled": false}))
        .await
        .expect(200);
    server.api().delete(NIGHT).await.expect(204);
    let log = server.api().get("/audit?action=schedule.write").await.expect(200);
    let seen: Vec<(Value, Value)> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            assert_eq!(entry["object"], "device:HOME-1/schedules/night");
            (
                entry["before"]["enabled"].clone(),
                entry["after"]["enabled"].clone(),
            )
        })
        .collect();
    let (on, off, none) = (json!(true), json!(false), Value::Null);
    assert_eq!(seen, [(off.clone(), none.clone()), (on.clone(), off), (none, on)]);
}
