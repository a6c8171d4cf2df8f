//! Signing in with an OpenID Connect provider that the test runs.

use reqwest::Response;
use serde_json::{Value, json};
use setpoint_tests::{
    Harness, eventually,
    harness::{
        Setup,
        oidc::{CLIENT_ID, CLIENT_SECRET, Lie, Provider},
    },
};

use crate::sessions::{PASSWORD, person};

mod browser;

pub(crate) use browser::Browser;

const START: &str = "/api/v1/session/oidc";
const ROLES: &str = r#"{staff = "operator", chiefs = "admin", tenants = "owner"}"#;

fn anna(groups: &[&str]) -> Value {
    json!({
        "sub": "1", "preferred_username": "Anna", "email": "anna@example.org", "groups": groups,
    })
}

pub(crate) fn setup(provider: &Provider) -> Setup {
    Harness::setup()
        .with("sign_in.oidc.issuer", provider.issuer())
        .with("sign_in.oidc.client_id", CLIENT_ID)
        .with("sign_in.oidc.client_secret", CLIENT_SECRET)
        .with("sign_in.oidc.roles", ROLES)
}

#[track_caller]
fn location(response: &Response) -> String {
    assert_eq!(response.status().as_u16() / 100, 3, "{response:?}");
    response.headers()["location"].to_str().unwrap().to_owned()
}

async fn refused(response: Response, status: u16, code: &str) {
    let told = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert_eq!((told, &body["code"]), (status, &json!(code)), "{body}");
}

async fn audited(server: &Harness, reason: &str) {
    eventually!({
        let log = server
            .api()
            .get("/audit?action=session.begin&outcome=refused&limit=1000")
            .await
            .expect(200);
        let items = log["items"].as_array().unwrap().clone();
        items.iter().any(|entry| entry["after"]["reason"] == reason)
    });
}

#[tokio::test]
async fn a_person_signs_in_with_the_provider() {
    let provider = Provider::start().await;
    let server = setup(&provider)
        .with("sign_in.oidc.name", "Keycloak")
        .start()
        .await;
    provider.person(anna(&["staff", "others"]));
    let mut browser = Browser::new(server.api().server());
    let methods: Value = browser.go("/api/v1/session/methods").await.json().await.unwrap();
    assert_eq!(methods["oidc"], json!({"name": "Keycloak", "url": START}));

    let back = browser
        .sent_back(&format!("{START}?return_to=/activate?user_code=A"))
        .await;
    assert!(
        back.starts_with(&format!("{}{START}/callback?", browser.server)),
        "{back}"
    );
    assert!(browser.session().await.is_none());
    let signed_in = browser.go(&back).await;
    assert_eq!(location(&signed_in), "/activate?user_code=A");
    let who = browser.session().await.expect("a session");
    assert_eq!(
        (&who["username"], &who["role"], &who["email"]),
        (&json!("anna"), &json!("operator"), &json!("anna@example.org"))
    );
    assert!(who["csrf_token"].is_string());
    assert_eq!(browser.cookies.len(), 1, "what was remembered meanwhile is gone");
    refused(browser.go(&back).await, 403, "oidc_state").await;

    let mut second = Browser::new(server.api().server());
    assert_eq!(location(&second.sign_in().await), "/");
    assert_eq!(second.session().await.unwrap()["username"], "anna");
    let users = server.api().get("/users").await.expect(200);
    assert_eq!(
        users["items"].as_array().unwrap().len(),
        2,
        "the same person: {users}"
    );
    let log = server
        .api()
        .get("/audit?action=session.begin&actor=user:anna")
        .await
        .expect(200);
    assert_eq!(log["items"][0]["after"]["by"], "provider");
}

#[tokio::test]
async fn the_answer_must_be_to_the_browsers_own_question() {
    let provider = Provider::start().await;
    let server = setup(&provider).start().await;
    provider.person(anna(&["staff"]));
    let (mut victim, mut attacker) = (
        Browser::new(server.api().server()),
        Browser::new(server.api().server()),
    );
    let theirs = attacker.sent_back(START).await;
    refused(victim.go(&theirs).await, 403, "oidc_state").await;
    victim.sent_back(START).await;
    refused(victim.go(&theirs).await, 403, "oidc_state").await;
    let back = victim.sent_back(START).await;
    let (before, after) = back.split_once("state=").unwrap();
    let (_, after) = after.split_once('&').unwrap();
    for forged in [
        format!("{before}state=another&{after}"),
        format!("{before}{after}"),
        format!("{START}/callback"),
    ] {
        refused(victim.go(&forged).await, 403, "oidc_state").await;
    }
    let (before, _) = back.split_once("&iss=").unwrap();
    let mixed_up = format!("{before}&iss=https://another.example");
    refused(victim.go(&mixed_up).await, 403, "oidc_state").await;
    let state = back
        .split(['?', '&'])
        .find(|part| part.starts_with("state="))
        .unwrap();
    let denied = format!("{START}/callback?error=access_denied&{state}");
    refused(victim.go(&denied).await, 403, "oidc_denied").await;
    let guessed = format!("{START}/callback?code=guessed&{state}");
    refused(victim.go(&guessed).await, 403, "oidc_code").await;
    assert!(victim.session().await.is_none());
    for reason in ["oidc_state", "oidc_denied", "oidc_code"] {
        audited(&server, reason).await;
    }
}

#[tokio::test]
async fn a_token_that_does_not_hold_signs_nobody_in() {
    let provider = Provider::start().await;
    let server = setup(&provider).start().await;
    provider.person(anna(&["staff"]));
    let mut browser = Browser::new(server.api().server());
    for lie in [
        Lie::Nonce,
        Lie::Expired,
        Lie::Audience,
        Lie::Issuer,
        Lie::Signature,
        Lie::Unsigned,
    ] {
        provider.lie(lie);
        let answer = browser.sign_in().await;
        assert_eq!(answer.status(), 403, "{lie:?}");
        refused(answer, 403, "oidc_token").await;
        assert!(browser.session().await.is_none(), "{lie:?}");
    }
    audited(&server, "oidc_token").await;
    let users = server.api().get("/users").await.expect(200);
    assert_eq!(users["items"].as_array().unwrap().len(), 1, "{users}");
    provider.lie(Lie::None);
    location(&browser.sign_in().await);
}

#[tokio::test]
async fn keys_may_change() {
    let provider = Provider::start().await;
    let server = setup(&provider).start().await;
    provider.person(anna(&["staff"]));
    location(&Browser::new(server.api().server()).sign_in().await);
    provider.rotate();
    location(&Browser::new(server.api().server()).sign_in().await);
}

#[tokio::test]
async fn the_role_is_the_providers_at_each_sign_in() {
    let provider = Provider::start().await;
    let server = setup(&provider).start().await;
    let mut browser = Browser::new(server.api().server());
    provider.person(anna(&["strangers"]));
    refused(browser.sign_in().await, 403, "oidc_no_role").await;
    for (groups, role) in [
        (&["tenants", "staff"][..], "operator"),
        (&["chiefs"], "admin"),
        (&["tenants"], "owner"),
    ] {
        provider.person(anna(groups));
        location(&browser.sign_in().await);
        assert_eq!(browser.session().await.unwrap()["role"], role);
    }
    provider.person(anna(&[]));
    refused(
        Browser::new(server.api().server()).sign_in().await,
        403,
        "oidc_no_role",
    )
    .await;
    audited(&server, "oidc_no_role").await;
    let log = server.api().get("/audit?action=user.update").await.expect(200);
    assert_eq!(log["items"][0]["actor"], "system:oidc");
    assert_eq!(log["items"][0]["after"]["role"], "owner");
}

#[tokio::test]
async fn without_a_mapping_the_role_is_an_administrators_affair() {
    let provider = Provider::start().await;
    let setup = setup(&provider).with("sign_in.oidc.roles", "{}");
    let server = setup.with("sign_in.oidc.default_role", "viewer").start().await;
    provider.person(anna(&["chiefs"]));
    let mut browser = Browser::new(server.api().server());
    location(&browser.sign_in().await);
    assert_eq!(browser.session().await.unwrap()["role"], "viewer");
    let patch = json!({"role": "operator"});
    server.api().patch("/users/anna").json(&patch).await.expect(200);
    location(&browser.sign_in().await);
    assert_eq!(browser.session().await.unwrap()["role"], "operator");
}

#[tokio::test]
async fn nobody_is_taken_over_and_nobody_disabled_gets_in() {
    let provider = Provider::start().await;
    let server = setup(&provider).start().await;
    person(&server, "anna", "viewer").await;
    provider.person(anna(&["staff"]));
    refused(
        Browser::new(server.api().server()).sign_in().await,
        403,
        "oidc_name_taken",
    )
    .await;
    assert_eq!(
        server.api().get("/users/anna").await.expect(200)["role"],
        "viewer"
    );

    provider.person(json!({"sub": "2", "preferred_username": "ben", "groups": "staff"}));
    let mut browser = Browser::new(server.api().server());
    location(&browser.sign_in().await);
    // A provider's person has no password, and another name at the provider makes no other person here.
    let guess = json!({"username": "ben", "password": "!"});
    let guess = server.api().anonymous().post("/session").json(&guess).await;
    guess.problem(401, "unauthenticated");
    provider.person(json!({"sub": "2", "preferred_username": "admin", "groups": "staff"}));
    location(&browser.sign_in().await);
    assert_eq!(browser.session().await.unwrap()["username"], "ben");

    let patch = json!({"disabled": true});
    server.api().patch("/users/ben").json(&patch).await.expect(200);
    assert!(browser.session().await.is_none());
    refused(browser.sign_in().await, 403, "account_disabled").await;
    audited(&server, "account_disabled").await;
}

#[tokio::test]
async fn strangers_stay_out_where_people_are_not_made_by_themselves() {
    let provider = Provider::start().await;
    let server = setup(&provider)
        .with("sign_in.oidc.create", "false")
        .start()
        .await;
    provider.person(anna(&["staff"]));
    refused(
        Browser::new(server.api().server()).sign_in().await,
        403,
        "oidc_unknown",
    )
    .await;
}

#[tokio::test]
async fn the_second_factor_of_a_providers_person_is_the_providers() {
    let provider = Provider::start().await;
    let setup = setup(&provider).with("sign_in.require_totp_for", "[\"operator\"]");
    let server = setup.start().await;
    provider.person(anna(&["staff"]));
    let mut browser = Browser::new(server.api().server());
    location(&browser.sign_in().await);
    let who = browser.session().await.unwrap();
    assert!(!who["scopes"].as_array().unwrap().is_empty(), "{who}");
    let enrol = server.api().anonymous().post("/session/totp");
    let cookie = format!("setpoint_session={}", browser.cookie("setpoint_session"));
    let enrol = enrol.header("cookie", &cookie);
    let enrol = enrol.header("x-csrf-token", who["csrf_token"].as_str().unwrap());
    enrol.await.problem(409, "no_password");
}

#[tokio::test]
async fn the_way_back_stays_on_this_server() {
    let provider = Provider::start().await;
    let server = setup(&provider).start().await;
    for evil in [
        "https://evil.example/",
        "//evil.example",
        "/%5Cevil.example",
        "/%09/evil.example",
    ] {
        let response = Browser::new(server.api().server())
            .go(&format!("{START}?return_to={evil}"))
            .await;
        refused(response, 422, "validation_failed").await;
    }
}

#[tokio::test]
async fn a_provider_that_is_gone_is_503_and_passwords_still_work() {
    let provider = Provider::start().await;
    let server = setup(&provider).start().await;
    provider.person(anna(&["staff"]));
    let mut browser = Browser::new(server.api().server());
    let back = browser.sent_back(START).await;
    provider.stop().await;
    let answer = browser.go(&back).await;
    assert!(!answer.headers()["retry-after"].is_empty());
    refused(answer, 503, "provider_unavailable").await;
    let mut early = setup(&provider).start().await;
    early.restart().await;
    refused(
        Browser::new(early.api().server()).go(START).await,
        503,
        "provider_unavailable",
    )
    .await;
    person(&server, "ben", "viewer").await;
    let who = json!({"username": "ben", "password": PASSWORD});
    server
        .api()
        .anonymous()
        .post("/session")
        .json(&who)
        .await
        .expect(200);
}

#[tokio::test]
async fn without_a_provider_there_is_none() {
    let server = Harness::start().await;
    let api = server.api().anonymous();
    assert_eq!(api.get("/session/methods").await.expect(200)["oidc"], Value::Null);
    for path in ["/session/oidc", "/session/oidc/callback"] {
        api.get(path).await.problem(409, "oidc_off");
    }
}
