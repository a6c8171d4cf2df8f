//! Webhooks: what happens when their receivers refuse, are slow or away, or when the server ends in between.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use setpoint_model::{Clock as _, clock::ManualClock};
use setpoint_store::testing::database;
use setpoint_tests::{Api, Child, Harness, Options, Version, eventually, harness::receiver::Receiver};

use crate::{
    PROGRAM,
    webhooks::{hook, setup},
};

fn clock() -> ManualClock {
    ManualClock::new("2026-01-15T12:00:00Z".parse().unwrap())
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap_or_default().parse().expect("a time")
}

/// The newest delivery, once it stands so and has had so many attempts.
async fn newest(api: &Api, state: &str, attempts: i64) -> Value {
    eventually!({
        let list = api.get("/webhooks/ops/deliveries?limit=1").await.expect(200);
        let newest = list["items"][0].clone();
        (newest["state"] == state && newest["attempts"] == attempts).then_some(newest)
    })
}

async fn dead(api: &Api) -> Vec<Value> {
    let list = api.get("/webhooks/ops/deliveries?state=dead").await.expect(200);
    list["items"].as_array().unwrap().clone()
}

async fn metric(server: &Harness, series: &str) -> f64 {
    let text = server.api().root(Method::GET, "/metrics").await.text;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{series} ")));
    line.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
}

#[tokio::test]
async fn what_is_refused_is_sent_again_later_as_the_same_message() {
    let clock = clock();
    let server = setup().at(&clock).start().await;
    let device = server.device("HOME-1").await;
    let mut receiver = Receiver::start().await;
    let secret = hook(&server, "ops", &receiver.url(), json!({"events": ["settings"]})).await;
    receiver.answer(&[500, 404]);
    device.change(json!({"privacyMode": true})).await;
    let first = receiver.next().await;
    let failed = newest(server.api(), "pending", 1).await;
    assert_eq!(
        (&failed["last_status"], &failed["last_error"]),
        (&json!(500), &json!("answered 500"))
    );
    let pause = time(&failed["next_attempt_at"]) - clock.now();
    assert!(
        pause >= TimeDelta::milliseconds(2_500) && pause <= TimeDelta::seconds(5),
        "{pause}"
    );
    // What happens next to the same device waits its turn.
    device.change(json!({"privacyMode": false})).await;
    assert!(receiver.next_so_far().is_none());
    clock.advance(TimeDelta::seconds(5));
    let second = receiver.next().await;
    let failed = eventually!({
        let path = format!("/webhooks/ops/deliveries/{}", first.header("webhook-id"));
        let delivery = server.api().get(&path).await.expect(200);
        (delivery["attempts"] == 2).then_some(delivery)
    });
    let pause = time(&failed["next_attempt_at"]) - clock.now();
    assert!(
        pause >= TimeDelta::seconds(5) && pause <= TimeDelta::seconds(10),
        "{pause}"
    );
    clock.advance(TimeDelta::seconds(10));
    let third = receiver.next().await;
    for again in [&second, &third] {
        assert_eq!(again.header("webhook-id"), first.header("webhook-id"));
        assert_eq!(again.raw, first.raw);
        assert!(again.is_signed_by(&secret));
    }
    assert_ne!(
        second.header("webhook-timestamp"),
        first.header("webhook-timestamp")
    );
    let next = receiver.next().await;
    assert_eq!(next.body["data"]["version"], 3, "now the next one");
    newest(server.api(), "delivered", 1).await;
    eventually!(metric(&server, "setpoint_webhooks_delivered_total").await >= 2.0);
    eventually!(metric(&server, "setpoint_webhooks_failed_total").await >= 2.0);
}

#[tokio::test]
async fn what_the_receiver_asks_for_is_waited_for() {
    let clock = clock();
    // That the device doesn't answer is an event as well, which is not wanted here.
    let setup = setup().with("settings.expected_within", "7days");
    let server = setup.at(&clock).start().await;
    let device = server.device("HOME-1").await;
    let receiver = Receiver::start().await;
    hook(&server, "ops", &receiver.url(), json!({"events": ["settings"]})).await;
    receiver.answer_with(503, "retry-after", "600");
    device.change(json!({"privacyMode": true})).await;
    let failed = newest(server.api(), "pending", 1).await;
    assert_eq!(
        time(&failed["next_attempt_at"]) - clock.now(),
        TimeDelta::seconds(600)
    );
    receiver.answer_with(429, "retry-after", "Fri, 16 Jan 2026 12:00:00 GMT");
    clock.advance(TimeDelta::seconds(600));
    let failed = newest(server.api(), "pending", 2).await;
    let longest = time(&failed["next_attempt_at"]) - clock.now();
    assert_eq!(longest, TimeDelta::hours(1), "never more than the longest pause");
}

#[tokio::test]
async fn what_is_given_up_is_listed_and_sent_again_when_asked() {
    let server = setup()
        .with("webhooks.max_attempts", "2")
        .with("webhooks.retry_first", "1ms")
        .start()
        .await;
    let device = server.device("HOME-1").await;
    let mut receiver = Receiver::start().await;
    hook(&server, "ops", &receiver.url(), json!({"events": ["settings"]})).await;
    receiver.answer(&[500, 503, 400, 400, 400, 400]);
    for privacy in [true, false, true] {
        device.change(json!({"privacyMode": privacy})).await;
    }
    let api = server.api();
    eventually!(dead(api).await.len() == 3);
    let [third, second, first] = <[Value; 3]>::try_from(dead(api).await).unwrap();
    assert_eq!(
        (&first["attempts"], &first["last_error"]),
        (&json!(2), &json!("answered 503"))
    );
    assert_eq!(
        (&first["data"]["version"], &third["data"]["version"]),
        (&json!(2), &json!(4))
    );
    assert!(
        first["ended_at"].is_string() && first["next_attempt_at"].is_null(),
        "{first}"
    );
    assert_eq!(api.get("/webhooks/ops").await.expect(200)["dead"], 3);
    eventually!(metric(&server, "setpoint_webhooks_dead_total").await >= 3.0);
    for _ in 0..6 {
        receiver.next().await;
    }

    let one = format!(
        "/webhooks/ops/deliveries/{}/replay",
        second["id"].as_str().unwrap()
    );
    assert_eq!(api.post(&one).await.expect(202)["state"], "pending");
    assert_eq!(receiver.next().await.body["id"], second["id"]);
    eventually!(dead(api).await.len() == 2);
    assert_eq!(
        api.post("/webhooks/ops/replay").await.expect(202),
        json!({"replayed": 2})
    );
    assert_eq!(receiver.next().await.body["id"], first["id"]);
    assert_eq!(receiver.next().await.body["id"], third["id"]);
    eventually!(dead(api).await.is_empty());

    // What was delivered, by its time.
    eventually!(api.get("/webhooks/ops").await.expect(200)["pending"] == 0);
    let some = json!({"from": second["at"], "to": third["at"]});
    assert_eq!(
        api.post("/webhooks/ops/replay").json(&some).await.expect(202),
        json!({"replayed": 1})
    );
    assert_eq!(receiver.next().await.body["id"], second["id"]);
    let none = json!({"state": "pending"});
    let errors = api.post("/webhooks/ops/replay").json(&none).await.invalid();
    assert_eq!(
        errors,
        json!({"state": "what is pending is sent anyway: dead or delivered"})
    );
    let backwards = json!({"from": third["at"], "to": second["at"]});
    let errors = api.post("/webhooks/ops/replay").json(&backwards).await.invalid();
    assert_eq!(errors, json!({"from": "must not be after `to`"}));
    let errors = api.get("/webhooks/ops/deliveries?state=lost").await.invalid();
    assert_eq!(
        errors,
        json!({"state": "must be one of pending, delivered, dead"})
    );
    eventually!(api.get("/webhooks/ops").await.expect(200)["pending"] == 0);
    receiver.hold();
    assert_eq!(api.post(&one).await.status, 202);
    receiver.next().await;
    assert_eq!(
        api.post(&one).await.problem(409, "wrong_state")["state"],
        "pending"
    );
    receiver.release();
}

#[tokio::test]
async fn a_receiver_that_never_answers_delays_no_other() {
    let server = setup()
        .with("webhooks.max_requests", "1")
        .with("webhooks.max_requests_per_hook", "1")
        .with("webhooks.timeout", "5m")
        .start()
        .await;
    let (mut slow, mut quick) = (Receiver::start().await, Receiver::start().await);
    slow.hold();
    hook(&server, "slow", &slow.url(), json!({"events": ["settings"]})).await;
    hook(&server, "quick", &quick.url(), json!({"events": ["settings"]})).await;
    for number in 0..5 {
        let device = server.device(&format!("HOME-{number}")).await;
        device.change(json!({"privacyMode": true})).await;
    }
    slow.next().await;
    for _ in 0..10 {
        quick.next().await;
    }
    assert!(slow.next_so_far().is_none(), "it has one request at once");
    slow.release();
    for _ in 0..9 {
        slow.next().await;
    }
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_told_nothing_more() {
    let server = setup().start().await;
    let device = server.device("HOME-1").await;
    let mut receiver = Receiver::start().await;
    hook(&server, "ops", &receiver.url(), json!({"events": ["settings"]})).await;
    receiver.answer(&[410]);
    device.change(json!({"privacyMode": true})).await;
    receiver.next().await;
    let api = server.api();
    let hook = eventually!({
        let hook = api.get("/webhooks/ops").await.expect(200);
        (hook["enabled"] == false && hook["dead"] == 1).then_some(hook)
    });
    assert_eq!(hook["disabled_reason"], "the receiver answered 410 Gone");
    device.change(json!({"privacyMode": false})).await;
    let enabled = api
        .patch("/webhooks/ops")
        .json(&json!({"enabled": true}))
        .await
        .expect(200);
    assert_eq!(enabled["disabled_reason"], Value::Null);
    device.change(json!({"privacyMode": true})).await;
    let told = receiver.next().await;
    assert_eq!(
        told.body["data"]["version"], 4,
        "what happened meanwhile was for nobody"
    );
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_followed() {
    let server = Harness::setup()
        .with("webhooks.allow_http", "true")
        .with("settings.reconcile_every", "50ms")
        .start()
        .await;
    let mut receiver = Receiver::start().await;
    let url = format!("http://localhost:{}/hook", receiver.port());
    hook(&server, "ops", &url, json!({"events": ["presence"]})).await;
    server.api().post("/webhooks/ops/test").await.expect(202);
    let dead = newest(server.api(), "dead", 1).await;
    let error = dead["last_error"].as_str().unwrap();
    assert!(
        error.starts_with("the connection failed: ")
            && error.ends_with(" is a loopback address: webhooks.allow_private"),
        "{error}"
    );
    assert_eq!(dead["last_status"], Value::Null);
    assert!(receiver.next_so_far().is_none());
}

#[tokio::test]
async fn too_many_that_wait_are_given_up_and_counted() {
    let clock = clock();
    let server = setup().at(&clock).with("webhooks.max_waiting", "3").start().await;
    let receiver = Receiver::start().await;
    hook(&server, "ops", &receiver.url(), json!({"events": ["settings"]})).await;
    server
        .sql(
            "insert into webhook_deliveries (webhook_id, type, serial, at, data, next_at)
             select id, 'settings', 'A-' || n, '2026-01-15', '{}', '2026-01-16' from webhooks, generate_series(1, 5) n",
        )
        .await;
    let mut server = server;
    // The first round of a start looks after it, as does each minute.
    server.restart().await;
    eventually!(server.api().get("/webhooks/ops").await.expect(200)["dead"] == 2);
    let dead = dead(server.api()).await;
    assert_eq!(dead[1]["serial"], "A-1");
    assert_eq!(
        dead[1]["last_error"],
        "too many were waiting: webhooks.max_waiting"
    );
    eventually!(metric(&server, "setpoint_webhooks_overflowed_total").await >= 2.0);
}

fn options() -> Options {
    Options::new(PROGRAM)
        .env("SETPOINT_WEBHOOKS__ALLOW_PRIVATE", "true")
        .env("SETPOINT_WEBHOOKS__TIMEOUT", "1s")
        .env("SETPOINT_WEBHOOKS__RETRY_FIRST", "100ms")
        .env("SETPOINT_SETTINGS__RECONCILE_EVERY", "100ms")
}

async fn child_hook(child: &Child, url: &str) {
    let body = json!({"name": "ops", "url": url, "events": ["settings", "presence"]});
    child.api.post("/webhooks").json(&body).await.expect(201);
}

#[tokio::test]
async fn a_kill_loses_no_event() {
    let mut child = options().start().await;
    let mut receiver = Receiver::start().await;
    child_hook(&child, &receiver.url()).await;
    let device = child.device("HOME-1").await;
    assert_eq!(receiver.next().await.body["data"]["version"], 1);
    eventually!(child.api.get("/webhooks/ops").await.expect(200)["pending"] == 0);
    receiver.hold();
    let _session = device.mqtt(Version::V5).connect().await;
    let online = receiver.next().await;
    assert_eq!(online.body["data"]["online"], true);
    for privacy in [true, false, true] {
        device.change(json!({"privacyMode": privacy})).await;
    }
    // In the middle of a request, with more behind it.
    child.kill().await;
    receiver.release();
    child.start_again().await;
    let mut told = Vec::new();
    while told.len() < 5 {
        let event = receiver.next().await;
        if !told.iter().any(|(id, _)| *id == event.body["id"]) {
            told.push((event.body["id"].clone(), event.body["data"].clone()));
        }
    }
    assert_eq!(told[0].0, online.body["id"], "the same message again");
    let versions: Vec<&Value> = told.iter().map(|(_, data)| &data["version"]).collect();
    assert_eq!(
        versions,
        [&Value::Null, &json!(2), &json!(3), &json!(4), &Value::Null]
    );
    assert_eq!(told[4].1["online"], false);
    assert_eq!(told[4].1["reason"], "server_stopped");
}

#[tokio::test]
async fn two_servers_tell_each_event_once() {
    let database = database().await;
    let keys = tempfile::tempdir().unwrap();
    let options = options().env("SETPOINT_DATABASE__URL", &database.url()).env(
        "SETPOINT_SIGN_IN__KEY_FILE",
        &keys.path().join("key").to_string_lossy(),
    );
    // A request that is not answered in time is sent again.
    let options = options.env("SETPOINT_WEBHOOKS__TIMEOUT", "1m");
    let (mut one, other) = (options.start().await, options.start().await);
    let mut receiver = Receiver::start().await;
    child_hook(&one, &receiver.url()).await;
    let mut devices = Vec::new();
    for number in 0..10 {
        devices.push(one.device(&format!("HOME-{number}")).await);
    }
    for device in &devices {
        for privacy in [true, false] {
            device.change(json!({"privacyMode": privacy})).await;
        }
    }
    let mut told: std::collections::BTreeMap<String, Vec<i64>> = std::collections::BTreeMap::new();
    for _ in 0..30 {
        let event = receiver.next().await;
        let serial = event.body["serial"].as_str().unwrap().to_owned();
        let version = event.body["data"]["version"].as_i64().unwrap();
        told.entry(serial).or_default().push(version);
    }
    assert_eq!(told.len(), 10);
    assert!(
        told.values().all(|versions| versions == &[1, 2, 3]),
        "in order: {told:?}"
    );
    eventually!(other.api.get("/webhooks/ops").await.expect(200)["pending"] == 0);
    assert!(receiver.next_so_far().is_none(), "each once");
    one.kill().await;
    let device = setpoint_tests::Device {
        api: other.api.clone(),
        ..devices[0].clone()
    };
    device.change(json!({"privacyMode": true})).await;
    assert_eq!(receiver.next().await.body["data"]["version"], 4);
}
