//! Claiming a device by its code (RFC 8628).

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use setpoint_model::{Clock as _, SystemClock, clock::ManualClock};
use setpoint_tests::{Answer, Harness, Version, harness::mosquitto::Login};

use crate::sessions::{Person, person};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// A form posted to a path at the root.
pub(crate) async fn form(server: &Harness, path: &str, body: String) -> Answer {
    let call = server.api().anonymous().root(Method::POST, path);
    call.header("content-type", "application/x-www-form-urlencoded")
        .body(body)
        .await
}

/// A device asks for codes.
pub(crate) async fn ask(server: &Harness, serial: &str) -> Value {
    let answer = form(
        server,
        "/oauth/device_authorization",
        format!("client_id=device&serial={serial}"),
    )
    .await;
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.expect(200)
}

/// A device polls.
pub(crate) async fn poll(server: &Harness, codes: &Value) -> Answer {
    let code = codes["device_code"].as_str().unwrap();
    let grant = GRANT.replace(':', "%3A");
    form(
        server,
        "/oauth/token",
        format!("grant_type={grant}&client_id=device&device_code={code}"),
    )
    .await
}

#[track_caller]
fn refused(answer: &Answer, status: u16, error: &str) {
    let body = answer.expect(status);
    assert_eq!(body["error"], error, "{body}");
    assert!(body["error_description"].is_string(), "{body}");
    assert_eq!(answer.header("cache-control"), "no-store");
}

/// A device claimed by somebody: its token.
pub(crate) async fn claimed(server: &Harness, owner: &Person, serial: &str) -> String {
    let codes = ask(server, serial).await;
    let body = json!({"user_code": codes["user_code"], "decision": "approve"});
    owner.activate(&body).await.expect(200);
    let token = poll(server, &codes).await.expect(200);
    token["access_token"].as_str().unwrap().to_owned()
}

pub(crate) fn login(serial: &str, token: &str) -> Login {
    Login {
        username: serial.to_owned(),
        password: token.to_owned(),
        client_id: serial.to_owned(),
    }
}

#[tokio::test]
async fn a_device_is_claimed_by_its_code() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "owner").await;
    let codes = ask(&server, "NEW-1").await;
    let user_code = codes["user_code"].as_str().unwrap();
    let (first, second) = user_code.split_once('-').expect("two halves");
    let letters = first.chars().chain(second.chars());
    assert!(
        letters.clone().count() == 8 && letters.clone().all(|c| "BCDFGHJKLMNPQRSTVWXZ".contains(c)),
        "{user_code}"
    );
    assert_eq!(codes["expires_in"], 900);
    assert_eq!(codes["interval"], 5);
    let uri = codes["verification_uri"].as_str().unwrap();
    assert_eq!(uri, format!("{}/activate", server.api().server()));
    assert_eq!(
        codes["verification_uri_complete"],
        format!("{uri}?user_code={user_code}")
    );
    refused(&poll(&server, &codes).await, 400, "authorization_pending");

    let shown = anna
        .activate(&json!({"user_code": user_code.to_lowercase()}))
        .await
        .expect(200);
    assert_eq!(
        (&shown["serial"], &shown["model"], &shown["state"]),
        (&json!("NEW-1"), &json!("home"), &json!("pending"))
    );
    let approve = json!({"user_code": user_code, "decision": "approve"});
    assert_eq!(anna.activate(&approve).await.expect(200)["state"], "approved");
    anna.activate(&approve).await.problem(404, "not_found");

    let answer = poll(&server, &codes).await;
    let token = answer.expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(
        (&token["token_type"], &token["serial"]),
        (&json!("Bearer"), &json!("NEW-1"))
    );
    assert!(token["device_id"].is_string());
    assert_eq!(
        token["mqtt"]["url"],
        format!("mqtt://127.0.0.1:{}", server.mqtt_port())
    );
    refused(&poll(&server, &codes).await, 400, "invalid_grant");

    let secret = token["access_token"].as_str().unwrap();
    assert!(secret.starts_with("spd_"));
    let connect =
        setpoint_tests::harness::mqtt::Connect::new(server.mqtt_port(), Version::V5, login("NEW-1", secret));
    let mut session = connect.connect().await;
    session.subscribe(&["devices/NEW-1/#"]).await;
    assert!(session.next("devices/NEW-1/settings").await.json()["settings"].is_object());
    let list = anna.get("/devices").await.expect(200);
    assert_eq!(list["items"][0]["serial"], "NEW-1");
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let owners = anna.get("/devices/NEW-1/owners").await.expect(200);
    assert_eq!(
        (&owners["items"][0]["username"], &owners["items"][0]["shared"]),
        (&json!("anna"), &json!(false))
    );
}

#[tokio::test]
async fn every_error_has_its_code() {
    // Time stands still: the second poll comes too early, however long it takes.
    let clock = ManualClock::new(SystemClock.now());
    let server = Harness::setup().at(&clock).start().await;
    let anna = person(&server, "anna", "owner").await;
    let authorization = "/oauth/device_authorization";
    for (body, status, error) in [
        ("", 400, "invalid_request"),
        ("serial=A", 400, "invalid_request"),
        ("client_id=device", 400, "invalid_request"),
        ("client_id=device&serial=A&serial=B", 400, "invalid_request"),
        ("client_id=device&serial=-", 400, "invalid_request"),
        ("client_id=phone&serial=A", 401, "invalid_client"),
    ] {
        refused(
            &form(&server, authorization, body.to_owned()).await,
            status,
            error,
        );
    }
    let grant = GRANT.replace(':', "%3A");
    for (body, status, error) in [
        (String::new(), 400, "invalid_request"),
        (
            "grant_type=password&client_id=device".to_owned(),
            400,
            "unsupported_grant_type",
        ),
        (
            format!("grant_type={grant}&client_id=device"),
            400,
            "invalid_request",
        ),
        (
            format!("grant_type={grant}&client_id=phone&device_code=x"),
            401,
            "invalid_client",
        ),
        (
            format!("grant_type={grant}&client_id=device&device_code=x"),
            400,
            "invalid_grant",
        ),
    ] {
        refused(&form(&server, "/oauth/token", body).await, status, error);
    }
    let codes = ask(&server, "A").await;
    refused(&poll(&server, &codes).await, 400, "authorization_pending");
    refused(&poll(&server, &codes).await, 400, "slow_down");
    anna.activate(&json!({"user_code": codes["user_code"], "decision": "deny"}))
        .await
        .expect(200);
    refused(&poll(&server, &codes).await, 400, "access_denied");
    server.api().get("/devices/A").await.problem(404, "not_found");

    let late = ask(&server, "A").await;
    server
        .sql("update claims set expires_at = created_at - interval '1 second'")
        .await;
    refused(&poll(&server, &late).await, 400, "expired_token");
    anna.activate(&json!({"user_code": late["user_code"], "decision": "approve"}))
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn each_poll_too_early_makes_a_device_wait_five_seconds_longer() {
    let clock = ManualClock::new(SystemClock.now());
    let server = Harness::setup().at(&clock).start().await;
    let codes = ask(&server, "A").await;
    refused(&poll(&server, &codes).await, 400, "authorization_pending");
    // RFC 8628, section 3.5: 5 s at first, and then 10, 15 and 20.
    for (waited, error) in [
        (0, "slow_down"),
        (8, "slow_down"),
        (13, "slow_down"),
        (20, "authorization_pending"),
        (20, "authorization_pending"),
    ] {
        clock.advance(TimeDelta::seconds(waited));
        refused(&poll(&server, &codes).await, 400, error);
    }
}

#[tokio::test]
async fn guessing_codes_is_slowed_down() {
    let server = Harness::setup().with("claiming.max_attempts", "3").start().await;
    let anna = person(&server, "anna", "owner").await;
    let codes = ask(&server, "A").await;
    for _ in 0..3 {
        anna.activate(&json!({"user_code": "BBBB-BBBB"}))
            .await
            .problem(404, "not_found");
    }
    let right = json!({"user_code": codes["user_code"], "decision": "approve"});
    let answer = anna.activate(&right).await;
    answer.problem(429, "too_many_requests");
    assert!(!answer.header("retry-after").is_empty());
}

#[tokio::test]
async fn a_device_in_somebodys_hands_is_not_claimed_by_another() {
    let server = Harness::start().await;
    let (anna, ben) = (
        person(&server, "anna", "owner").await,
        person(&server, "ben", "owner").await,
    );
    claimed(&server, &anna, "A").await;
    let approve = |codes: &Value| json!({"user_code": codes["user_code"], "decision": "approve"});
    let codes = ask(&server, "A").await;
    ben.activate(&approve(&codes))
        .await
        .problem(409, "device_registered");
    anna.activate(&approve(&codes)).await.expect(200);

    server.device("STAFF-1").await;
    let codes = ask(&server, "STAFF-1").await;
    ben.activate(&approve(&codes)).await.problem(409, "device_in_use");
    server
        .api()
        .delete("/devices/STAFF-1/credential")
        .await
        .expect(204);
    ben.activate(&approve(&codes)).await.expect(200);

    let viewer = person(&server, "vera", "viewer").await;
    let codes = ask(&server, "B").await;
    viewer.activate(&approve(&codes)).await.problem(403, "forbidden");
    let anonymous = server.api().anonymous().root(Method::POST, "/activate");
    anonymous
        .json(&approve(&codes))
        .await
        .problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_model_may_demand_the_factory_secret() {
    let server = Harness::setup().with("claiming.create", "false").start().await;
    let anna = person(&server, "anna", "owner").await;
    server.sql("update models set claim_secret = true").await;
    server
        .sql("insert into factory_serials values ('F-1', 'home', sha256('from the label'), now())")
        .await;
    let ask_with = |secret: &str| {
        form(
            &server,
            "/oauth/device_authorization",
            format!("client_id=device&serial=F-1{secret}"),
        )
    };
    refused(&ask_with("").await, 401, "invalid_client");
    refused(&ask_with("&secret=guessed").await, 401, "invalid_client");
    let codes = ask_with("&secret=from+the+label").await.expect(200);
    let shown = anna
        .activate(&json!({"user_code": codes["user_code"], "decision": "approve"}))
        .await
        .expect(200);
    assert_eq!(shown["proven"], true);
    poll(&server, &codes).await.expect(200);
    let unknown = form(
        &server,
        "/oauth/device_authorization",
        "client_id=device&serial=F-2".to_owned(),
    )
    .await;
    refused(&unknown, 401, "invalid_client");
}

#[tokio::test]
async fn the_page_needs_no_other_host() {
    let server = Harness::start().await;
    let api = server.api().anonymous();
    let page = api.root(Method::GET, "/activate?user_code=BDWP-HQPK").await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(
        !page.text.contains("http") && !page.text.contains("onclick"),
        "{}",
        page.text
    );
    for (path, kind) in [
        ("/activate/page.js", "text/javascript"),
        ("/activate/page.css", "text/css"),
    ] {
        assert!(page.text.contains(path));
        let asset = api.root(Method::GET, path).await;
        assert_eq!(asset.status, 200);
        assert!(asset.header("content-type").starts_with(kind));
        assert!(!asset.text.contains("http"), "{path}");
    }
}
