//! The second factor: enrolling, signing in with codes, losing it, and demanding it.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use setpoint_model::{Clock as _, SystemClock};
use setpoint_tests::{Answer, Harness, eventually};
use totp_rs::Totp;

use crate::sessions::{PASSWORD, Person, person, sign_in};

/// An authenticator and the recovery codes, as a person has them after they enrolled.
pub(crate) struct Factor {
    authenticator: Totp,
    pub(crate) recovery_codes: Vec<String>,
    /// The moment that codes are counted from.
    since: DateTime<Utc>,
}

impl Factor {
    /// Enrols somebody who is signed in.
    pub(crate) async fn enrol(person: &Person) -> Self {
        let answer = person.post("/session/totp").await;
        let enrolment = answer.expect(200);
        assert_eq!(answer.header("cache-control"), "no-store");
        let authenticator = Totp::from_url(enrolment["otpauth_url"].as_str().unwrap()).unwrap();
        assert_eq!(enrolment["secret"], authenticator.secret().to_base32());
        assert!(enrolment["qr_svg"].as_str().unwrap().contains("<svg"));
        let mut factor = Self {
            authenticator,
            recovery_codes: Vec::new(),
            since: SystemClock.now(),
        };
        let confirmation = json!({"code": factor.code(0)});
        let confirmed = person.post("/session/totp/confirm").json(&confirmation).await;
        assert_eq!(confirmed.header("cache-control"), "no-store");
        factor.recovery_codes =
            serde_json::from_value(confirmed.expect(200)["recovery_codes"].clone()).unwrap();
        factor
    }

    /// The code of so many steps after that moment.
    pub(crate) fn code(&self, steps: i32) -> String {
        let at = self.since + TimeDelta::seconds(30) * steps;
        self.authenticator
            .generate(u64::try_from(at.timestamp()).unwrap())
            .to_string()
    }
}

/// Signs in, or tries to.
async fn attempt(server: &Harness, username: &str, code: Option<&str>) -> Answer {
    let mut body = json!({"username": username, "password": PASSWORD});
    if let Some(code) = code {
        body["code"] = code.into();
    }
    server.api().anonymous().post("/session").json(&body).await
}

/// Forgets which codes were used, as the passing of time would.
async fn later(server: &Harness, factor: &mut Factor) {
    server.sql("update totp set last_step = 0").await;
    factor.since = SystemClock.now();
}

/// Why sign-ins were refused, as far as that is written down.
async fn refusals(server: &Harness) -> Vec<Value> {
    let path = "/audit?action=session.begin&outcome=refused";
    let log = server.api().get(path).await.expect(200);
    let items = log["items"].as_array().unwrap().iter();
    items.map(|entry| entry["after"]["reason"].clone()).collect()
}

#[tokio::test]
async fn who_enrolled_signs_in_with_a_code() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "viewer").await;
    assert_eq!(anna.get("/session").await.expect(200)["totp"]["enabled"], false);
    let factor = Factor::enrol(&anna).await;
    assert_eq!(factor.recovery_codes.len(), 10);
    let state = anna.get("/session").await.expect(200)["totp"].clone();
    assert_eq!(
        (&state["enabled"], &state["recovery_codes"]),
        (&json!(true), &json!(10))
    );
    assert_eq!(server.api().get("/users/anna").await.expect(200)["totp"], true);

    attempt(&server, "anna", None).await.problem(401, "totp_required");
    attempt(&server, "anna", Some(" "))
        .await
        .problem(401, "totp_required");
    attempt(&server, "anna", Some("12 34"))
        .await
        .problem(401, "totp_invalid");
    attempt(&server, "anna", Some(&factor.code(1))).await.expect(200);
    let wrong = json!({"username": "anna", "password": "not this one", "code": factor.code(1)});
    let wrong = server.api().anonymous().post("/session").json(&wrong).await;
    wrong.problem(401, "unauthenticated");

    for reason in ["a code is needed", "wrong code"] {
        eventually!(
            refusals(&server).await.contains(&json!(reason)),
            "{reason} in {:?}",
            refusals(&server).await
        );
    }
}

#[tokio::test]
async fn a_code_works_once_and_so_does_none_before_it() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "viewer").await;
    let mut factor = Factor::enrol(&anna).await;
    attempt(&server, "anna", Some(&factor.code(0)))
        .await
        .problem(401, "totp_invalid");
    let code = factor.code(1);
    let both = tokio::join!(
        attempt(&server, "anna", Some(&code)),
        attempt(&server, "anna", Some(&code))
    );
    let mut answers = [both.0.status.as_u16(), both.1.status.as_u16()];
    answers.sort_unstable();
    assert_eq!(answers, [200, 401], "of two at once, one");
    for step in [-1, 0, 1] {
        let code = factor.code(step);
        attempt(&server, "anna", Some(&code))
            .await
            .problem(401, "totp_invalid");
    }
    later(&server, &mut factor).await;
    for step in [-9, 9] {
        let code = factor.code(step);
        attempt(&server, "anna", Some(&code))
            .await
            .problem(401, "totp_invalid");
    }
    attempt(&server, "anna", Some(&factor.code(1))).await.expect(200);
}

#[tokio::test]
async fn a_recovery_code_signs_in_once() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "viewer").await;
    let factor = Factor::enrol(&anna).await;
    let code = factor.recovery_codes[3].to_uppercase();
    attempt(&server, "anna", Some(&code)).await.expect(200);
    attempt(&server, "anna", Some(&code))
        .await
        .problem(401, "totp_invalid");
    let state = anna.get("/session").await.expect(200)["totp"].clone();
    assert_eq!(state["recovery_codes"], 9);
    let ben = person(&server, "ben", "viewer").await;
    Factor::enrol(&ben).await;
    attempt(&server, "ben", Some(&factor.recovery_codes[4]))
        .await
        .problem(401, "totp_invalid");
}

#[tokio::test]
async fn guessing_codes_is_slowed_down() {
    let server = Harness::setup().with("sign_in.max_failures", "3").start().await;
    let anna = person(&server, "anna", "viewer").await;
    let factor = Factor::enrol(&anna).await;
    for _ in 0..3 {
        attempt(&server, "anna", Some("000000"))
            .await
            .problem(401, "totp_invalid");
    }
    let answer = attempt(&server, "anna", Some(&factor.code(1))).await;
    answer.problem(429, "too_many_requests");
    assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
    let proof = json!({"password": PASSWORD, "code": factor.code(1)});
    let disabling = anna.post("/session/totp/disable").json(&proof);
    disabling.await.problem(429, "too_many_requests");
}

#[tokio::test]
async fn enrolling_takes_a_code_and_happens_once() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "viewer").await;
    let confirm = |code: String| anna.post("/session/totp/confirm").json(&json!({"code": code}));
    confirm("123456".to_owned()).await.problem(409, "totp_not_begun");
    let first = anna.post("/session/totp").await.expect(200);
    sign_in(&server, "anna", PASSWORD).await;
    let second = anna.post("/session/totp").await.expect(200);
    assert_ne!(first["secret"], second["secret"]);
    let code = |enrolment: &Value| {
        let authenticator = Totp::from_url(enrolment["otpauth_url"].as_str().unwrap()).unwrap();
        let now = u64::try_from(SystemClock.now().timestamp()).unwrap();
        authenticator.generate(now).to_string()
    };
    assert!(confirm(code(&first)).await.invalid()["code"].is_string());
    confirm(code(&second)).await.expect(200);
    anna.post("/session/totp").await.problem(409, "totp_enabled");
    confirm(code(&second)).await.problem(409, "totp_not_begun");
}

#[tokio::test]
async fn disabling_takes_the_password_and_a_code() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "viewer").await;
    let disable = |password: &str, code: &str| {
        let proof = json!({"password": password, "code": code});
        anna.post("/session/totp/disable").json(&proof)
    };
    disable(PASSWORD, "123456").await.problem(409, "totp_disabled");
    let factor = Factor::enrol(&anna).await;
    let right = factor.code(1);
    assert!(disable("wrong", &right).await.invalid()["password"].is_string());
    assert!(disable(PASSWORD, "1").await.invalid()["code"].is_string());
    assert!(disable(PASSWORD, &factor.code(0)).await.invalid()["code"].is_string());
    disable(PASSWORD, &right).await.expect(204);
    sign_in(&server, "anna", PASSWORD).await;
    Factor::enrol(&anna).await;
}

#[tokio::test]
async fn an_administrator_resets_it_and_the_log_says_so() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "viewer").await;
    Factor::enrol(&anna).await;
    anna.delete("/users/anna/totp").await.problem(403, "forbidden");
    server.api().delete("/users/anna/totp").await.expect(204);
    sign_in(&server, "anna", PASSWORD).await;
    for name in ["anna", "nobody"] {
        let again = server.api().delete(&format!("/users/{name}/totp")).await;
        again.problem(404, "not_found");
    }
    let log = server.api().get("/audit?object=user:anna").await.expect(200);
    let actions: Vec<&Value> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["action"])
        .collect();
    for action in ["totp.enable", "totp.reset"] {
        assert!(actions.contains(&&json!(action)), "{actions:?}");
    }
}

#[tokio::test]
async fn a_role_may_have_to_have_it() {
    let setup = Harness::setup().with("sign_in.require_totp_for", "[\"operator\"]");
    let server = setup.start().await;
    let anna = person(&server, "anna", "operator").await;
    let who = anna.get("/session").await.expect(200);
    assert_eq!(
        (&who["totp"]["required"], &who["scopes"]),
        (&json!(true), &json!([]))
    );
    anna.get("/devices").await.problem(403, "forbidden");
    let token = json!({"name": "t", "scopes": ["devices:read"]});
    anna.post("/tokens").json(&token).await.problem(403, "forbidden");
    let factor = Factor::enrol(&anna).await;
    anna.get("/devices").await.expect(200);
    attempt(&server, "anna", None).await.problem(401, "totp_required");
    let signed_in = attempt(&server, "anna", Some(&factor.code(1))).await.expect(200);
    assert!(!signed_in["scopes"].as_array().unwrap().is_empty());
    let vera = person(&server, "vera", "viewer").await;
    vera.get("/devices").await.expect(200);
}

#[tokio::test]
async fn a_copy_of_the_database_makes_no_codes() {
    let mut server = Harness::start().await;
    let anna = person(&server, "anna", "viewer").await;
    let mut factor = Factor::enrol(&anna).await;
    server.restart().await;
    attempt(&server, "anna", Some(&factor.code(1))).await.expect(200);
    // Another person's row can't be made of it either.
    let ben = person(&server, "ben", "viewer").await;
    Factor::enrol(&ben).await;
    server
        .sql(
            "update totp set sealed = (select sealed from totp t join users u on u.id = t.user_id
             where u.username = 'anna')",
        )
        .await;
    later(&server, &mut factor).await;
    attempt(&server, "ben", Some(&factor.code(1)))
        .await
        .problem(401, "totp_invalid");
    attempt(&server, "anna", Some(&factor.code(1))).await.expect(200);
}
