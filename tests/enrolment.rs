//! Devices that make themselves known by a certificate.

use std::process::Command;

use device_sim::device::MqttVersion;
use reqwest::Method;
use serde_json::{Value, json};
use setpoint_tests::{
    Device, Harness, Version, WAIT, eventually,
    harness::{Setup, mqtt::VERSIONS},
    mosquitto,
};

use crate::{
    certified::{publish, refused, simulate},
    claiming::{claimed, login},
    sessions::person,
    transports::Certificates,
};

/// A server that makes devices of certificates.
fn enrolling(certificates: &Certificates) -> Setup {
    certificates.setup().with("mqtt.tls.enrol_model", "home")
}

/// The device as staff see it.
fn seen(server: &Harness, serial: &str) -> Device {
    Device {
        serial: serial.to_owned(),
        token: String::new(),
        api: server.api().clone(),
        mqtt_port: server.mqtt_port(),
    }
}

async fn audited(server: &Harness, query: &str) -> Vec<Value> {
    let list = server.api().get(&format!("/audit?{query}")).await.expect(200);
    list["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn an_unknown_serial_with_a_certificate_becomes_a_device() {
    let certificates = Certificates::new();
    let server = enrolling(&certificates).start().await;
    for (serial, version) in [("NEW-3", MqttVersion::V3), ("NEW-5", MqttVersion::V5)] {
        certificates.make(&["device", serial]);
        let simulated = simulate(&server, &certificates, serial, version);
        simulated.ready(WAIT).await.unwrap();
        let device = seen(&server, serial);
        let number = device.change(json!({"privacyMode": true})).await;
        let number = u64::try_from(number).unwrap();
        simulated.applied(number, WAIT).await.unwrap();
        simulated.stop().await;

        let shown = device.get().await;
        assert_eq!((&shown["model"], &shown["tags"]), (&json!("home"), &json!({})));
        let owners = server.api().get(&device.path("/owners")).await.expect(200);
        assert_eq!(owners["items"], json!([]), "it is nobody's");
        let created = eventually!(device.timeline("created").await.pop());
        assert_eq!(created["data"]["actor"], format!("device:{serial}"));
        let connected = eventually!(device.timeline("connected").await.pop());
        assert_eq!(connected["data"]["transport"], "tls");
        let entries = audited(&server, &format!("object=device:{serial}&action=device.enrol")).await;
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(
            (
                &entries[0]["actor"],
                &entries[0]["address"],
                &entries[0]["after"]["model"]
            ),
            (
                &json!(format!("device:{serial}")),
                &json!("127.0.0.1"),
                &json!("home")
            )
        );

        // It comes back as the same device.
        for again in VERSIONS {
            assert_eq!(publish(&server, &certificates, serial, again).await, 0);
        }
        eventually!(!device.telemetry("metric=temperature").await.is_empty());
        assert_eq!(device.timeline("created").await.len(), 1);
    }
}

#[tokio::test]
async fn connections_of_one_new_device_at_once_make_one_device() {
    let certificates = Certificates::new();
    certificates.make(&["device", "NEW-1"]);
    let server = enrolling(&certificates).start().await;
    let publish = || publish(&server, &certificates, "NEW-1", Version::V5);
    // Each takes over the session of another; whoever gets in at all is the one device.
    futures_util::future::join_all((0..4).map(|_| publish())).await;
    assert_eq!(publish().await, 0);
    assert_eq!(audited(&server, "action=device.enrol").await.len(), 1);
}

#[tokio::test]
async fn what_the_factory_said_of_a_serial_goes_first() {
    let certificates = Certificates::new();
    certificates.make(&["device", "F-1"]);
    let server = enrolling(&certificates).start().await;
    let model = json!({"name": "valve", "settings": {"open": {"type": "boolean", "default": false}}});
    server.api().post("/models").json(&model).await.expect(201);
    let file = "serial,model,name,tags\nF-1,valve,Hall,site=oslo\n";
    let import = server
        .api()
        .post("/factory/imports")
        .header("content-type", "text/csv");
    let path = import.body(file).await.header("location");
    eventually!(server.api().root(Method::GET, &path).await.expect(200)["state"] == "done");

    assert_eq!(publish(&server, &certificates, "F-1", Version::V5).await, 0);
    let device = seen(&server, "F-1");
    let shown = device.get().await;
    assert_eq!(
        (&shown["model"], &shown["name"], &shown["tags"]),
        (&json!("valve"), &json!("Hall"), &json!({"site": "oslo"}))
    );
    assert_eq!(device.settings().await["settings"], json!({"open": false}));
}

#[tokio::test]
async fn a_certificate_brings_no_former_device_back() {
    let certificates = Certificates::new();
    let server = enrolling(&certificates).start().await;
    let api = server.api();
    for serial in ["DELETED", "REVOKED", "STOLEN", "RETURNED"] {
        certificates.make(&["device", serial]);
        assert_eq!(publish(&server, &certificates, serial, Version::V5).await, 0);
    }
    api.delete("/devices/DELETED").await.expect(204);
    api.delete("/devices/REVOKED/credential").await.expect(204);
    api.delete("/devices/RETURNED/registration").await.expect(204);
    let stolen = json!({"stolen": true});
    api.patch("/devices/STOLEN").json(&stolen).await.expect(200);
    for serial in ["DELETED", "REVOKED", "STOLEN", "RETURNED"] {
        refused(&server, &certificates, serial).await;
    }
    api.get("/devices/DELETED").await.problem(404, "not_found");
    let (known, made) = ("known_before", "made");
    let count = async |outcome: &str| {
        let line = format!("setpoint_enrolments_total{{outcome=\"{outcome}\"}} ");
        let metrics = api.root(Method::GET, "/metrics").await.text;
        let found = metrics
            .lines()
            .find_map(|text| text.strip_prefix(&line)?.parse().ok());
        found.unwrap_or(0)
    };
    // A stolen one is known by its credential, which it still has.
    assert_eq!((count(made).await, count(known).await), (4, 6));

    // Staff may let each in again.
    let made = api.post("/devices").json(&json!({"serial": "DELETED"})).await;
    made.expect(201);
    api.post("/devices/REVOKED/credential").await.expect(201);
    api.post("/devices/RETURNED/credential").await.expect(201);
    let found = json!({"stolen": false});
    api.patch("/devices/STOLEN").json(&found).await.expect(200);
    for serial in ["DELETED", "REVOKED", "STOLEN", "RETURNED"] {
        assert_eq!(
            publish(&server, &certificates, serial, Version::V5).await,
            0,
            "{serial}"
        );
    }
}

#[tokio::test]
async fn nobody_enrols_without_being_allowed_to() {
    let certificates = Certificates::new();
    certificates.make(&["device", "NEW-1"]);
    // Off unless switched on.
    let server = certificates.setup().start().await;
    refused(&server, &certificates, "NEW-1").await;
    server.api().get("/devices/NEW-1").await.problem(404, "not_found");

    let server = enrolling(&certificates).start().await;
    // A token is no certificate.
    let ca = certificates.text("ca.pem");
    for version in VERSIONS {
        let (port, login) = (server.tls_port(), login("NEW-2", "spd_guess"));
        let more = ["--cafile", ca.as_str()];
        let topic = "devices/NEW-2/telemetry";
        let (code, _) = mosquitto::publish(port, version, &login, topic, "{}", &more).await;
        assert_ne!(code, Some(0));
    }
    // A name that is no serial.
    for (file, name) in [
        ("space", "NEW 1"),
        ("dash", "-NEW"),
        ("topic", "NEW/1"),
        ("wild", "+"),
    ] {
        certificate(&certificates, file, name);
        refused(&server, &certificates, file).await;
    }
    // Another device's serial beside one's own certificate.
    let [ca, cert, key] =
        ["ca.pem", "device-NEW-1.pem", "device-NEW-1.key"].map(|name| certificates.text(name));
    let more = ["--cafile", &ca, "--cert", &cert, "--key", &key];
    let mut login = login("NEW-3", "");
    login.username = "NEW-3".to_owned();
    let topic = "devices/NEW-3/telemetry";
    let (code, _) = mosquitto::publish(server.tls_port(), Version::V5, &login, topic, "{}", &more).await;
    assert_eq!(code, Some(0x87));
    let devices = server.api().get("/devices").await.expect(200);
    assert_eq!(devices["items"], json!([]));
}

/// A certificate of the CA as `device-{file}.pem`, with a common name that `setpoint cert` would refuse.
fn certificate(certificates: &Certificates, file: &str, name: &str) {
    let path = |ending: &str| certificates.text(&format!("device-{file}.{ending}"));
    let run = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).output();
        let done = done.expect("openssl is not installed: run .ci/tools");
        assert!(done.status.success(), "{done:?}");
    };
    std::fs::write(
        path("ext"),
        "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n",
    )
    .unwrap();
    let subject = format!("/CN={}", name.replace('/', "\\/"));
    let (key, request, made) = (path("key"), path("csr"), path("pem"));
    run(&[
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
        &key,
    ]);
    run(&["req", "-new", "-key", &key, "-subj", &subject, "-out", &request]);
    let (ca, ca_key) = (certificates.text("ca.pem"), certificates.text("ca.key"));
    let signing = ["-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "1"];
    let extensions = path("ext");
    let files = ["-in", &request, "-extfile", &extensions, "-out", &made];
    run(&[&["x509", "-req"], &signing[..], &files[..]].concat());
}

#[tokio::test]
async fn so_many_enrol_within_a_minute_and_no_more() {
    let certificates = Certificates::new();
    for serial in ["NEW-1", "NEW-2", "NEW-3"] {
        certificates.make(&["device", serial]);
    }
    let limited = enrolling(&certificates).with("mqtt.tls.enrol_per_minute", "2");
    let server = limited.start().await;
    for serial in ["NEW-1", "NEW-2"] {
        assert_eq!(publish(&server, &certificates, serial, Version::V5).await, 0);
    }
    for (version, code) in [(Version::V3, 3), (Version::V5, 0x97)] {
        assert_eq!(publish(&server, &certificates, "NEW-3", version).await, code);
    }
    // Who is known comes in all the same.
    assert_eq!(publish(&server, &certificates, "NEW-1", Version::V5).await, 0);
    let metrics = server.api().root(Method::GET, "/metrics").await.text;
    let counted = "setpoint_enrolments_total{outcome=\"too_many\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_model_that_does_not_exist_makes_no_device_and_is_no_fault_of_the_device() {
    let certificates = Certificates::new();
    certificates.make(&["device", "NEW-1"]);
    let setup = certificates.setup().with("mqtt.tls.enrol_model", "valve");
    let server = setup.start().await;
    for (version, code) in [(Version::V3, 3), (Version::V5, 0x88)] {
        assert_eq!(publish(&server, &certificates, "NEW-1", version).await, code);
    }
    let model = json!({"name": "valve", "settings": {}});
    server.api().post("/models").json(&model).await.expect(201);
    assert_eq!(publish(&server, &certificates, "NEW-1", Version::V5).await, 0);
}

#[tokio::test]
async fn a_device_with_a_certificate_is_claimed_by_whom_staff_let() {
    let certificates = Certificates::new();
    certificates.make(&["device", "NEW-1"]);
    let server = enrolling(&certificates).start().await;
    assert_eq!(publish(&server, &certificates, "NEW-1", Version::V5).await, 0);
    let anna = person(&server, "anna", "owner").await;
    // Whoever knows its serial could ask for it; its certificate does not speak for them.
    let codes = crate::claiming::ask(&server, "NEW-1").await;
    let approve = json!({"user_code": codes["user_code"], "decision": "approve"});
    anna.activate(&approve).await.problem(409, "device_in_use");
    server.api().delete("/devices/NEW-1/credential").await.expect(204);
    claimed(&server, &anna, "NEW-1").await;
    assert_eq!(publish(&server, &certificates, "NEW-1", Version::V5).await, 0);
}
