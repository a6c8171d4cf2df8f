//! How what becomes of a device holds against its certificate.

use device_sim::{Device as Simulated, DeviceOptions, Ended, device::MqttVersion};
use serde_json::{Value, json};
use setpoint_tests::{Harness, Version, WAIT, eventually, harness::mosquitto::Login, mosquitto};
use tokio_util::task::TaskTracker;

use crate::{claiming::login, transports::Certificates};

/// Who says nothing but its certificate.
fn nameless(serial: &str) -> Login {
    Login {
        username: String::new(),
        ..login(serial, "")
    }
}

/// Publishes a sample with a certificate: the client's exit code, which is the CONNACK's.
pub(crate) async fn publish(
    server: &Harness,
    certificates: &Certificates,
    serial: &str,
    version: Version,
) -> u8 {
    let files = [
        "ca.pem".to_owned(),
        format!("device-{serial}.pem"),
        format!("device-{serial}.key"),
    ];
    let [ca, cert, key] = files.map(|name| certificates.text(&name));
    let more = ["--cafile", &ca, "--cert", &cert, "--key", &key];
    let topic = format!("devices/{serial}/telemetry");
    let sample = r#"{"temperature":20.5}"#;
    let (port, login) = (server.tls_port(), nameless(serial));
    let (code, said) = mosquitto::publish(port, version, &login, &topic, sample, &more).await;
    u8::try_from(code.unwrap_or_else(|| panic!("mosquitto_pub was killed: {said}"))).unwrap()
}

/// What both versions answer to a certificate that does not let in.
pub(crate) async fn refused(server: &Harness, certificates: &Certificates, serial: &str) {
    for (version, code) in [(Version::V3, 5), (Version::V5, 0x87)] {
        assert_eq!(
            publish(server, certificates, serial, version).await,
            code,
            "{serial}"
        );
    }
}

/// A simulated device that has nothing but its certificate.
pub(crate) fn simulate(
    server: &Harness,
    certificates: &Certificates,
    serial: &str,
    version: MqttVersion,
) -> Simulated {
    let endpoint = certificates.endpoint_at(server.tls_port(), Some(serial));
    let options = DeviceOptions::new(serial.parse().unwrap(), None, endpoint);
    Simulated::start(DeviceOptions { version, ..options }, &TaskTracker::new())
}

#[tokio::test]
async fn what_becomes_of_a_device_holds_against_its_certificate() {
    let certificates = Certificates::new();
    for serial in ["HOME-1", "HOME-2"] {
        certificates.make(&["device", serial]);
    }
    let server = certificates.setup().start().await;
    let (device, other) = (server.device("HOME-1").await, server.device("HOME-2").await);
    let bystander = simulate(&server, &certificates, "HOME-2", MqttVersion::V5);
    bystander.ready(WAIT).await.unwrap();
    let api = server.api();
    for version in [MqttVersion::V3, MqttVersion::V5] {
        for state in ["stolen", "revoked", "unregistered", "deleted"] {
            let simulated = simulate(&server, &certificates, "HOME-1", version);
            simulated.ready(WAIT).await.unwrap();
            match state {
                "stolen" => {
                    let body = json!({"stolen": true});
                    api.patch("/devices/HOME-1").json(&body).await.expect(200);
                }
                "revoked" => drop(api.delete("/devices/HOME-1/credential").await.expect(204)),
                "unregistered" => drop(api.delete("/devices/HOME-1/registration").await.expect(204)),
                _ => drop(api.delete("/devices/HOME-1").await.expect(204)),
            }
            // It is gone with the answer: nobody is connected but the other.
            let sessions = api.get("/sessions").await.expect(200);
            let live: Vec<&Value> = sessions["items"].as_array().unwrap().iter().collect();
            assert!(
                live.len() == 1 && live[0]["serial"] == "HOME-2",
                "{state}: {sessions}"
            );
            // And what it tries next is refused, as is every other way in.
            let ended = simulated.wait(WAIT, |state| state.ended.is_some()).await.unwrap();
            assert_eq!(ended.ended, Some(Ended::NotAuthorized), "{state}");
            refused(&server, &certificates, "HOME-1").await;
            match state {
                "stolen" => {
                    let seen = eventually!({
                        let seen = device.timeline("stolen_seen").await;
                        (seen.len() >= 3).then_some(seen)
                    });
                    for entry in seen {
                        let address = entry["data"]["address"].as_str().unwrap();
                        assert!(address.starts_with("127.0.0.1:"), "{entry}");
                        assert_eq!(entry["data"]["transport"], "tls", "{entry}");
                    }
                    let body = json!({"stolen": false});
                    api.patch("/devices/HOME-1").json(&body).await.expect(200);
                }
                "revoked" | "unregistered" => {
                    api.post("/devices/HOME-1/credential").await.expect(201);
                }
                _ => {
                    let again = json!({"serial": "HOME-1"});
                    api.post("/devices").json(&again).await.expect(201);
                }
            }
            assert_eq!(
                publish(&server, &certificates, "HOME-1", Version::V5).await,
                0,
                "{state}"
            );
        }
    }
    // The other device noticed nothing of it.
    let number = u64::try_from(other.change(json!({"privacyMode": true})).await).unwrap();
    bystander.applied(number, WAIT).await.unwrap();
    assert_eq!(bystander.state().connects, 1);
    bystander.stop().await;
}
