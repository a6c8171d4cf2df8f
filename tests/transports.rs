//! MQTT over TLS, with a certificate as login, over WebSocket, and behind a load balancer.

use std::{path::PathBuf, process::Command};

use device_sim::{
    Device as Simulated, DeviceOptions, Ended, Endpoint, Token, device::MqttVersion, endpoint::TlsFiles,
};
use serde_json::json;
use setpoint_tests::{Device, Harness, Socket, Version, WAIT, eventually, harness::Setup, mosquitto};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

const VERSIONS: [MqttVersion; 2] = [MqttVersion::V3, MqttVersion::V5];

/// What `setpoint cert` makes, in a directory of its own.
pub(crate) struct Certificates(TempDir);

impl Certificates {
    /// A CA and a server's certificate.
    pub(crate) fn new() -> Self {
        let this = Self(TempDir::new().unwrap());
        this.make(&["ca"]);
        this.make(&["server"]);
        this
    }

    pub(crate) fn make(&self, words: &[&str]) {
        let dir = self.0.path().to_str().unwrap();
        let made = Command::new(crate::PROGRAM)
            .arg("cert")
            .args(words)
            .args(["--dir", dir])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A server that uses them, and takes devices' certificates.
    pub(crate) fn setup(&self) -> Setup {
        Harness::setup()
            .with("mqtt.tls.listen", "127.0.0.1:0")
            .with("mqtt.tls.cert", &self.text("server.pem"))
            .with("mqtt.tls.key", &self.text("server.key"))
            .with("mqtt.tls.client_ca", &self.text("ca.pem"))
    }

    /// A simulated device's way to the server, with its certificate if it has one.
    fn endpoint(&self, server: &Harness, certificate: Option<&str>) -> Endpoint {
        self.endpoint_at(server.tls_port(), certificate)
    }

    /// The same to a server at this port.
    pub(crate) fn endpoint_at(&self, port: u16, certificate: Option<&str>) -> Endpoint {
        let identity = certificate.map(|serial| {
            (
                self.path(&format!("device-{serial}.pem")),
                self.path(&format!("device-{serial}.key")),
            )
        });
        let ca = Some(self.path("ca.pem"));
        let url = format!("mqtts://127.0.0.1:{port}").parse().unwrap();
        Endpoint::new(url, &TlsFiles { ca, identity }).unwrap()
    }
}

/// Starts a simulated device, and sees it through a change of its settings.
async fn works(device: &Device, token: Option<&str>, version: MqttVersion, endpoint: Endpoint) -> Simulated {
    let options = DeviceOptions::new(device.serial.parse().unwrap(), token.map(Token::new), endpoint);
    let simulated = Simulated::start(DeviceOptions { version, ..options }, &TaskTracker::new());
    simulated.ready(WAIT).await.unwrap();
    let before = device.settings().await["settings"]["privacyMode"] == true;
    changes(device, &simulated, !before).await;
    simulated
}

async fn changes(device: &Device, simulated: &Simulated, private: bool) {
    let number = device.change(json!({"privacyMode": private})).await;
    let state = simulated
        .applied(u64::try_from(number).unwrap(), WAIT)
        .await
        .unwrap();
    assert_eq!(state.settings["privacyMode"], private);
    eventually!(device.key_state("privacyMode").await == "synced");
}

/// How the device's last session came in, and from where.
async fn last_connected(device: &Device) -> (String, String) {
    let data = eventually!(device.timeline("connected").await.pop())["data"].clone();
    let text = |key: &str| data[key].as_str().unwrap().to_owned();
    (text("transport"), text("address"))
}

#[tokio::test]
async fn a_device_signs_in_over_tls_by_token_or_certificate() {
    let certificates = Certificates::new();
    certificates.make(&["device", "HOME-1"]);
    let server = certificates.setup().start().await;
    let device = server.device("HOME-1").await;
    for version in VERSIONS {
        for (token, certificate) in [(Some(device.token.as_str()), None), (None, Some("HOME-1"))] {
            let endpoint = certificates.endpoint(&server, certificate);
            works(&device, token, version, endpoint).await.stop().await;
            assert_eq!(last_connected(&device).await.0, "tls");
        }
    }
}

#[tokio::test]
async fn a_certificate_is_the_login_of_its_device_alone() {
    let certificates = Certificates::new();
    certificates.make(&["device", "HOME-1"]);
    certificates.make(&["device", "NOBODY"]);
    let server = certificates.setup().start().await;
    let (device, other) = (server.device("HOME-1").await, server.device("HOME-2").await);

    // Another device's name beside it.
    let mut login = other.login();
    login.password = String::new();
    let (ca, cert, key) = ("ca.pem", "device-HOME-1.pem", "device-HOME-1.key");
    let [ca, cert, key] = [ca, cert, key].map(|name| certificates.text(name));
    let more = ["--cafile", &ca, "--cert", &cert, "--key", &key];
    for version in [Version::V3, Version::V5] {
        let topic = other.topic("telemetry");
        let (code, said) = mosquitto::publish(server.tls_port(), version, &login, &topic, "{}", &more).await;
        assert_ne!(code, Some(0), "{said}");
        assert!(said.to_lowercase().contains("not authori"), "{said}");
    }

    // A device that doesn't exist.
    let endpoint = certificates.endpoint(&server, Some("NOBODY"));
    let nobody = DeviceOptions::new("NOBODY".parse().unwrap(), None, endpoint);
    let nobody = Simulated::start(nobody, &TaskTracker::new());
    let state = nobody.wait(WAIT, |state| state.ended.is_some()).await.unwrap();
    assert_eq!(state.ended, Some(Ended::NotAuthorized));

    // A device whose credential is revoked: the session ends, and the certificate is no way round it.
    let endpoint = certificates.endpoint(&server, Some("HOME-1"));
    let simulated = works(&device, None, MqttVersion::V5, endpoint).await;
    server.api().delete(&device.path("/credential")).await.expect(204);
    let state = simulated.wait(WAIT, |state| state.ended.is_some()).await.unwrap();
    assert_eq!(state.ended, Some(Ended::NotAuthorized));
}

#[tokio::test]
async fn certificates_are_replaced_under_a_live_session() {
    let certificates = Certificates::new();
    let server = certificates.setup().start().await;
    let device = server.device("HOME-1").await;
    let endpoint = certificates.endpoint(&server, None);
    let simulated = works(&device, Some(&device.token), MqttVersion::V5, endpoint).await;

    // Another authority, so that only the new certificate is trusted by who knows the new one.
    certificates.make(&["ca", "--force"]);
    certificates.make(&["server", "--force"]);
    let operator = setpoint_tests::harness::operator_login(server.api().token(), "operator");
    let ca = certificates.text("ca.pem");
    eventually!({
        let topic = device.topic("telemetry");
        let more = ["--cafile", ca.as_str()];
        let sample = r#"{"temperature":1}"#;
        mosquitto::publish(server.tls_port(), Version::V3, &operator, &topic, sample, &more)
            .await
            .0
            == Some(0)
    });
    changes(&device, &simulated, false).await;
    assert_eq!(simulated.state().connects, 1);
    simulated.stop().await;
}

#[tokio::test]
async fn a_device_connects_over_websocket() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let url = server.api().server().replace("http://", "ws://") + "/mqtt";
    for version in VERSIONS {
        let endpoint = Endpoint::new(url.parse().unwrap(), &TlsFiles::default()).unwrap();
        let simulated = works(&device, Some(&device.token), version, endpoint).await;
        simulated
            .wait(WAIT, |state| state.telemetry_acknowledged > 0)
            .await
            .unwrap();
        simulated.stop().await;
        assert_eq!(last_connected(&device).await.0, "websocket");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_a_websocket_has_its_clients_address() {
    let proxies = r#"["127.0.0.1"]"#;
    let server = Harness::setup()
        .with("http.trusted_proxies", proxies)
        .start()
        .await;
    let device = server.device("HOME-1").await;
    let (_, port) = server.api().server().rsplit_once(':').unwrap();
    let mut socket = Socket::connect(port.parse().unwrap()).await;
    let upgrade = "GET /mqtt HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\
        Sec-WebSocket-Protocol: mqtt\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    socket.send_bytes(upgrade.as_bytes()).await;
    // A binary frame, masked with zeros.
    let packet = connect(&device);
    let length = packet.len() / 2;
    assert!(length < 126, "one byte of length");
    socket
        .send(&format!("82{:02x}00000000{packet}", 0x80 | length))
        .await;
    let (transport, address) = last_connected(&device).await;
    assert_eq!(transport, "websocket");
    assert!(address.starts_with("203.0.113.9:"), "{address}");
}

#[tokio::test]
async fn behind_a_load_balancer_the_header_tells_the_address() {
    let server = Harness::setup().with("mqtt.proxy_protocol", "true").start().await;
    let device = server.device("HOME-1").await;
    // 203.0.113.9:50000 to 192.0.2.1:1883.
    let header = "0d0a0d0a000d0a515549540a 21 11 000c cb007109 c0000201 c350 075b";
    let mut socket = server.socket().await;
    socket.send(&(header.to_owned() + &connect(&device))).await;
    assert_eq!(socket.read().await, [0x20, 2, 0, 0]);
    assert_eq!(
        last_connected(&device).await,
        ("tcp".to_owned(), "203.0.113.9:50000".to_owned())
    );

    // Without one, and with one of version 1, not a byte is answered.
    for start in ["", "50524f58592054435034"] {
        let mut socket = server.socket().await;
        socket.send(&(start.to_owned() + &connect(&device))).await;
        assert!(socket.until_closed().await.is_empty());
    }
}

/// The device's CONNECT in MQTT 3.1.1, in hexadecimal.
pub(crate) fn connect(device: &Device) -> String {
    let text = |text: &str| {
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("{:04x}{hex}", text.len())
    };
    let login = [&device.serial, &device.serial, &device.token]
        .map(|part| text(part))
        .concat();
    let body = text("MQTT") + "04c2003c" + &login;
    let length = body.len() / 2;
    assert!(length < 128, "one byte of length");
    format!("10{length:02x}{body}")
}
