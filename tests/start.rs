//! The program: its start, its banner, its files, its end.

use std::{net::TcpListener, os::unix::fs::PermissionsExt as _};

use nix::sys::signal::Signal;
use serde_json::json;
use setpoint_tests::{
    Child, Options, eventually,
    harness::child::{is_running, kill_process},
};

use crate::PROGRAM;

fn options() -> Options {
    Options::new(PROGRAM)
}

/// A program that must refuse to start, and its only line on stderr.
async fn refusal(options: Options) -> String {
    let home = tempfile::tempdir().unwrap();
    let (status, _, stderr) = options.spawn(&home.path().join("data")).ended().await;
    assert_eq!(status.code(), Some(2), "{stderr:?}");
    assert_eq!(stderr.len(), 1, "one clear line: {stderr:?}");
    stderr.concat()
}

async fn names(child: &Child) -> Vec<String> {
    let list = child.api.get("/devices").await.expect(200);
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["serial"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_first_start_says_where_it_is_and_what_to_type() {
    let mut child = options().start().await;
    let token_file = child.data().join("admin-token");
    for part in [
        "http://127.0.0.1:",
        "mqtt://127.0.0.1:",
        "curl ",
        "mosquitto_sub ",
        "device-sim ",
        "admin-token",
    ] {
        let banner = || child.stdout().join("\n");
        eventually!(banner().contains(part), "{part:?} in\n{}", banner());
    }
    let mode = std::fs::metadata(&token_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the token is its owner's alone");
    assert_eq!(
        names(&child).await,
        Vec::<String>::new(),
        "the token opens REST at once"
    );
    assert!(child.stop(Signal::SIGTERM).await.success());
}

#[tokio::test]
async fn a_second_start_finds_everything_again() {
    let mut child = options().start().await;
    let token = child.api.token().to_owned();
    let password = eventually!(
        password(&child.stdout().join("\n")),
        "the administrator's password, shown at the first start"
    );
    child.device("KEPT-1").await;
    assert!(
        child.stop(Signal::SIGINT).await.success(),
        "Ctrl-C is an orderly end"
    );
    child.start_again().await;
    assert_eq!(child.api.token(), token);
    assert_eq!(names(&child).await, ["KEPT-1"]);
    assert!(!child.stdout().join("\n").contains(&password), "and never again");
}

/// The word after `password` in the banner.
fn password(banner: &str) -> Option<String> {
    let at = banner.to_lowercase().find("password")?;
    let mut words = banner[at..].split_whitespace().skip(1);
    words.find(|word| word.len() >= 16).map(str::to_owned)
}

#[tokio::test]
async fn the_administrators_password_can_be_given() {
    let child = options()
        .env("SETPOINT_ADMIN__PASSWORD", "chosen by its owner")
        .start()
        .await;
    assert!(!child.stdout().join("\n").contains("chosen by its owner"));
    assert!(!child.stderr().join("\n").contains("chosen by its owner"));
}

#[tokio::test]
async fn an_unknown_key_is_one_line_and_code_2() {
    for (options, name) in [
        (options().env("SETPOINT_HTTP__LISEN", "127.0.0.1:0"), "http.lisen"),
        (options().arg("--set").arg("mqtt.portt=1"), "mqtt.portt"),
        (options().env("SETPOINT_MQTT__SHARDS", "none"), "mqtt.shards"),
    ] {
        let line = refusal(options).await;
        assert!(line.contains(name), "{line}");
    }
}

#[tokio::test]
async fn a_configuration_file_is_read_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, "[http]\nbody = 1\n").unwrap();
    let file = file.to_string_lossy();
    let line = refusal(options().arg("--config").arg(&file)).await;
    assert!(line.contains("http.body") && line.contains("mine.toml"), "{line}");
    let line = refusal(options().arg("--config").arg("nowhere.toml")).await;
    assert!(line.contains("nowhere.toml"), "{line}");
}

#[tokio::test]
async fn a_taken_port_is_one_line_and_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["SETPOINT_HTTP__LISTEN", "SETPOINT_MQTT__LISTEN"] {
        let line = refusal_after_start(options().env(key, &address)).await;
        assert!(line.contains(&address), "{line}");
    }
}

/// As [`refusal`], on a directory that Postgres can reach.
async fn refusal_after_start(options: Options) -> String {
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (status, _, stderr) = options
        .env("SETPOINT_LOG__LEVEL", "error")
        .spawn(&home.path().join("data"))
        .ended()
        .await;
    assert_eq!(status.code(), Some(2), "{stderr:?}");
    assert_eq!(stderr.len(), 1, "one clear line: {stderr:?}");
    stderr.concat()
}

#[tokio::test]
async fn plain_text_is_for_loopback_alone() {
    let line = refusal(options().env("SETPOINT_HTTP__LISTEN", "0.0.0.0:0")).await;
    assert!(line.contains("allow_plaintext"), "{line}");
}

#[tokio::test]
async fn an_orderly_end_takes_postgres_along() {
    let mut child = options().start().await;
    let postmaster = child.postmaster();
    assert!(is_running(postmaster));
    assert_eq!(child.stop(Signal::SIGTERM).await.code(), Some(0));
    assert!(
        !is_running(postmaster),
        "Postgres has ended before the server has"
    );
    assert!(!child.data().join("postgres/data/postmaster.pid").exists());
}

#[tokio::test]
async fn a_killed_server_leaves_nothing_running_and_starts_again() {
    let mut child = options().start().await;
    child.device("KEPT-1").await;
    for round in 0..3 {
        let postmaster = child.postmaster();
        child.kill().await;
        if round == 0 {
            eventually!(!is_running(postmaster), "the stray Postgres {postmaster} to end");
        }
        // At once in the later rounds: a start copes with a Postgres that is still ending.
        child.start_again().await;
        assert_eq!(names(&child).await, ["KEPT-1"], "round {round}");
    }
}

#[tokio::test]
async fn a_killed_postgres_comes_back() {
    let child = options().start().await;
    child.device("KEPT-1").await;
    let postmaster = child.postmaster();
    kill_process(postmaster);
    eventually!(!is_running(postmaster), "the killed Postgres {postmaster} to end");
    // Another one each time: what is answered 503 may have been made.
    let mut number = 0;
    eventually!(
        {
            number += 1;
            let new = json!({"serial": format!("NEW-{number}")});
            child.api.post("/devices").json(&new).await.status == 201
        },
        "Postgres to be there again"
    );
    child.api.get("/devices/KEPT-1").await.expect(200);
}

#[tokio::test]
async fn a_second_server_on_the_same_data_directory_is_told_so() {
    let child = options().start().await;
    let data = child.data();
    let (status, _, stderr) = options()
        .env("SETPOINT_LOG__LEVEL", "error")
        .spawn(&data)
        .ended()
        .await;
    assert!(!status.success());
    assert_eq!(stderr.len(), 1, "one clear line: {stderr:?}");
    assert_eq!(names(&child).await, Vec::<String>::new(), "the first is unharmed");
}

#[tokio::test]
async fn help_explains_every_command() {
    let home = tempfile::tempdir().unwrap();
    let (status, stdout, _) = options().arg("--help").spawn(home.path()).ended().await;
    assert!(status.success());
    let help = stdout.join("\n");
    for command in ["serve", "migrate", "user", "token", "openapi"] {
        assert!(help.contains(command), "{command} in\n{help}");
    }
}

#[tokio::test]
async fn a_key_file_that_is_no_key_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let key = home.path().join("key");
    std::fs::write(&key, "not a key").unwrap();
    let options = options().env("SETPOINT_LOG__LEVEL", "error");
    let told = refusal(options.env("SETPOINT_SIGN_IN__KEY_FILE", key.to_str().unwrap())).await;
    assert!(told.contains("sign_in.key_file: "), "{told}");
}
