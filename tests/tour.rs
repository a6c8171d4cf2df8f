//! The README's tour: every command of it, as it stands there.

use std::{path::Path, process::Stdio};

use device_sim::{Device as Simulated, DeviceOptions, Endpoint, Registrar, Rest, Token};
use serde_json::Value;
use setpoint_tests::{Child, Options, WAIT, within};
use tokio::process::Command;
use tokio_util::task::TaskTracker;

use crate::PROGRAM;

/// The commands that the README shows, in their order.
fn commands() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let (_, tour) = text.split_once("## A five-minute tour").expect("a tour");
    let (tour, _) = tour.split_once("\n## ").expect("an end of the tour");
    let shown = tour.lines().filter_map(|line| line.strip_prefix("    $ "));
    shown.map(str::to_owned).collect()
}

/// Runs a command of the README in a shell: what it printed.
async fn run(child: &Child, line: &str, token: &str) -> String {
    // The server of this test is elsewhere, and a subscriber that never ends would hold the test up.
    let port = child.mqtt_port;
    let line = line
        .replace("mosquitto_sub ", &format!("mosquitto_sub -p {port} -C 1 "))
        .replace("mosquitto_pub ", &format!("mosquitto_pub -p {port} "));
    let output = Command::new("sh")
        .args(["-c", &line])
        .current_dir(child.data().parent().unwrap())
        .env("AUTH", format!("Authorization: Bearer {}", child.api.token()))
        .env("API", format!("{}/api/v1", child.api.server()))
        .env("TOKEN", token)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(&line, output).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The tour's simulator, in this process.
async fn simulator(child: &Child) -> Simulated {
    let rest = Rest::new(child.api.server(), Some(Token::new(child.api.token()))).unwrap();
    let serial = "HOME-1".parse().unwrap();
    let token = Registrar::new(rest, "home").credential(&serial).await.unwrap();
    let options = DeviceOptions::new(serial, Some(token), Endpoint::loopback(child.mqtt_port));
    let simulated = Simulated::start(options, &TaskTracker::new());
    simulated
        .wait(WAIT, |state| state.acknowledged.is_some())
        .await
        .unwrap();
    simulated
}

#[tokio::test]
async fn every_command_of_the_tour_does_what_the_readme_says() {
    let child = Options::new(PROGRAM).start().await;
    let simulated = simulator(&child).await;
    let (mut token, mut done) = (String::new(), 0);
    for line in commands() {
        if line.starts_with("cargo run")
            || line.contains("=") && !line.contains(' ')
            || line.starts_with("AUTH=")
        {
            continue;
        }
        let printed = run(&child, &line, &token).await;
        done += 1;
        if line.starts_with("mosquitto_sub") {
            let (topic, payload) = printed
                .trim()
                .split_once(' ')
                .unwrap_or_else(|| panic!("{line}: {printed}"));
            assert!(topic.starts_with("devices/HOME-"), "{line}: {printed}");
            serde_json::from_str::<Value>(payload).unwrap();
        }
        if !line.starts_with("curl") {
            continue;
        }
        if let Some((_, file)) = line.split_once(" -o ") {
            let file = file.split_whitespace().next().unwrap();
            let picture = std::fs::read_to_string(child.data().parent().unwrap().join(file)).unwrap();
            assert!(picture.starts_with("<svg "), "{line}: {picture}");
            continue;
        }
        let answer: Value =
            serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{line}: {error}: {printed}"));
        if line.contains(r#"{"reportInterval":5}"#) {
            assert_eq!(
                answer["errors"]["reportInterval"], "must be from 10 to 3600",
                "{line}"
            );
            continue;
        }
        assert_eq!(answer.get("code"), None, "{line}: {answer}");
        if let Some(made) = answer["credential"]["token"].as_str() {
            made.clone_into(&mut token);
        }
        if line.contains("PATCH") {
            let version = answer["version"].as_u64().unwrap();
            let acknowledged = simulated.wait(WAIT, |state| state.acknowledged >= Some(version));
            acknowledged.await.unwrap();
        }
    }
    assert!(done >= 8, "the tour has become short: {done} commands");
}
