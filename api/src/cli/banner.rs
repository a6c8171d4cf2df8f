//! What `serve` prints once it serves: where everything is, and commands to copy.

use std::{fmt::Write, net::Ipv4Addr, path::Path};

use super::rest::reachable;
use crate::{app::first_start::ADMINISTRATOR, server::Server};

/// The ports that clients assume.
const HTTP_PORT: u16 = 8080;
const MQTT_PORT: u16 = 1883;

pub(super) fn of(server: &Server) -> String {
    let addresses = server.addresses();
    let http = format!("http://{}", reachable(addresses.http));
    let token = shown(&server.first_start().token_file);
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = write!(text, "Setpoint {} is ready\n\n", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(text, "  HTTP        {http}  (API documentation: {http}/docs/)");
    if let Some(mqtt) = addresses.mqtt {
        let _ = writeln!(text, "  MQTT        mqtt://{}", reachable(mqtt));
    }
    if let Some(tls) = addresses.mqtt_tls {
        let _ = writeln!(text, "  MQTT, TLS   mqtts://{}", reachable(tls));
    }
    if let Some(path) = &addresses.websocket {
        let _ = writeln!(text, "  WebSocket   ws://{}{path}", reachable(addresses.http));
    }
    if let Some(metrics) = addresses.metrics {
        let _ = writeln!(text, "  metrics     http://{}/metrics", reachable(metrics));
    }
    let _ = writeln!(text, "  data        {}", server.data_dir().display());
    if let Some(password) = &server.first_start().password {
        let _ = write!(
            text,
            "\nThis is the first start. The administrator is {ADMINISTRATOR}, the password, shown this once:\n\n  \
             {password}\n"
        );
    }
    let _ = write!(
        text,
        "\nTry it:\n\n  curl -H \"Authorization: Bearer $(cat {token})\" {http}/api/v1/devices\n"
    );
    if let Some(mqtt) = addresses.mqtt {
        let mqtt = reachable(mqtt);
        let _ = writeln!(
            text,
            "  mosquitto_sub -h {} -p {} -u token -P \"$(cat {token})\" -t 'devices/#' -v",
            mqtt.ip(),
            mqtt.port()
        );
        let _ = write!(text, "  {} HOME-1 --admin-token-file {token}", simulator());
        if mqtt.port() != MQTT_PORT || mqtt.ip() != Ipv4Addr::LOCALHOST {
            let _ = write!(text, " --mqtt mqtt://{mqtt}");
        }
        let http = reachable(addresses.http);
        if http.port() != HTTP_PORT || http.ip() != Ipv4Addr::LOCALHOST {
            let _ = write!(text, " --api http://{http}");
        }
        text.push('\n');
    }
    text
}

/// The simulator as it is started here: beside this program, by cargo, or from the path.
fn simulator() -> &'static str {
    if std::env::var_os("CARGO").is_some() {
        "cargo run --release -p device-sim --"
    } else {
        "device-sim"
    }
}

/// A path as short as it can be written here, quoted if a shell needs it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let short = here
        .as_deref()
        .and_then(|here| path.strip_prefix(here).ok())
        .unwrap_or(path);
    let text = short.display().to_string();
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    if plain {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
