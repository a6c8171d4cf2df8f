//! A device in a browser: mqtt.js over WebSocket, in a headless Chromium.

pub(crate) mod chromium;
mod site;
pub(crate) mod tab;

use serde_json::json;
use setpoint_tests::{Device, Harness, Version, eventually, harness::mqtt::VERSIONS};

use self::{chromium::Chromium, site::Site};

/// What the page needs to be this device.
fn credentials(server: &Harness, device: &Device, version: Version) -> serde_json::Value {
    let address = server.api().server();
    json!({
        "broker": address.replace("http://", "ws://") + "/mqtt",
        "rest": format!("{address}/api/v1/devices"),
        "username": device.serial,
        "password": device.token,
        "protocolVersion": match version {
            Version::V3 => 4,
            Version::V5 => 5,
        },
    })
}

#[tokio::test]
async fn a_page_with_mqtt_js_shows_its_settings_as_they_change() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for version in VERSIONS {
        let before = device.change(json!({"privacyMode": false})).await;
        let mut site = Site::serve(credentials(&server, &device, version)).await;
        let browser = Chromium::open(site.address());
        let first = site.first_told(&browser).await;
        assert_eq!(
            first,
            json!({"rest": "kept"}),
            "another origin's page reads nothing from REST: there is no CORS"
        );
        assert_eq!(
            site.told().await,
            json!({"shown": format!("{before}: privacyMode false")}),
            "the retained document, over a WebSocket that any origin may open"
        );
        let after = device.change(json!({"privacyMode": true})).await;
        assert_eq!(
            site.told().await,
            json!({"shown": format!("{after}: privacyMode true")})
        );
        eventually!(device.key_state("privacyMode").await == "synced");
        let sessions = server.api().get("/sessions?serial=HOME-1").await.expect(200);
        let session = &sessions["items"][0];
        let expected = match version {
            Version::V3 => "3.1.1",
            Version::V5 => "5.0",
        };
        assert_eq!(session["transport"], "websocket", "{sessions}");
        assert_eq!(session["version"], expected, "{sessions}");
        // Its end reaches the page.
        let path = format!("/sessions/{}", session["id"].as_str().unwrap());
        server.api().delete(&path).await.expect(204);
        assert_eq!(site.told().await, json!({"closed": true}));
    }
}
