//! What `/metrics` and the log tell of the MQTT edge.

use device_sim::{
    Device as Simulated, DeviceOptions, Endpoint, Token, device::MqttVersion, endpoint::TlsFiles,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use setpoint_tests::{Harness, Options, Version, WAIT, eventually};
use tokio_util::task::TaskTracker;

use crate::PROGRAM;

async fn is(server: &Harness, series: &str, expected: f64) -> bool {
    server
        .metric(series)
        .await
        .is_some_and(|value| (value - expected).abs() < 0.1)
}

#[tokio::test]
async fn every_figure_of_the_edge_is_told() {
    let server = Harness::setup()
        .with("mqtt.limits.max_packet_size", "4 KiB")
        .start()
        .await;
    let device = server.device("HOME-1").await;
    let mut old = device.mqtt_v3().await;
    let new = device.mqtt(Version::V5).client_id("HOME-1:new").connect().await;
    let url = server.api().server().replace("http://", "ws://") + "/mqtt";
    let endpoint = Endpoint::new(url.parse().unwrap(), &TlsFiles::default()).unwrap();
    let other = server.device("HOME-2").await;
    let options = DeviceOptions::new(
        "HOME-2".parse().unwrap(),
        Some(Token::new(&other.token)),
        endpoint,
    );
    let options = DeviceOptions {
        version: MqttVersion::V5,
        telemetry: None,
        ..options
    };
    let browser = Simulated::start(options, &TaskTracker::new());
    browser.ready(WAIT).await.unwrap();

    // Sessions by transport and version, and those that began.
    for (transport, version) in [("tcp", "3.1.1"), ("tcp", "5.0"), ("websocket", "5.0")] {
        let labels = format!("{{transport=\"{transport}\",version=\"{version}\"}}");
        assert!(
            is(&server, &format!("setpoint_mqtt_sessions{labels}"), 1.0).await,
            "{labels}"
        );
        assert!(
            is(&server, &format!("setpoint_mqtt_connects_total{labels}"), 1.0).await,
            "{labels}"
        );
    }
    // Messages and bytes by direction and kind, and how long the PUBACK took.
    let sample = r#"{"t":1}"#;
    old.publish("devices/HOME-1/telemetry", sample).await;
    let inbound = "{direction=\"in\",channel=\"telemetry\"}";
    assert!(is(&server, &format!("setpoint_mqtt_messages_total{inbound}"), 1.0).await);
    assert!(
        is(
            &server,
            &format!("setpoint_mqtt_payload_bytes_total{inbound}"),
            7.0
        )
        .await
    );
    assert!(
        server
            .metric("setpoint_mqtt_acknowledgement_seconds_count")
            .await
            .unwrap()
            >= 1.0
    );
    old.subscribe(&["devices/HOME-1/settings"]).await;
    old.next("devices/HOME-1/settings").await;
    let outbound = "{direction=\"out\",channel=\"settings\"}";
    assert!(
        server
            .metric(&format!("setpoint_mqtt_messages_total{outbound}"))
            .await
            .unwrap()
            >= 1.0
    );
    assert!(
        server
            .metric(&format!("setpoint_mqtt_payload_bytes_total{outbound}"))
            .await
            .unwrap()
            > 20.0
    );
    // The router shards.
    device.change(json!({"privacyMode": true})).await;
    old.next("devices/HOME-1/settings").await;
    assert!(
        server
            .metric("setpoint_mqtt_shard_lag_seconds_count")
            .await
            .unwrap()
            >= 1.0
    );
    assert!(server.metric("setpoint_mqtt_shard_queue_depth").await.is_some());
    assert!(is(&server, "setpoint_mqtt_router_restarts_total", 0.0).await);
    // Refusals by reason, limits, ends by reason.
    device.mqtt(Version::V5).password("spd_wrong").refused().await;
    assert!(
        is(
            &server,
            "setpoint_mqtt_refusals_total{reason=\"not_authorized\"}",
            1.0
        )
        .await
    );
    // In 3.1.1, where a client can't know the limit.
    let large = device.mqtt(Version::V3).client_id("HOME-1:large").connect().await;
    large.send("devices/HOME-1/telemetry", 1, vec![b'x'; 5_000]).await;
    eventually!(
        is(
            &server,
            "setpoint_mqtt_limits_hit_total{limit=\"packet_size\"}",
            1.0
        )
        .await
    );
    eventually!(
        is(
            &server,
            "setpoint_mqtt_disconnects_total{reason=\"limit_exceeded\"}",
            1.0
        )
        .await
    );
    new.disconnect().await;
    eventually!(
        is(
            &server,
            "setpoint_mqtt_sessions{transport=\"tcp\",version=\"5.0\"}",
            0.0
        )
        .await
    );
    // What waits for a client that is away.
    let away = server.device("HOME-3").await;
    let mut session = away.mqtt(Version::V5).persistent().connect().await;
    session.subscribe(&["devices/HOME-3/settings"]).await;
    session.next("devices/HOME-3/settings").await;
    session.disconnect().await;
    away.change(json!({"privacyMode": true})).await;
    eventually!(is(&server, "setpoint_mqtt_messages_queued{client=\"away\"}", 1.0).await);
    assert!(
        is(
            &server,
            "setpoint_mqtt_messages_queued{client=\"connected\"}",
            0.0
        )
        .await
    );
    browser.stop().await;
}

#[tokio::test]
async fn log_lines_of_a_session_name_its_serial_and_id() {
    let options = Options::new(PROGRAM).env("SETPOINT_LOG__FORMAT", "json");
    let mut child = options.start().await;
    let device = child.device("HOME-1").await;
    device.mqtt_v5().await.disconnect().await;
    let connected = eventually!(device.timeline("connected").await.into_iter().next());
    eventually!(!device.timeline("disconnected").await.is_empty());
    assert!(child.stop(Signal::SIGTERM).await.success());
    let lines = child.output().await;
    let lines = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ended: Vec<Value> = lines
        .filter(|line| line["fields"]["message"] == "session ended")
        .collect();
    assert_eq!(ended.len(), 1, "{ended:?}");
    let span = &ended[0]["span"];
    assert_eq!(
        (&span["name"], &span["serial"]),
        (&json!("session"), &json!("HOME-1")),
        "{ended:?}"
    );
    assert_eq!(span["session"], connected["data"]["session"], "{ended:?}");
}
