//! TLS as the ordinary tools speak it, and certificates replaced while many sessions publish.

use std::{process::Stdio, time::Duration};

use device_sim::{Device as Simulated, DeviceOptions, Token, device::TelemetryPlan};
use serde_json::json;
use setpoint_tests::{Options, Version, WAIT, eventually, harness::operator_login, mosquitto, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};
use tokio_util::task::TaskTracker;

use crate::{
    PROGRAM,
    transports::{Certificates, connect},
};

/// Sessions that publish while certificates are replaced.
const SESSIONS: usize = 24;

/// The bytes that `hex` spells.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[tokio::test]
async fn mosquitto_sub_with_a_certificate_hears_its_settings() {
    let certificates = Certificates::new();
    certificates.make(&["device", "HOME-1"]);
    let server = certificates.setup().start().await;
    let device = server.device("HOME-1").await;
    let files = ["ca.pem", "device-HOME-1.pem", "device-HOME-1.key"];
    let [ca, cert, key] = files.map(|name| certificates.text(name));
    let more = ["--cafile", &ca, "--cert", &cert, "--key", &key];
    let mut login = device.login();
    login.username = String::new();
    for version in [Version::V3, Version::V5] {
        let topic = device.topic("settings");
        let mut sub = mosquitto::sub(server.tls_port(), version, &login, &topic, &more);
        let first = sub.next_on(&topic).await;
        let private = first["settings"]["privacyMode"] != true;
        let number = device.change(json!({"privacyMode": private})).await;
        assert_eq!(sub.next_on(&topic).await["version"], number);
        sub.stop().await;
    }
}

#[tokio::test]
async fn openssl_s_client_verifies_the_server_and_speaks_mqtt() {
    let certificates = Certificates::new();
    let server = certificates.setup().start().await;
    let device = server.device("HOME-1").await;
    for protocol in ["-tls1_2", "-tls1_3"] {
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", protocol])
            .args(["-verify_ip", "127.0.0.1", "-CAfile", &certificates.text("ca.pem")])
            .args(["-connect", &format!("127.0.0.1:{}", server.tls_port())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl is not installed: run .ci/tools");
        let (mut stdin, mut stdout) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
        stdin.write_all(&bytes(&connect(&device))).await.unwrap();
        let mut answer = [0; 4];
        within("a CONNACK through openssl", stdout.read_exact(&mut answer))
            .await
            .unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0], "{protocol}");
        stdin.write_all(&bytes("c000")).await.unwrap();
        let mut answer = [0; 2];
        within("a PINGRESP", stdout.read_exact(&mut answer))
            .await
            .unwrap();
        assert_eq!(answer, [0xd0, 0], "{protocol}");
    }
}

#[tokio::test]
async fn certificates_are_replaced_while_many_sessions_publish() {
    let certificates = Certificates::new();
    let mut child = Options::new(PROGRAM)
        .env("SETPOINT_MQTT__TLS__LISTEN", "127.0.0.1:0")
        .env("SETPOINT_MQTT__TLS__CERT", &certificates.text("server.pem"))
        .env("SETPOINT_MQTT__TLS__KEY", &certificates.text("server.key"))
        .start()
        .await;
    let port: u16 = child
        .stdout()
        .iter()
        .find_map(|line| line.split_once("mqtts://127.0.0.1:")?.1.trim().parse().ok())
        .expect("the port of TLS");
    let tracker = TaskTracker::new();
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        let device = child.device(&format!("HOME-{n}")).await;
        let endpoint = certificates.endpoint_at(port, None);
        let options = DeviceOptions::new(
            device.serial.parse().unwrap(),
            Some(Token::new(&device.token)),
            endpoint,
        );
        let telemetry = TelemetryPlan {
            every: Some(Duration::from_millis(50)),
            ..TelemetryPlan::default()
        };
        let telemetry = Some(telemetry);
        sessions.push(Simulated::start(DeviceOptions { telemetry, ..options }, &tracker));
    }
    for session in &sessions {
        session.ready(WAIT).await.unwrap();
    }
    let operator = operator_login(child.api.token(), "operator");
    for round in 0..3 {
        // Another authority each time: who trusts it alone gets in by the new certificate alone.
        certificates.make(&["ca", "--force"]);
        certificates.make(&["server", "--force"]);
        let ca = certificates.text("ca.pem");
        eventually!({
            child.hang_up();
            let more = ["--cafile", ca.as_str()];
            let (code, _) = mosquitto::publish(
                port,
                Version::V5,
                &operator,
                "devices/HOME-0/telemetry",
                r#"{"round":1}"#,
                &more,
            )
            .await;
            code == Some(0)
        });
        for session in &sessions {
            let before = session.state().telemetry_acknowledged;
            let state = session
                .wait(WAIT, |state| state.telemetry_acknowledged > before + 2)
                .await
                .unwrap();
            assert_eq!(
                state.connects,
                1,
                "round {round}: {} was cut off",
                session.serial()
            );
        }
    }
    for session in sessions {
        session.stop().await;
    }
    assert!(child.stop(nix::sys::signal::Signal::SIGTERM).await.success());
}
