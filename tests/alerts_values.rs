//! Rules over values: when they fire, when they are resolved, and who is told.

use reqwest::Method;
use serde_json::{Value, json};
use setpoint_tests::{
    Version, eventually,
    harness::{alerts::Watched, api::Api, events::EventReader},
};

async fn listen(api: &Api, query: &str) -> EventReader {
    let mut events = api.get(&format!("/events?{query}")).events().await;
    events.next_or_end().await.unwrap();
    events
}

#[tokio::test]
async fn an_alert_fires_after_its_time_does_not_flap_and_is_resolved_after_its_time() {
    let watched = Watched::start().await;
    let device = watched.server.device("HOME-1").await;
    let mut events = listen(watched.api(), "type=alert").await;
    watched
        .rule(
            "too-hot",
            json!({"title": "Too hot", "condition": "temperature > 30 for 5m"}),
        )
        .await;
    watched
        .send(&device, json!({"temperature": 25, "humidity": 90}))
        .await;
    watched.pass(120);
    watched.send(&device, json!({"temperature": 31.5})).await;
    eventually!(watched.state("HOME-1", "too-hot").await == "pending");
    let standing = watched.standing("HOME-1", "too-hot").await;
    assert_eq!(
        standing["message"],
        "temperature is 31.5, above 30 since 14:02, fires at 14:07"
    );
    assert_eq!(
        (&standing["values"], &standing["since"], &standing["due_at"]),
        (
            &json!({"temperature": 31.5}),
            &json!("2026-01-15T14:02:00Z"),
            &json!("2026-01-15T14:07:00Z")
        )
    );
    watched.pass(299);
    watched.send(&device, json!({"temperature": 32})).await;
    assert_eq!(watched.state("HOME-1", "too-hot").await, "pending");
    watched.pass(1);
    let told = events.next().await.data;
    assert_eq!(
        told,
        json!({
            "serial": "HOME-1", "alert": "too-hot", "title": "Too hot", "severity": "warning",
            "condition": "temperature > 30 for 5m", "state": "firing", "at": "2026-01-15T14:07:00Z",
            "since": "2026-01-15T14:02:00Z", "values": {"temperature": 32},
            "message": "temperature is 32, above 30 since 14:02",
        })
    );
    assert_eq!(watched.state("HOME-1", "too-hot").await, "firing");
    let rule = watched.api().get("/alerts/too-hot").await.expect(200);
    assert_eq!(rule["counts"], json!({"pending": 0, "firing": 1, "resolved": 0}));
    let firing = watched
        .api()
        .get("/alerts/too-hot/devices?state=firing")
        .await
        .expect(200);
    assert_eq!(firing["items"][0]["serial"], "HOME-1");

    // Over for less than its time: it goes on.
    watched.pass(60);
    watched.send(&device, json!({"temperature": 25})).await;
    let over = "no longer so since 14:08: temperature is 25, resolved at 14:13 if it stays so";
    eventually!(watched.message("HOME-1", "too-hot").await == over);
    watched.pass(240);
    watched.send(&device, json!({"temperature": 31})).await;
    let on = "temperature is 31, above 30 since 14:02";
    eventually!(watched.message("HOME-1", "too-hot").await == on);
    watched.pass(600);
    watched.send(&device, json!({"temperature": 29})).await;
    eventually!(
        watched
            .message("HOME-1", "too-hot")
            .await
            .starts_with("no longer so since 14:22")
    );
    watched.pass(300);
    let told = events.next().await.data;
    assert_eq!(
        (&told["state"], &told["at"], &told["reason"], &told["message"]),
        (
            &json!("resolved"),
            &json!("2026-01-15T14:27:00Z"),
            &json!("cleared"),
            &json!("over since 14:27: temperature is 29")
        )
    );
    assert_eq!(watched.state("HOME-1", "too-hot").await, "resolved");
    let fired = device.timeline("alert_firing").await;
    assert_eq!(fired.len(), 1, "{fired:?}");
    assert_eq!(fired[0]["at"], "2026-01-15T14:07:00Z");
    assert_eq!(
        fired[0]["data"],
        json!({
            "alert": "too-hot", "title": "Too hot", "severity": "warning", "condition": "temperature > 30 for 5m",
            "since": "2026-01-15T14:02:00Z", "values": {"temperature": 32},
            "message": "temperature is 32, above 30 since 14:02"
        })
    );
    let over = device.timeline("alert_resolved").await;
    assert_eq!(over.len(), 1, "{over:?}");
    assert_eq!(over[0]["data"]["reason"], "cleared");
    // Shown as resolved for a day, then all is well.
    watched.pass(86_400);
    eventually!(watched.state("HOME-1", "too-hot").await == "ok");
    eventually!({
        let metrics = watched.api().root(Method::GET, "/metrics").await.text;
        metrics.contains("setpoint_alerts_firing 0\n") && metrics.contains("setpoint_alerts_pending 0\n")
    });
    let metrics = watched.api().root(Method::GET, "/metrics").await.text;
    for line in [
        "setpoint_alerts_transitions_total{state=\"firing\",severity=\"warning\"} 1",
        "setpoint_alerts_transitions_total{state=\"resolved\",severity=\"warning\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn what_comes_late_or_in_between_is_judged_by_its_own_time() {
    let watched = Watched::start().await;
    let device = watched.server.device("HOME-1").await;
    watched
        .rule("hot", json!({"condition": "temperature > 30 for 5m"}))
        .await;
    watched
        .rule(
            "spike",
            json!({"condition": "temperature > 50", "severity": "info"}),
        )
        .await;
    watched.send(&device, json!({"temperature": 20})).await;
    watched.pass(1_200);
    // A device that was away brings what it measured; it was too hot from 14:05 to 14:11, with a short spike.
    let at = |minute: i64| watched.at((minute - 20) * 60);
    let batch: Vec<Value> = [(4, 20), (5, 31), (9, 60), (10, 35), (11, 20)]
        .into_iter()
        .map(|(minute, value)| json!({"temperature": value, "at": at(minute)}))
        .collect();
    watched.send(&device, json!(batch)).await;
    for rule in ["hot", "spike"] {
        eventually!(watched.state("HOME-1", rule).await == "resolved", "{rule}");
    }
    let fired = device.timeline("alert_firing").await;
    let mut told: Vec<_> = fired
        .iter()
        .map(|entry| {
            (
                entry["data"]["alert"].as_str().unwrap(),
                entry["at"].as_str().unwrap(),
            )
        })
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [("hot", "2026-01-15T14:10:00Z"), ("spike", "2026-01-15T14:09:00Z")]
    );
    let over = device.timeline("alert_resolved").await;
    let mut told: Vec<_> = over
        .iter()
        .map(|entry| {
            (
                entry["data"]["alert"].as_str().unwrap(),
                entry["at"].as_str().unwrap(),
            )
        })
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [("hot", "2026-01-15T14:16:00Z"), ("spike", "2026-01-15T14:10:00Z")]
    );
    // Older than what was judged: no news.
    watched
        .send(&device, json!({"temperature": 99, "at": at(8)}))
        .await;
    watched
        .send(&device, json!({"temperature": 55, "at": at(20)}))
        .await;
    eventually!(watched.state("HOME-1", "spike").await == "firing");
    let fired = device.timeline("alert_firing").await;
    assert_eq!(fired.len(), 3, "{fired:?}");
    assert_eq!(fired[0]["at"], "2026-01-15T14:20:00Z");
}

#[tokio::test]
async fn several_values_booleans_texts_and_hysteresis() {
    let watched = Watched::start().await;
    let device = watched.server.device("HOME-1").await;
    watched
        .rule(
            "damp",
            json!({"condition": "temperature < 12 and humidity >= 80 and window == false"}),
        )
        .await;
    watched
        .rule("mode", json!({"condition": "mode != \"auto\""}))
        .await;
    watched
        .rule("band", json!({"condition": "temperature > 30 clear 28"}))
        .await;
    let mut session = device.mqtt(Version::V5).connect().await;
    let topic = device.topic("telemetry");
    let send = |payload: Value| (topic.clone(), payload.to_string());
    let (to, payload) = send(json!({"temperature": 10, "humidity": 85, "mode": "auto"}));
    session.publish(&to, payload).await;
    let (to, payload) = send(json!({"window": true}));
    session.publish(&to, payload).await;
    watched.pass(60);
    let (to, payload) = send(json!({"window": false, "mode": "heat"}));
    session.publish(&to, payload).await;
    eventually!(watched.state("HOME-1", "damp").await == "firing");
    assert_eq!(
        watched.message("HOME-1", "damp").await,
        "temperature is 10, below 12, and humidity is 85, at least 80, and window is false since 14:01"
    );
    eventually!(watched.state("HOME-1", "mode").await == "firing");
    assert_eq!(
        watched.message("HOME-1", "mode").await,
        "mode is \"heat\", not \"auto\" since 14:01"
    );
    watched.pass(60);
    let (to, payload) = send(json!({"temperature": 31, "mode": "auto"}));
    session.publish(&to, payload).await;
    eventually!(watched.state("HOME-1", "band").await == "firing");
    eventually!(watched.state("HOME-1", "damp").await == "resolved");
    eventually!(watched.state("HOME-1", "mode").await == "resolved");
    for value in [29.0, 30.5, 28.1] {
        watched.pass(1);
        let (to, payload) = send(json!({"temperature": value}));
        session.publish(&to, payload).await;
    }
    watched.pass(1);
    let (to, payload) = send(json!({"temperature": 28}));
    session.publish(&to, payload).await;
    eventually!(watched.state("HOME-1", "band").await == "resolved");
    let fired = device.timeline("alert_firing").await;
    let bands = fired.iter().filter(|entry| entry["data"]["alert"] == "band");
    assert_eq!(bands.count(), 1, "{fired:?}");
}

#[tokio::test]
async fn a_rule_that_comes_later_judges_what_is_there() {
    let watched = Watched::start().await;
    let device = watched.server.device("HOME-1").await;
    let cool = watched.server.device("HOME-2").await;
    for value in [20, 31, 33] {
        watched.send(&device, json!({"temperature": value})).await;
        watched.send(&cool, json!({"temperature": value - 10})).await;
        watched.pass(240);
    }
    watched
        .rule("hot", json!({"condition": "temperature > 30 for 5m"}))
        .await;
    eventually!(watched.state("HOME-1", "hot").await == "firing");
    // It was so since 14:04, and nothing fires before its rule is there.
    let fired = device.timeline("alert_firing").await;
    assert_eq!(fired[0]["at"], "2026-01-15T14:12:00Z");
    assert_eq!(
        fired[0]["data"]["message"],
        "temperature is 33, above 30 since 14:04"
    );
    let all = watched.api().get("/alerts/hot/devices").await.expect(200);
    let states: Vec<_> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["serial"].as_str().unwrap(), item["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states, [("HOME-1", "firing"), ("HOME-2", "ok")]);
    assert_eq!(all["items"][1]["message"], "all is well");
    assert_eq!(all["items"][1]["since"], Value::Null);
}
