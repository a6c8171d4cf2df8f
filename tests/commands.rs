//! The commands of the program beside `serve`.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use setpoint_tests::{Child, Options, Version, harness::operator_login};

use crate::{
    PROGRAM,
    sessions::{PASSWORD, Person},
    totp::Factor,
};

fn command(arguments: &[&str]) -> Options {
    let options = Options::new(PROGRAM).env("SETPOINT_LOG__LEVEL", "error");
    arguments
        .iter()
        .fold(options, |options, argument| options.arg(argument))
}

/// Runs a command on the server's data directory: what it printed.
async fn run(child: &Child, arguments: &[&str]) -> String {
    let (status, stdout, stderr) = command(arguments).spawn(&child.data()).ended().await;
    assert!(status.success(), "{arguments:?}: {stderr:?}");
    stdout.join("\n")
}

#[tokio::test]
async fn openapi_prints_the_document_that_is_served() {
    let child = Options::new(PROGRAM).start().await;
    let printed: Value = serde_json::from_str(&run(&child, &["openapi"]).await).unwrap();
    let served = child
        .api
        .anonymous()
        .root(reqwest::Method::GET, "/openapi.json")
        .await
        .expect(200);
    assert_eq!(printed, served);
}

#[tokio::test]
async fn a_token_can_be_added_while_the_server_runs_and_while_it_does_not() {
    let mut child = Options::new(PROGRAM).start().await;
    child.device("HOME-1").await;
    let add = ["token", "add", "ci", "--scope", "devices:read", "--scope", "mqtt"];
    let running = run(&child, &add).await;
    assert!(
        running.starts_with("spt_") && !running.contains('\n'),
        "the token alone, for a script: {running:?}"
    );
    child
        .api
        .with_token(&running)
        .get("/devices/HOME-1")
        .await
        .expect(200);
    child
        .api
        .with_token(&running)
        .delete("/devices/HOME-1")
        .await
        .problem(403, "forbidden");
    let login = operator_login(&running, "ops");
    setpoint_tests::harness::mqtt::Connect::new(child.mqtt_port, Version::V5, login)
        .connect()
        .await;

    assert!(child.stop(Signal::SIGTERM).await.success());
    let stopped = run(&child, &add).await;
    child.start_again().await;
    for token in [&running, &stopped] {
        child
            .api
            .with_token(token)
            .get("/devices/HOME-1")
            .await
            .expect(200);
    }
    let (status, _, stderr) = command(&["token", "add", "x", "--scope", "everything"])
        .spawn(&child.data())
        .ended()
        .await;
    assert!(!status.success());
    assert!(stderr.concat().contains("everything"), "{stderr:?}");
}

#[tokio::test]
async fn migrate_ends_when_it_is_done() {
    let child = Options::new(PROGRAM).start().await;
    run(&child, &["migrate"]).await;
    child.api.get("/devices").await.expect(200);
}

#[tokio::test]
async fn every_command_explains_itself_with_an_example() {
    let home = tempfile::tempdir().unwrap();
    for name in [
        "serve",
        "migrate",
        "user",
        "token",
        "sessions",
        "telemetry",
        "openapi",
        "doctor",
    ] {
        let (status, stdout, _) = command(&[name, "--help"]).spawn(home.path()).ended().await;
        assert!(status.success(), "{name}");
        let help = stdout.join("\n");
        assert!(
            help.contains("Example") && help.contains(&format!("setpoint {name}")),
            "{name}:\n{help}"
        );
    }
    let (status, _, stderr) = command(&["dance"]).spawn(home.path()).ended().await;
    assert_eq!(status.code(), Some(2), "{stderr:?}");
}

#[tokio::test]
async fn a_second_factor_that_was_lost_is_reset_at_the_terminal() {
    let child = Options::new(PROGRAM)
        .env("SETPOINT_ADMIN__PASSWORD", PASSWORD)
        .start()
        .await;
    let admin = Person::sign_in(child.api.anonymous(), "admin", PASSWORD).await;
    Factor::enrol(&admin).await;
    let body = json!({"username": "admin", "password": PASSWORD});
    let sign_in = || child.api.anonymous().post("/session").json(&body);
    sign_in().await.problem(401, "totp_required");
    let told = run(&child, &["user", "reset-totp", "Admin"]).await;
    assert!(told.contains("without a second factor"), "{told}");
    sign_in().await.expect(200);
    let again = command(&["user", "reset-totp", "admin"]).spawn(&child.data());
    let (status, _, stderr) = again.ended().await;
    assert_eq!((status.code(), stderr.len()), (Some(1), 1), "{stderr:?}");
    assert!(stderr.concat().contains("second factor not found"), "{stderr:?}");
}
