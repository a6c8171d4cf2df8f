//! Who may subscribe and publish to what on MQTT.

use serde_json::json;
use setpoint_tests::{
    End, Harness, Version, eventually,
    harness::{mqtt::VERSIONS, operator_login},
    mosquitto,
};

/// A command's id, of no command.
const ID: &str = "00000000-0000-0000-0000-000000000001";

#[tokio::test]
async fn a_device_subscribes_to_itself_alone() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    server.device("HOME-2").await;
    for (version, refused) in [(Version::V3, 0x80), (Version::V5, 0x87)] {
        let mut session = device.mqtt(version).connect().await;
        let filters = [
            ("devices/HOME-1/#", 1),
            ("devices/HOME-2/settings", refused),
            ("devices/HOME-1/settings", 1),
            ("devices/+/settings", refused),
            ("devices/#", refused),
            ("#", refused),
            ("+/HOME-1/settings", refused),
            ("devices/HOME-12/#", refused),
            ("other/HOME-1", refused),
        ];
        let names: Vec<&str> = filters.iter().map(|(filter, _)| *filter).collect();
        let codes: Vec<u8> = filters.iter().map(|(_, code)| *code).collect();
        assert_eq!(
            session.subscribe(&names).await,
            codes,
            "{version:?}: one code each, in their order"
        );
        session.next("devices/HOME-1/settings").await;
        assert!(session.is_connected(), "a refused subscription ends no session");
    }
    let entries = eventually!({
        let entries = device.timeline("access_denied").await;
        (!entries.is_empty()).then_some(entries)
    });
    assert!(
        entries
            .iter()
            .any(|entry| entry.to_string().contains("devices/HOME-2/settings")),
        "{entries:?}"
    );
}

#[tokio::test]
async fn mosquitto_sub_is_told_as_well() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    server.device("HOME-2").await;
    for version in VERSIONS {
        let sub = mosquitto::sub(
            server.mqtt_port(),
            version,
            &device.login(),
            "devices/HOME-2/#",
            &[],
        );
        let (code, output) = sub.ended().await;
        assert!(
            output.contains("All subscription requests were denied"),
            "{code:?} {output}"
        );
    }
}

#[tokio::test]
async fn nothing_of_another_device_is_ever_heard() {
    let server = Harness::start().await;
    let (device, other) = (server.device("HOME-1").await, server.device("HOME-2").await);
    let mut session = device.listening(Version::V5).await;
    session
        .subscribe(&["devices/+/settings", "devices/#", "devices/HOME-2/#"])
        .await;
    other.change(json!({"label": "a secret"})).await;
    let number = device.change(json!({"label": "mine"})).await;
    loop {
        let message = session.next_of_any().await;
        assert!(message.topic.starts_with("devices/HOME-1/"), "{message:?}");
        if message.topic == "devices/HOME-1/settings" && message.json()["version"] == number {
            break;
        }
    }
}

#[tokio::test]
async fn a_publish_outside_is_refused_by_reason_code_in_version_5() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    server.device("HOME-2").await;
    let mut session = device.listening(Version::V5).await;
    for topic in [
        "devices/HOME-2/telemetry",
        "devices/HOME-2/settings/ack",
        "devices/HOME-1/settings",
        "devices/HOME-1/settings/set",
        "devices/HOME-1/presence",
        "devices/HOME-1/commands",
        "devices/HOME-1/firmware",
        "devices/HOME-1/other",
        "devices/HOME-1",
        "other",
    ] {
        assert_eq!(session.publish(topic, "{}").await, 0x87, "{topic}");
    }
    assert_eq!(
        session.publish("devices/HOME-1/telemetry", r#"{"t":1}"#).await,
        0,
        "the session goes on"
    );
}

#[tokio::test]
async fn in_version_3_it_is_dropped_and_the_third_ends_the_session() {
    let server = Harness::start().await;
    let (device, other) = (server.device("HOME-1").await, server.device("HOME-2").await);
    let mut session = device.listening(Version::V3).await;
    for _ in 0..2 {
        assert_eq!(session.publish("devices/HOME-2/telemetry", r#"{"t":1}"#).await, 0);
    }
    assert_eq!(
        session.publish("devices/HOME-1/telemetry", r#"{"t":1}"#).await,
        0,
        "two are borne"
    );
    session.send("devices/HOME-2/telemetry", 1, r#"{"t":1}"#).await;
    assert!(matches!(session.ended().await, End::Closed(_)));
    eventually!(device.get().await["disconnect_reason"] == "not_authorized");
    assert!(other.telemetry("metric=t").await.is_empty(), "nothing was stored");
    eventually!(device.timeline("access_denied").await.len() == 3);
    device.mqtt_v3().await;
}

#[tokio::test]
async fn nobody_but_the_server_writes_what_the_server_writes() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.listening(Version::V5).await;
    let mut operator = server.watcher().await;
    for topic in ["settings", "presence", "commands", "firmware"] {
        let topic = device.topic(topic);
        assert_eq!(
            operator.publish(&topic, r#"{"version":99}"#).await,
            0x87,
            "{topic}"
        );
    }
    let number = device.change(json!({"label": "real"})).await;
    let message = session.next("devices/HOME-1/settings").await;
    assert_eq!(
        message.json()["version"],
        number,
        "the first word after it is the server's"
    );
    let mut late = device.mqtt_v3().await;
    late.subscribe(&["devices/HOME-1/#"]).await;
    assert_eq!(
        late.next("devices/HOME-1/settings").await.json()["version"],
        number
    );
}

#[tokio::test]
async fn operators_hear_the_fleet_and_speak_for_devices() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let operator = server.api().scoped(&["mqtt", "telemetry:write"]).await;
    let login = operator_login(operator.token(), "debug");
    for (version, value) in VERSIONS.into_iter().zip([1, 2]) {
        let mut sub = mosquitto::sub(server.mqtt_port(), version, &login, "devices/#", &[]);
        while sub.next().await.topic != "devices/HOME-1/settings" {}
        let payload = json!({"t": value}).to_string();
        let publisher = operator_login(operator.token(), "publisher");
        let topic = "devices/HOME-1/telemetry";
        let (code, output) =
            mosquitto::publish(server.mqtt_port(), version, &publisher, topic, &payload, &[]).await;
        assert_eq!(code, Some(0), "{output}");
        loop {
            let message = sub.next().await;
            if message.topic == topic {
                assert_eq!(message.json(), json!({"t": value}));
                break;
            }
        }
        eventually!(device.telemetry("metric=t").await.len() == usize::try_from(value).unwrap());
        sub.stop().await;
    }
    let mut operator = server
        .operator(Version::V5, operator.token(), "ops")
        .connect()
        .await;
    for (filter, code) in [
        ("devices/#", 1),
        ("devices/HOME-1/#", 1),
        ("devices/+/presence", 1),
        ("#", 0x87),
        ("$SYS/#", 0x87),
    ] {
        assert_eq!(operator.subscribe(&[filter]).await, [code], "{filter}");
    }
    for topic in [
        "settings/ack",
        "telemetry",
        "firmware/status",
        &format!("commands/{ID}/result"),
    ] {
        assert_ne!(
            operator.publish(&device.topic(topic), "{}").await,
            0x87,
            "{topic}"
        );
    }
}

#[tokio::test]
async fn an_operator_needs_a_token_with_the_scope() {
    let server = Harness::start().await;
    let viewer = server.api().scoped(&["devices:read"]).await;
    for (version, code) in [(Version::V3, 5), (Version::V5, 0x87)] {
        assert_eq!(
            server.operator(version, viewer.token(), "ops").refused().await,
            code
        );
        assert_eq!(server.operator(version, "spt_wrong", "ops").refused().await, code);
        let device = server.device(&format!("HOME-{code}")).await;
        assert_eq!(
            server.operator(version, &device.token, "ops").refused().await,
            code
        );
    }
}
