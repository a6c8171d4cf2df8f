use serde_json::json;

use super::*;
use crate::settings::testing::document;

const LIMITS: Limits = Limits { url: 100, headers: 2 };

fn parse(value: Value) -> Result<WebhookDescription, FieldErrors> {
    WebhookDescription::parse(document(value), LIMITS)
}

fn url_error(url: &str) -> String {
    let errors = parse(json!({"url": url, "events": ["presence"]})).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors["url"].clone()
}

#[test]
fn a_webhook_reads_back_as_shown() {
    let hook = parse(json!({
        "url": "https://example.com:8443/hook?x=1", "events": ["settings", "presence", "settings"],
        "selector": "site = oslo", "headers": {"X-Key": "a secret"}
    }))
    .unwrap();
    assert_eq!(
        Value::Object(hook.shown()),
        json!({
            "url": "https://example.com:8443/hook?x=1", "events": ["presence", "settings"], "enabled": true,
            "selector": "site=oslo", "headers": ["x-key"]
        })
    );
    assert_eq!(
        WebhookDescription::parse(hook.to_document(), LIMITS),
        Ok(hook.clone())
    );
    let debug = format!("{hook:?}");
    assert!(!debug.contains("secret") && !debug.contains("/hook"), "{debug}");
}

#[test]
fn urls_are_plain_and_normal() {
    for (url, message) in [
        ("example.com", "must be a URL such as https://example.com/hook"),
        ("https://", "must be a URL such as https://example.com/hook"),
        ("ftp://example.com", "must begin with https:// or http://"),
        ("file:///etc/passwd", "must begin with https:// or http://"),
        (
            "https://user:pass@example.com",
            "must not hold a user name or password; use headers",
        ),
        ("https://example.com/#x", "must not have a fragment (#...)"),
    ] {
        assert_eq!(url_error(url), message, "{url}");
    }
    assert_eq!(
        url_error(&format!("https://example.com/{}", "x".repeat(100))),
        "at most 100 bytes"
    );
    for disguised in [
        "http://0x7f.1/",
        "http://2130706433/",
        "http://127.1/",
        "http://0177.0.0.1",
    ] {
        let endpoint = Endpoint::parse(disguised, 100).unwrap();
        let loopback = Destination::Address([127, 0, 0, 1].into());
        assert_eq!(endpoint.destination(), loopback, "{disguised}");
    }
}

#[test]
fn every_wrong_field_is_named() {
    let errors = parse(json!({
        "events": ["presence", "weather"], "serial": "A", "group": "b", "enabled": 1, "colour": 1, "secret": "x",
        "headers": {"Host": "x", "a b": "c", "X-Key": "a\nb", "Webhook-Id": "1", "X-Other": 1}
    }))
    .unwrap_err();
    let expected = [
        ("colour", "unknown field"),
        ("enabled", "must be true or false"),
        (
            "events",
            "\"weather\" is no type of event; known: presence, settings, commands, firmware",
        ),
        ("headers.Host", "is set by the server"),
        ("headers.Webhook-Id", "is set by the server"),
        (
            "headers.X-Key",
            "a value is at most 1024 visible ASCII characters and spaces, neither first nor last a space",
        ),
        ("headers.X-Other", "must be a text"),
        ("headers.a b", "a name is 1 to 64 of letters, digits and - _ ."),
        ("secret", "is changed with POST /webhooks/{name}/secret"),
        ("serial", "only one of serial, group and selector"),
        ("url", "is needed"),
    ];
    let found: Vec<(&str, String)> = errors
        .iter()
        // A type that another part adds is known as well.
        .map(|(field, message)| (field.as_str(), message.replace(", alert", "")))
        .collect();
    let expected: Vec<(&str, String)> = expected.map(|(field, text)| (field, text.to_owned())).into();
    assert_eq!(found, expected);
    let errors = parse(json!({"url": "https://a.example", "events": ["telemetry"]})).unwrap_err();
    assert!(
        errors["events"].starts_with("telemetry is too much"),
        "{errors:?}"
    );
    let errors = parse(json!({"url": "https://a.example", "events": []})).unwrap_err();
    assert_eq!(errors["events"], "at least one");
    let headers = json!({"a": "1", "b": "2", "c": "3"});
    let errors = parse(json!({"url": "https://a.example", "events": ["presence"], "headers": headers}));
    assert_eq!(
        errors.unwrap_err()["headers.*"],
        "more than 2 headers: webhooks.max_headers"
    );
}

#[test]
fn a_patch_replaces_the_devices_and_drops_headers() {
    let hook = parse(json!({
        "url": "https://example.com/", "events": ["presence"], "serial": "A", "headers": {"a": "1", "b": "2"}
    }))
    .unwrap();
    let patch = |value: Value| hook.patched(&Patch::from(document(value)), LIMITS);
    let patched = patch(json!({"group": "oslo", "headers": {"a": null}, "enabled": false})).unwrap();
    assert_eq!(patched.devices, Devices::Group("oslo".parse().unwrap()));
    assert_eq!(patched.headers.iter().collect::<Vec<_>>(), [("b", "2")]);
    assert!(!patched.enabled);
    assert_eq!(patch(json!({"serial": null})).unwrap().devices, Devices::All);
    let errors = patch(json!({"name": "x", "secret": null, "url": null})).unwrap_err();
    assert_eq!(errors["name"], "can't be changed");
    assert_eq!(errors["secret"], "is changed with POST /webhooks/{name}/secret");
    assert_eq!(errors["url"], "is needed");
}
