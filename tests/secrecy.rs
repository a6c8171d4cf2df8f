//! No credential ever reaches the log, at whatever level.

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
use setpoint_model::{Clock as _, SystemClock};
use setpoint_tests::{
    Options, Version,
    harness::{
        mqtt::{Connect, VERSIONS},
        oidc::{ACCESS_TOKEN, CLIENT_ID, CLIENT_SECRET, Provider},
        operator_login,
        receiver::Receiver,
    },
};

use crate::{PROGRAM, oidc::Browser};

#[tokio::test]
async fn the_whole_log_of_a_run_holds_no_credential() {
    for format in ["text", "json"] {
        let provider = Provider::start().await;
        provider.person(json!({"sub": "1", "preferred_username": "anna"}));
        let options = Options::new(PROGRAM)
            .env("SETPOINT_SIGN_IN__OIDC__ISSUER", provider.issuer())
            .env("SETPOINT_SIGN_IN__OIDC__CLIENT_ID", CLIENT_ID)
            .env("SETPOINT_SIGN_IN__OIDC__CLIENT_SECRET", CLIENT_SECRET)
            .env("SETPOINT_SIGN_IN__OIDC__DEFAULT_ROLE", "viewer")
            .env("SETPOINT_WEBHOOKS__ALLOW_PRIVATE", "true")
            .env("SETPOINT_LOG__LEVEL", "trace")
            .env("SETPOINT_LOG__FORMAT", format)
            .env("SETPOINT_ADMIN__PASSWORD", "a-password-of-mine");
        let mut child = options.start().await;
        let device = child.device("HOME-1").await;
        let operator = child.api.scoped(&["mqtt", "devices:read"]).await;
        operator.get("/devices").await.expect(200);
        for version in VERSIONS {
            let mut session = device.mqtt(version).connect().await;
            session.publish("devices/HOME-1/telemetry", r#"{"t":1}"#).await;
            session.disconnect().await;
            device.mqtt(version).password("a-guess-of-mine").refused().await;
            let login = operator_login(operator.token(), "ops");
            Connect::new(child.mqtt_port, version, login)
                .connect()
                .await
                .disconnect()
                .await;
        }
        let sample = child.api.anonymous().post("/devices/HOME-1/telemetry");
        sample
            .basic("HOME-1", &device.token)
            .json(&json!({"t": 1}))
            .await
            .expect(200);
        let wrong = child.api.anonymous().post("/devices/HOME-1/telemetry");
        wrong
            .basic("HOME-1", "a-guess-of-mine")
            .json(&json!({"t": 1}))
            .await
            .problem(401, "unauthenticated");
        child
            .api
            .with_token("spt_a-guess-of-mine")
            .get("/devices")
            .await
            .problem(401, "unauthenticated");
        let rotated = child.api.post("/devices/HOME-1/credential").await.json();
        assert_eq!(device.mqtt(Version::V3).refused().await, 5);

        let anonymous = child.api.anonymous();
        let who = json!({"username": "admin", "password": "a-password-of-mine"});
        let signed_in = anonymous.post("/session").json(&who).await;
        let csrf = signed_in.expect(200)["csrf_token"].as_str().unwrap().to_owned();
        let cookie = signed_in.header("set-cookie");
        let cookie = cookie.split([';', '=']).nth(1).unwrap().to_owned();
        let form = |path: &str, body: String| {
            let call = anonymous.root(Method::POST, path);
            call.header("content-type", "application/x-www-form-urlencoded")
                .body(body)
        };
        let asked = form(
            "/oauth/device_authorization",
            "client_id=device&serial=NEW-1".to_owned(),
        );
        let codes = asked.await.expect(200);
        let (device_code, user_code) = (
            codes["device_code"].as_str().unwrap(),
            codes["user_code"].as_str().unwrap(),
        );
        let approval = json!({"user_code": user_code, "decision": "approve"});
        let page = anonymous
            .root(Method::POST, "/activate")
            .header("x-csrf-token", &csrf);
        let page = page.header("cookie", &format!("setpoint_session={cookie}"));
        page.json(&approval).await.expect(200);
        let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
        let poll = format!("grant_type={grant}&client_id=device&device_code={device_code}");
        let claimed = form("/oauth/token", poll).await.expect(200);

        let account = |path: &str, body: serde_json::Value| {
            let call = anonymous.post(path).header("x-csrf-token", &csrf);
            call.header("cookie", &format!("setpoint_session={cookie}"))
                .json(&body)
        };
        let enrolment = account("/session/totp", json!({})).await.expect(200);
        let authenticator = totp_rs::Totp::from_url(enrolment["otpauth_url"].as_str().unwrap()).unwrap();
        let now = u64::try_from(SystemClock.now().timestamp()).unwrap();
        let code = authenticator.generate(now).to_string();
        let confirmed = account("/session/totp/confirm", json!({"code": code}))
            .await
            .expect(200);
        let recovery_code = confirmed["recovery_codes"][0].as_str().unwrap();
        let who = json!({"username": "admin", "password": "a-password-of-mine", "code": recovery_code});
        anonymous.post("/session").json(&who).await.expect(200);
        let password = json!({"current": "a-password-of-mine", "new": "another-password-of-mine"});
        account("/session/password", password).await.expect(204);
        let mut browser = Browser::new(anonymous.server());
        let arrived = browser.sign_in().await;
        assert_eq!(arrived.status(), 303);
        let mut receiver = Receiver::start().await;
        let hook = json!({
            "name": "ops", "url": format!("{}/a-path-of-mine", receiver.url()), "events": ["presence"],
            "headers": {"authorization": "Bearer a-header-of-mine"}
        });
        let made = child.api.post("/webhooks").json(&hook).await.expect(201);
        let secret = child.api.post("/webhooks/ops/secret").await.expect(200);
        child.api.post("/webhooks/ops/test").await.expect(202);
        receiver.next().await;
        let server_key = std::fs::read_to_string(child.data().join("server-key")).unwrap();

        let secrets = [
            made["secret"].as_str().unwrap().to_owned(),
            secret["secret"].as_str().unwrap().to_owned(),
            "a-path-of-mine".to_owned(),
            "a-header-of-mine".to_owned(),
            enrolment["secret"].as_str().unwrap().to_owned(),
            recovery_code.to_owned(),
            recovery_code.replace('-', ""),
            "another-password-of-mine".to_owned(),
            server_key.trim().to_owned(),
            CLIENT_SECRET.to_owned(),
            ACCESS_TOKEN.to_owned(),
            browser.cookie("setpoint_session"),
            cookie,
            csrf,
            device_code.to_owned(),
            user_code.to_owned(),
            claimed["access_token"].as_str().unwrap().to_owned(),
            child.api.token().to_owned(),
            operator.token().to_owned(),
            device.token.clone(),
            rotated["token"].as_str().unwrap().to_owned(),
            "a-password-of-mine".to_owned(),
            "a-guess-of-mine".to_owned(),
        ];
        let secrets = secrets.into_iter().chain(provider.given()).chain(browser.seen);
        assert!(child.stop(Signal::SIGTERM).await.success());
        let log = child.output().await;
        assert!(log.len() > 1_000, "a log at trace level, not {} bytes", log.len());
        for secret in secrets {
            let line = log.lines().find(|line| line.contains(&secret));
            assert_eq!(line, None, "{format}: {secret} is in the log");
            // Basic and CONNECT carry it in other clothes.
            let bytes = secret
                .as_bytes()
                .iter()
                .map(u8::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            assert!(
                !log.contains(&bytes),
                "{format}: {secret} is in the log, byte by byte"
            );
        }
        assert!(
            !log.contains("Basic "),
            "{format}: an Authorization header is in the log"
        );
        assert!(
            !log.contains("Bearer s"),
            "{format}: an Authorization header is in the log"
        );
    }
}
