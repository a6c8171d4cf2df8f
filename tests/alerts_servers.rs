//! Alerts over restarts, and of several servers on one database.

use serde_json::json;
use setpoint_tests::{eventually, harness::alerts::Watched};

#[tokio::test]
async fn what_came_due_while_no_server_ran_is_told_by_the_next_once() {
    let mut watched = Watched::start().await;
    let device = watched.server.device("HOME-1").await;
    let silent = watched.server.device("HOME-2").await;
    watched
        .rule("hot", json!({"condition": "temperature > 30 for 5m"}))
        .await;
    watched
        .rule("quiet", json!({"condition": "no telemetry for 5m"}))
        .await;
    watched.send(&device, json!({"temperature": 31})).await;
    watched.send(&silent, json!({"temperature": 20})).await;
    eventually!(watched.state("HOME-1", "hot").await == "pending");
    watched.server.stop().await;
    watched.pass(3_600);
    watched.server.start_again().await;
    for (serial, rule) in [("HOME-1", "hot"), ("HOME-1", "quiet"), ("HOME-2", "quiet")] {
        eventually!(watched.state(serial, rule).await == "firing", "{serial} {rule}");
    }
    let api = watched.api().clone();
    for serial in ["HOME-1", "HOME-2"] {
        let list = api.get(&format!("/devices/{serial}/timeline")).await.expect(200);
        let fired = list["items"].as_array().unwrap().iter();
        let fired: Vec<_> = fired
            .filter(|entry| entry["kind"] == "alert_firing")
            .map(|entry| entry["at"].as_str().unwrap())
            .collect();
        assert!(fired.iter().all(|at| *at == "2026-01-15T14:05:00Z"), "{fired:?}");
        assert_eq!(fired.len(), if serial == "HOME-1" { 2 } else { 1 });
    }
}

#[tokio::test]
async fn samples_that_no_server_judged_are_judged_at_the_next_start() {
    let mut watched = Watched::start().await;
    let device = watched.server.device("HOME-1").await;
    watched
        .rule("hot", json!({"condition": "temperature > 30 for 5m"}))
        .await;
    watched.send(&device, json!({"temperature": 20})).await;
    eventually!(watched.api().get("/alerts/hot").await.expect(200)["settling"] == false);
    watched.server.stop().await;
    watched.pass(600);
    // Committed by a server that was killed before it could judge them.
    watched
        .server
        .sql(
            "insert into telemetry (device_id, metric_id, at, number)
             select d.id, m.id, t.at::timestamptz, t.number from devices d, metrics m,
             (values ('2026-01-15T14:02:00Z', 31), ('2026-01-15T14:04:00Z', 32)) t (at, number)
             where d.serial = 'HOME-1' and m.name = 'temperature'",
        )
        .await;
    watched.server.start_again().await;
    eventually!(watched.state("HOME-1", "hot").await == "firing");
    let message = watched.message("HOME-1", "hot").await;
    assert_eq!(message, "temperature is 32, above 30 since 14:02");
}

#[tokio::test]
async fn of_two_servers_one_tells_and_those_who_listen_at_either_hear() {
    let watched = Watched::start().await;
    let second = watched.server.beside().await;
    let device = watched.server.device("HOME-1").await;
    let other = second.device("HOME-2").await;
    let mut here = watched.api().get("/events?type=alert").events().await;
    let mut there = second.api().get("/events?type=alert").events().await;
    here.next_or_end().await.unwrap();
    there.next_or_end().await.unwrap();
    // Made at one, judged by samples that come in at either.
    watched
        .rule("hot", json!({"condition": "temperature > 30 for 5m"}))
        .await;
    for (server, device) in [(&watched.server, &device), (&second, &other)] {
        let path = device.path("/telemetry");
        let body = json!({"temperature": 20});
        server.api().post(&path).json(&body).await.expect(200);
        watched.pass(1);
        let body = json!({"temperature": 31});
        server.api().post(&path).json(&body).await.expect(200);
    }
    // What the second took before it had heard of the rule is looked at ten seconds after the rule was made.
    watched.pass(10);
    for serial in ["HOME-1", "HOME-2"] {
        eventually!(watched.state(serial, "hot").await == "pending", "{serial}");
    }
    watched.pass(300);
    for events in [&mut here, &mut there] {
        let mut told = Vec::new();
        for _ in 0..2 {
            let event = events.next().await.data;
            assert_eq!(event["state"], "firing");
            told.push(event["serial"].as_str().unwrap().to_owned());
        }
        told.sort();
        assert_eq!(told, ["HOME-1", "HOME-2"]);
    }
    // What one server knows of a device, the other changes: the next sample at the first is judged by that.
    let path = device.path("/telemetry");
    watched.pass(1);
    second
        .api()
        .post(&path)
        .json(&json!({"temperature": 20}))
        .await
        .expect(200);
    eventually!(watched.message("HOME-1", "hot").await.starts_with("no longer so"));
    // It may be a moment before the first hears that it was judged elsewhere.
    eventually!({
        watched.pass(1);
        watched.send(&device, json!({"temperature": 33})).await;
        let message = watched.message("HOME-1", "hot").await;
        message.starts_with("temperature is 33, above 30")
    });
    assert_eq!(device.timeline("alert_firing").await.len(), 1);
    assert_eq!(other.timeline("alert_firing").await.len(), 1);
}
