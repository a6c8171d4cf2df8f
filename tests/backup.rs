//! `setpoint backup` and `setpoint restore`: all is there again, in a data directory that was empty.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use chrono::{DurationRound, TimeDelta};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use setpoint_model::{Clock as _, SystemClock};
use setpoint_store::embedded::{self, EmbeddedConfig};
use setpoint_tests::{Child, Options, Version, eventually, harness::receiver::Receiver};

use crate::PROGRAM;

fn options() -> Options {
    Options::new(PROGRAM)
        .env("SETPOINT_WEBHOOKS__ALLOW_PRIVATE", r#"["127.0.0.0/8"]"#)
        .env("SETPOINT_TELEMETRY__ROLLUP_EVERY", "50ms")
}

/// Runs a subcommand on a data directory: its exit code and what it said on stderr.
async fn command(words: &[&str], data: &Path) -> (Option<i32>, String) {
    let options = words
        .iter()
        .fold(Options::new(PROGRAM), |options, word| options.arg(word));
    let (status, _, stderr) = options.spawn(data).ended().await;
    (status.code(), stderr.join("\n"))
}

/// What a statement finds in the embedded Postgres of a server that runs.
fn sql(data: &Path, statement: &str) -> String {
    let (programs, _) = embedded::programs(&EmbeddedConfig::new(data)).expect("Postgres");
    let url = embedded::running_url(data).expect("a running Postgres");
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(programs.join("psql"))
        .args(["--no-psqlrc", "-Atq", &format!("--dbname={url}"), "-c", statement])
        .output()
        .expect("psql");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().trim().to_owned()
}

/// What somebody would miss.
async fn kept(child: &Child, from: &str) -> Vec<(String, Value)> {
    let ranges = [
        format!("/devices/HOME-1/telemetry?from={from}"),
        format!("/devices/HOME-1/telemetry?from={from}&bucket=1h&agg=sum"),
        format!("/telemetry?group=oslo&from={from}&bucket=1d&by=device"),
    ];
    let lists = [
        "/users",
        "/models",
        "/groups",
        "/webhooks",
        "/devices?q=HOME&sort=serial",
        "/devices/HOME-1/settings",
        "/devices/HOME-1/settings/versions",
        "/devices/HOME-1/timeline?kind=settings_changed,alert_firing,created",
        "/devices/HOME-1/telemetry/latest",
        "/devices/HOME-1/alerts",
    ];
    let mut all = Vec::new();
    for path in lists.into_iter().map(str::to_owned).chain(ranges) {
        let mut answer = child.api.get(&path).await.expect(200);
        // Written now and then.
        for item in answer["items"].as_array_mut().into_iter().flatten() {
            if let Some(item) = item.as_object_mut() {
                item.remove("last_seen");
            }
        }
        all.push((path, answer));
    }
    all
}

#[tokio::test]
async fn a_backup_brings_everything_back_in_an_empty_data_directory() {
    let mut child = options().start().await;
    let api = child.api.clone();
    let mut receiver = Receiver::start().await;
    let device = child.device("HOME-1").await;
    child.device("HOME-2").await;
    let body = json!({"tags": {"site": "oslo"}});
    api.patch("/devices/HOME-1").json(&body).await.expect(200);
    let body = json!({"name": "oslo", "selector": "site=oslo", "settings": {"reportInterval": 30}});
    api.post("/groups").json(&body).await.expect(201);
    let anna = json!({"username": "anna", "password": "a long password", "role": "viewer"});
    api.post("/users").json(&anna).await.expect(201);
    let hook = json!({"name": "ops", "url": receiver.url(), "events": ["settings"], "serial": "HOME-2"});
    let hook = api.post("/webhooks").json(&hook).await.expect(201);
    let rule = json!({"name": "hot", "condition": "temperature > 30", "scope": {"serial": "HOME-1"}});
    api.post("/alerts").json(&rule).await.expect(201);
    device.change(json!({"privacyMode": true})).await;

    // Late by hours, so that roll-ups are made at once.
    let hour = SystemClock.now().duration_trunc(TimeDelta::hours(1)).unwrap() - TimeDelta::hours(3);
    let late: Vec<Value> = (0..100)
        .map(|n| json!({"temperature": n, "at": hour + TimeDelta::minutes(n)}))
        .collect();
    let path = device.path("/telemetry");
    let send = |api: &setpoint_tests::Api, body: Value| {
        let call = api.anonymous().post(&path).basic(&device.serial, &device.token);
        call.json(&body)
    };
    send(&api, json!(late)).await.expect(200);
    send(&api, json!({"temperature": 31.5, "door": true, "mode": "auto"}))
        .await
        .expect(200);
    eventually!({
        let alerts = api.get("/devices/HOME-1/alerts").await.expect(200);
        alerts["items"][0]["state"] == "firing"
    });
    let rolled = "SELECT (SELECT sum(samples) FROM telemetry_minutes WHERE at < now() - interval '1 hour'),
                         (SELECT sum(samples) FROM telemetry_hours WHERE at < now() - interval '1 hour')";
    eventually!(sql(&child.data(), rolled) == "100|100");
    // None of ours, but in its place a dump has transactions of its own.
    sql(&child.data(), "SELECT lo_create(0)");

    let old = child.data();
    let home = old.parent().unwrap().to_owned();
    let file = home.join("all.dump").to_str().unwrap().to_owned();
    let from = (hour - TimeDelta::hours(1))
        .format("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let before = kept(&child, &from).await;
    assert_eq!(command(&["backup", &file], &old).await, (Some(0), String::new()));
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it is its owner's alone");
    let (code, said) = command(&["backup", &file], &old).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("exists"), "never over another backup: {said}");
    let (code, said) = command(&["restore", "--yes", &file], &old).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("stop it first"), "{said}");
    assert!(child.stop(Signal::SIGTERM).await.success());

    // Half a backup changes nothing.
    let half = home.join("half.dump");
    let length = fs::copy(&file, &half).unwrap() / 2;
    let cut = OpenOptions::new().write(true).open(&half).unwrap();
    cut.set_len(length).unwrap();
    let (code, said) = command(&["restore", "--yes", half.to_str().unwrap()], &old).await;
    assert_eq!(code, Some(1), "{said}");
    child.start_again().await;
    assert_eq!(kept(&child, &from).await, before);
    assert!(child.stop(Signal::SIGTERM).await.success());

    let aside = home.join("old");
    fs::rename(&old, &aside).unwrap();
    let restored = command(&["restore", "--yes", &file], &child.data()).await;
    assert_eq!(restored, (Some(0), String::new()));
    // As the documentation says: it is no part of the backup.
    fs::copy(aside.join("server-key"), child.data().join("server-key")).unwrap();
    child.start_again().await;
    assert_eq!(kept(&child, &from).await, before);
    assert_eq!(sql(&child.data(), rolled), "100|100");
    let readable = "SET ROLE setpoint_reader; SELECT count(*) FROM telemetry_raw";
    assert_eq!(sql(&child.data(), readable), "103");

    let device = child.again(&device);
    send(&child.api, json!({"temperature": 12})).await.expect(200);
    let mut session = device.listening(Version::V5).await;
    assert_eq!(
        session
            .publish(&device.topic("telemetry"), r#"{"door":false}"#)
            .await,
        0
    );
    let version = device.change(json!({"privacyMode": false})).await;
    let told = session.next(&device.topic("settings")).await.json();
    assert_eq!(told["version"], version, "versions go on where they were");
    let old_token = child.api.with_token(api.token());
    old_token.get("/devices").await.expect(200);
    let anna = json!({"username": "anna", "password": "a long password"});
    child
        .api
        .anonymous()
        .post("/session")
        .json(&anna)
        .await
        .expect(200);
    eventually!({
        let alerts = child.api.get("/devices/HOME-1/alerts").await.expect(200);
        alerts["items"][0]["state"] == "resolved"
    });
    let change = json!({"privacyMode": true});
    let path = "/devices/HOME-2/settings";
    child.api.patch(path).json(&change).await.expect(200);
    let told = receiver.next().await;
    assert!(told.is_signed_by(hook["secret"].as_str().unwrap()));
    assert_eq!(told.body["serial"], "HOME-2");
}
