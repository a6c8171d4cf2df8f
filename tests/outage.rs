//! Postgres is away: what waits, what is refused, and how all of it recovers by itself.

use serde_json::json;
use setpoint_tests::{Harness, Version, eventually, harness::mqtt::VERSIONS};

async fn server() -> Harness {
    Harness::setup().gated().start().await
}

#[tokio::test]
async fn devices_stay_and_telemetry_waits_until_it_is_back() {
    let server = server().await;
    let device = server.device("HOME-1").await;
    let mut three = device.listening(Version::V3).await;
    let mut five = device.mqtt(Version::V5).client_id("HOME-1:5").connect().await;
    assert_eq!(three.publish("devices/HOME-1/telemetry", r#"{"t":0}"#).await, 0);

    server.gate().close();
    for number in 1..=10 {
        three
            .send("devices/HOME-1/telemetry", 1, json!({"t": number}).to_string())
            .await;
        five.send("devices/HOME-1/telemetry", 1, json!({"u": number}).to_string())
            .await;
    }
    // REST has tried and given up, and still nothing was acknowledged.
    server.api().get("/devices").await.problem(503, "unavailable");
    assert_eq!(three.acknowledged_so_far() + five.acknowledged_so_far(), 0);
    assert!(three.is_connected() && five.is_connected());

    server.back().await;
    for _ in 0..10 {
        assert!(three.acknowledged().await.is_some());
        assert!(five.acknowledged().await.is_some());
    }
    assert_eq!(device.telemetry("metric=t").await.len(), 11);
    assert_eq!(device.telemetry("metric=u").await.len(), 10);
    let number = device.change(json!({"label": "back"})).await;
    assert_eq!(
        three.next("devices/HOME-1/settings").await.json()["version"],
        number,
        "without a restart"
    );
}

#[tokio::test]
async fn rest_says_try_again_later() {
    let server = server().await;
    server.device("HOME-1").await;
    server.gate().close();
    let api = server.api();
    for call in [
        api.get("/devices"),
        api.get("/devices/HOME-1/settings"),
        api.patch("/devices/HOME-1/settings").json(&json!({"label": "x"})),
        api.post("/devices").json(&json!({"serial": "B"})),
        api.post("/devices/HOME-1/telemetry").json(&json!({"t": 1})),
    ] {
        let answer = call.await;
        answer.problem(503, "unavailable");
        let after: u32 = answer
            .header("retry-after")
            .parse()
            .expect("Retry-After in seconds");
        assert!(after >= 1);
        assert!(
            !answer.text.to_lowercase().contains("postgres"),
            "causes go to the log: {}",
            answer.text
        );
    }
    server.gate().open();
    eventually!(api.get("/devices/HOME-1").await.status == 200);
}

#[tokio::test]
async fn readiness_tells_and_liveness_does_not_mind() {
    let server = server().await;
    let health = |path: &'static str| server.api().anonymous().root(reqwest::Method::GET, path);
    assert_eq!(health("/readyz").await.status, 200);
    server.gate().close();
    eventually!(health("/readyz").await.status == 503);
    assert_eq!(health("/healthz").await.status, 200);
    server.gate().open();
    eventually!(health("/readyz").await.status == 200);
}

#[tokio::test]
async fn a_device_that_comes_meanwhile_is_told_to_come_again() {
    let server = server().await;
    let (known, made, unknown) = (
        server.device("KNOWN").await,
        server.device("MADE").await,
        server.device("UNKNOWN").await,
    );
    // Its token was looked up a moment ago, so that a storm of reconnects asks nothing.
    known.mqtt(Version::V3).connect().await.disconnect().await;
    // Its token goes on beside a new one, and both are to be looked up.
    let rotation = server.api().post("/devices/UNKNOWN/credential");
    rotation.body(r#"{"grace":"1h"}"#.to_owned()).await.expect(201);
    server.gate().close();
    for (version, code) in [(Version::V3, 3), (Version::V5, 0x88)] {
        assert_eq!(unknown.mqtt(version).refused().await, code, "{version:?}");
        known.mqtt(version).connect().await;
        // It never connected, but its token was made here.
        made.mqtt(version).connect().await;
    }
    server.gate().open();
    eventually!(unknown.mqtt(Version::V3).attempt().await.is_ok());
}

#[tokio::test]
async fn an_acknowledgement_is_not_lost_meanwhile() {
    let server = server().await;
    let device = server.device("HOME-1").await;
    for (version, interval) in VERSIONS.into_iter().zip([20, 30]) {
        let mut session = device.listening(version).await;
        let number = device.change(json!({"reportInterval": interval})).await;
        let document = session.next("devices/HOME-1/settings").await.json();
        server.gate().close();
        let ack = json!({"version": number, "settings": document["settings"]});
        session
            .send("devices/HOME-1/settings/ack", 1, ack.to_string())
            .await;
        server.api().get("/devices").await.problem(503, "unavailable");
        server.back().await;
        assert!(
            session.acknowledged().await.is_some(),
            "the device's word is taken in the end"
        );
        eventually!(device.key_state("reportInterval").await == "synced");
        session.disconnect().await;
    }
}

/// A PUBLISH of QoS 1 in MQTT 3.1.1, shorter than 128 bytes.
fn publish(topic: &str, packet: u16, payload: &str) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    body.extend(packet.to_be_bytes());
    body.extend(payload.as_bytes());
    let mut bytes = vec![0x32, u8::try_from(body.len()).unwrap()];
    bytes.extend(body);
    bytes
}

/// Samples that are read from the network and not committed.
async fn held_back(server: &Harness) -> f64 {
    server.metric("setpoint_telemetry_queue_samples").await.unwrap()
}

#[tokio::test]
async fn a_slow_commit_closes_the_windows_and_tcp_holds_the_devices_back() {
    const MESSAGES: u16 = 3_000;
    let server = Harness::setup()
        .with("mqtt.limits.receive_maximum", "50")
        .with("telemetry.max_batch", "10")
        .with("telemetry.max_queue", "120")
        .start()
        .await;
    let devices = [
        server.device("HOME-1").await,
        server.device("HOME-2").await,
        server.device("HOME-3").await,
    ];
    // Each metric has been there before, so that all but the commit itself goes on.
    for device in &devices {
        let mut session = device.mqtt_v3().await;
        assert_eq!(
            session.publish(&device.topic("telemetry"), r#"{"t":-1}"#).await,
            0
        );
        session.disconnect().await;
    }
    let held = server.hold("LOCK TABLE telemetry IN ACCESS EXCLUSIVE MODE").await;
    // Clients that mind no window: they write whatever TCP takes.
    let mut sockets = Vec::new();
    for (device, expected) in devices.iter().zip([50.0, 100.0, 120.0]) {
        let mut socket = server.socket().await;
        socket.sign_in(device, 0).await;
        let topic = device.topic("telemetry");
        let bytes: Vec<u8> = (1..=MESSAGES)
            .flat_map(|number| publish(&topic, number, &json!({"t": number}).to_string()))
            .collect();
        socket.send_bytes(&bytes).await;
        eventually!(
            held_back(&server).await >= expected,
            "a session's window, and the queue of all"
        );
        sockets.push(socket);
    }
    // Whatever else there is to do is done meanwhile, by the same sessions' server.
    let mut other = devices[0].mqtt(Version::V5).client_id("HOME-1:5").connect().await;
    assert_eq!(other.subscribe(&["devices/HOME-1/settings"]).await, [1]);
    other.next("devices/HOME-1/settings").await;
    devices[0].change(json!({"label": "meanwhile"})).await;
    assert_eq!(
        other.next("devices/HOME-1/settings").await.json()["settings"]["label"],
        "meanwhile"
    );
    assert!(held_back(&server).await <= 120.0, "no more than the queue takes");

    held.release().await;
    for (device, mut socket) in devices.iter().zip(sockets) {
        for number in 1..=MESSAGES {
            let [high, low] = number.to_be_bytes();
            assert_eq!(socket.read::<4>().await, [0x40, 2, high, low], "in their order");
        }
        let mut stored = 0;
        let mut path = device.path("/telemetry?metric=t&limit=1000");
        loop {
            let page = server.api().get(&path).await.expect(200);
            stored += page["items"].as_array().unwrap().len();
            match page["next"].as_str() {
                Some(next) => path = device.path(&format!("/telemetry?metric=t&limit=1000&cursor={next}")),
                None => break,
            }
        }
        assert_eq!(stored, usize::from(MESSAGES) + 1);
    }
}

#[tokio::test]
async fn what_devices_say_of_commands_and_firmware_waits_as_well() {
    let server = server().await;
    let device = server.device("HOME-1").await;
    let result = device.topic("commands/00000000-0000-0000-0000-000000000007/result");
    let status = device.topic("firmware/status");
    for (version, times) in VERSIONS.into_iter().zip(1..) {
        let mut session = device.mqtt(version).connect().await;
        server.gate().close();
        session.send(&result, 1, r#"{"code":200,"body":{}}"#).await;
        session
            .send(&status, 1, r#"{"version":"1.4.0","state":"downloading"}"#)
            .await;
        server.api().get("/devices").await.problem(503, "unavailable");
        assert_eq!(session.acknowledged_so_far(), 0, "{version:?}");
        server.back().await;
        for _ in 0..2 {
            assert!(session.acknowledged().await.is_some(), "{version:?}");
        }
        assert_eq!(
            device.timeline("command_result").await.len(),
            times,
            "{version:?}"
        );
        assert_eq!(
            device.timeline("firmware_status").await.len(),
            times,
            "{version:?}"
        );
        session.disconnect().await;
    }
}
