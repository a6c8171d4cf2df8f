//! Device tokens: wrong, rotated, revoked.

use setpoint_tests::{
    End, Harness, Version,
    harness::mqtt::{Connect, VERSIONS},
};

/// CONNACK "not authorized": 5 in 3.1.1, 0x87 in 5.0.
fn not_authorized(version: Version) -> u8 {
    match version {
        Version::V3 => 5,
        Version::V5 => 0x87,
    }
}

#[tokio::test]
async fn wrong_credentials_are_not_authorized() {
    let server = Harness::start().await;
    let (device, other) = (server.device("HOME-1").await, server.device("HOME-2").await);
    for version in VERSIONS {
        let code = not_authorized(version);
        assert_eq!(device.mqtt(version).password("spd_wrong").refused().await, code);
        assert_eq!(device.mqtt(version).password("").refused().await, code);
        assert_eq!(
            device.mqtt(version).password(&other.token).refused().await,
            code,
            "another device's token"
        );
        assert_eq!(
            device
                .mqtt(version)
                .password(server.api().token())
                .refused()
                .await,
            code,
            "an API token"
        );
        let mut nobody = device.login();
        nobody.username = "NOBODY".to_owned();
        nobody.client_id = "NOBODY".to_owned();
        assert_eq!(
            Connect::new(server.mqtt_port(), version, nobody).refused().await,
            code
        );
        device.mqtt(version).connect().await.disconnect().await;
    }
}

#[tokio::test]
async fn the_client_id_is_the_serial_or_begins_with_it() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for (version, code) in [(Version::V3, 2), (Version::V5, 0x85)] {
        for id in ["HOME-2", "HOME-12", "mosq-1234", "home-1"] {
            assert_eq!(
                device.mqtt(version).client_id(id).refused().await,
                code,
                "{id} in {version:?}"
            );
        }
        let debug = device.mqtt(version).client_id("HOME-1:debug").connect().await;
        let mut plain = device.mqtt(version).connect().await;
        assert_eq!(
            plain.subscribe(&["devices/HOME-1/#"]).await,
            [1],
            "both sessions live side by side"
        );
        debug.disconnect().await;
        plain.disconnect().await;
    }
}

#[tokio::test]
async fn rotating_ends_the_session_and_the_old_token() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for version in VERSIONS {
        let current = server.api().post("/devices/HOME-1/credential").await.expect(201);
        let current = current["token"].as_str().unwrap().to_owned();
        let mut session = device.mqtt(version).password(&current).connect().await;
        let mut second = device
            .mqtt(version)
            .password(&current)
            .client_id("HOME-1:2")
            .connect()
            .await;

        let rotated = server.api().post("/devices/HOME-1/credential").await.expect(201);
        assert_eq!(rotated["username"], "HOME-1");
        let fresh = rotated["token"].as_str().unwrap();
        assert_ne!(fresh, current);
        for session in [&mut session, &mut second] {
            let end = session.ended().await;
            if version == Version::V5 {
                assert!(
                    matches!(end, End::Disconnected(0x87 | 0x98)),
                    "a reason is given: {end:?}"
                );
            }
        }
        assert_eq!(
            device.mqtt(version).password(&current).refused().await,
            not_authorized(version)
        );
        device
            .mqtt(version)
            .password(fresh)
            .connect()
            .await
            .disconnect()
            .await;
    }
    assert_eq!(device.timeline("credential_rotated").await.len(), 4);
}

#[tokio::test]
async fn revoking_ends_the_session_until_there_is_a_new_token() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.mqtt_v5().await;
    server
        .api()
        .delete("/devices/HOME-1/credential")
        .await
        .expect(204);
    session.ended().await;
    for version in VERSIONS {
        assert_eq!(device.mqtt(version).refused().await, not_authorized(version));
    }
    let made = server.api().post("/devices/HOME-1/credential").await.expect(201);
    let fresh = made["token"].as_str().unwrap();
    device.mqtt(Version::V3).password(fresh).connect().await;
    assert_eq!(device.timeline("credential_revoked").await.len(), 1);
}

#[tokio::test]
async fn refused_logins_show_in_the_timeline() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    device.mqtt(Version::V3).password("spd_wrong").refused().await;
    let entry = setpoint_tests::eventually!(device.timeline("login_refused").await.into_iter().next());
    let text = entry.to_string();
    assert!(text.contains("127.0.0.1:"), "where from: {entry}");
    assert!(!text.contains("spd_wrong"), "never the password: {entry}");
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let server = Harness::setup()
        .with("mqtt.limits.max_failed_logins_per_serial", "3")
        .with("mqtt.limits.failed_login_window", "10m")
        .with("mqtt.limits.failed_login_backoff", "10m")
        .with("mqtt.limits.limit_loopback", "true")
        .start()
        .await;
    let device = server.device("HOME-1").await;
    let mut codes = Vec::new();
    for _ in 0..6 {
        codes.push(device.mqtt(Version::V5).password("spd_wrong").refused().await);
    }
    assert_eq!(codes[..3], [0x87; 3]);
    assert_eq!(
        codes.last(),
        Some(&0x97),
        "refused unasked after a few: {codes:x?}"
    );
    let right = device.mqtt(Version::V5).refused().await;
    assert_eq!(right, 0x97, "else a guesser would learn that he guessed right");
}
