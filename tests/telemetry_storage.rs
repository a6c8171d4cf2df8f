//! How long telemetry is kept, and what it takes.

use chrono::TimeDelta;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use setpoint_model::{Clock as _, SystemClock};
use setpoint_tests::{Child, Harness, Options, eventually};

use crate::{PROGRAM, telemetry_rollups::rolled};

const PATH: &str = "/devices/HOME-1/telemetry";

fn ago(time: TimeDelta) -> String {
    (SystemClock.now() - time).to_rfc3339()
}

/// The values from the last hundred days, oldest first.
async fn kept(server: &Harness, more: &str) -> Vec<Value> {
    let from = (SystemClock.now() - TimeDelta::days(100)).format("%Y-%m-%dT%H:%M:%SZ");
    let path = format!("{PATH}?metric=t&from={from}{more}");
    let list = server.api().get(&path).await.expect(200);
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| item["value"].clone()).collect()
}

#[tokio::test]
async fn a_model_keeps_telemetry_for_less_long() {
    let setup = Harness::setup()
        .with("telemetry.rollup_every", "50ms")
        .with("telemetry.retention", "60days");
    let mut server = setup.start().await;
    let device = server.device("HOME-1").await;
    server.device("HOME-2").await;
    let lamp = json!({"name": "lamp", "settings": {}});
    server.api().post("/models").json(&lamp).await.expect(201);
    server
        .api()
        .patch("/devices/HOME-2")
        .json(&json!({"model": "lamp"}))
        .await
        .expect(200);
    let days = [50, 10, 3, 0].map(|days| json!({"t": days, "at": ago(TimeDelta::days(days))}));
    for path in [PATH, "/devices/HOME-2/telemetry"] {
        let sent = server.api().post(path).json(&json!(days)).await.expect(200);
        assert_eq!(sent["stored"], 4);
    }
    rolled(&server).await;

    for (seconds, message) in [
        (
            60 * 86_400 + 1,
            "at most 5184000, for which this server keeps telemetry",
        ),
        (
            3_600,
            "must be a whole number of seconds from 86400 to 2147483647",
        ),
    ] {
        let patch = json!({"telemetry_retention": seconds});
        let errors = server.api().patch("/models/home").json(&patch).await.invalid();
        assert_eq!(errors["telemetry_retention"], message);
    }
    let patch = json!({"telemetry_retention": 5 * 86_400});
    let model = server.api().patch("/models/home").json(&patch).await.expect(200);
    assert_eq!(model["telemetry_retention"], 432_000);

    // Refused from now on, whichever samples come with it.
    let mixed = json!([{"t": 1, "at": ago(TimeDelta::days(6))}, {"t": 2, "at": ago(TimeDelta::days(4))}]);
    let sent = device.api.post(PATH).json(&mixed).await.expect(200);
    assert_eq!(sent["stored"], 1);
    assert_eq!(sent["problems"][0]["message"], "is older than telemetry is kept");
    let sent = server
        .api()
        .post("/devices/HOME-2/telemetry")
        .json(&mixed)
        .await
        .expect(200);
    assert_eq!(sent["stored"], 2, "another model");

    // Each server looks when it starts, and then every hour.
    assert_eq!(kept(&server, "").await, [50, 10, 2, 3, 0]);
    server.restart().await;
    eventually!(kept(&server, "").await == [2, 3, 0]);
    eventually!(kept(&server, "&bucket=1h&agg=last").await == [2, 3, 0]);
    let others = server
        .api()
        .get("/devices/HOME-2/telemetry?metric=t&from=2001-01-01T00:00:00Z")
        .await
        .expect(200);
    assert_eq!(others["items"].as_array().unwrap().len(), 6);
}

/// Runs `setpoint telemetry` beside the server.
async fn printed(child: &Child, arguments: &[&str]) -> String {
    let options = Options::new(PROGRAM)
        .env("SETPOINT_LOG__LEVEL", "error")
        .arg("telemetry");
    let options = arguments
        .iter()
        .fold(options, |options, argument| options.arg(argument));
    let options = options.arg("--api").arg(child.api.server());
    let (status, stdout, stderr) = options.spawn(&child.data()).ended().await;
    assert!(status.success(), "{stderr:?}");
    stdout.join("\n")
}

#[tokio::test]
async fn the_terminal_shows_what_telemetry_takes() {
    let mut child = Options::new(PROGRAM).start().await;
    let device = child.device("HOME-1").await;
    let now = SystemClock.now();
    let samples: Vec<Value> = (0..500)
        .map(|number| json!({"t": number, "at": now - TimeDelta::seconds(number)}))
        .collect();
    device.api.post(PATH).json(&json!(samples)).await.expect(200);
    let storage: Value = serde_json::from_str(&printed(&child, &["--json"]).await).unwrap();
    assert!(
        storage["samples"]["table_bytes"].as_i64().unwrap() > 500 * 50,
        "{storage}"
    );
    assert!(
        storage["samples"]["partitions"].as_i64().unwrap() >= 9,
        "{storage}"
    );
    assert!(storage["minutes"]["rows"].is_i64(), "{storage}");
    assert!(storage["days"]["to"].is_string(), "{storage}");
    assert!(
        storage["rollups"]["lag_seconds"].as_i64().unwrap() < 600,
        "{storage}"
    );
    assert_eq!(storage["server"]["queued_samples"], 0.0, "{storage}");
    let table = printed(&child, &[]).await;
    for part in [
        "samples",
        "minutes",
        "hours",
        "roll-ups",
        "0 samples waiting for a commit",
    ] {
        assert!(table.contains(part), "{part} in {table}");
    }
    assert!(child.stop(Signal::SIGTERM).await.success());
    let table = printed(&child, &[]).await;
    assert!(
        table.ends_with("server    not running, or not reached"),
        "{table}"
    );
}
