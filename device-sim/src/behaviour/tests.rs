use chrono::TimeZone;

use super::*;

fn document(text: &str) -> SettingsDocument {
    read(text.as_bytes()).unwrap()
}

fn applied(heard: Heard) -> Acknowledgement {
    match heard {
        Heard::Applied(acknowledgement) => acknowledgement,
        Heard::Stale { .. } => panic!("{heard:?}"),
    }
}

#[test]
fn a_document_is_applied_whole_and_acknowledged_in_the_words_of_the_contract() {
    let mut device = Behaviour::new([]);
    let ack = applied(device.hear_settings(document(
        r#"{"version":42,"settings":{"privacyMode":true,"reportInterval":90}}"#,
    )));
    assert_eq!(
        serde_json::to_value(&ack).unwrap(),
        json!({"version": 42, "settings": {"privacyMode": true, "reportInterval": 90}})
    );
    assert_eq!(device.version(), Some(42));
    assert_eq!(device.report_interval(), Duration::from_secs(90));
}

#[test]
fn a_refused_key_keeps_its_old_value_and_says_so() {
    let mut device = Behaviour::new(["privacyMode".to_owned()]);
    let text = r#"{"version":2,"settings":{"privacyMode":true,"reportInterval":90}}"#;
    let ack = applied(device.hear_settings(document(text)));
    assert_eq!(
        serde_json::to_value(&ack).unwrap(),
        json!({
            "version": 2,
            "settings": {"privacyMode": false, "reportInterval": 90},
            "errors": {"privacyMode": {"code": 400, "message": "refused by the simulator"}},
        })
    );
}

#[test]
fn there_is_nothing_to_refuse_in_the_value_it_has() {
    let mut device = Behaviour::new(["privacyMode".to_owned()]);
    let ack = applied(device.hear_settings(document(r#"{"version":1,"settings":{"privacyMode":false}}"#)));
    assert!(ack.errors.is_empty());
    let ack = applied(device.hear_settings(document(r#"{"version":2,"settings":{}}"#)));
    assert!(ack.errors.is_empty());
}

#[test]
fn a_refused_key_it_never_had_stays_absent() {
    let mut device = Behaviour::new(["colour".to_owned()]);
    let ack = applied(device.hear_settings(document(r#"{"version":1,"settings":{"colour":"red"}}"#)));
    assert!(ack.settings.is_empty());
    assert_eq!(ack.errors["colour"].code, 400);
}

#[test]
fn an_older_version_is_stale_within_a_session_only() {
    let mut device = Behaviour::new([]);
    applied(device.hear_settings(document(r#"{"version":5,"settings":{"a":5}}"#)));
    let heard = device.hear_settings(document(r#"{"version":4,"settings":{"a":4}}"#));
    assert_eq!(
        heard,
        Heard::Stale {
            version: 4,
            current: 5
        }
    );
    assert_eq!(device.running()["a"], 5);
    assert_eq!(
        applied(device.hear_settings(document(r#"{"version":5,"settings":{"a":5}}"#))).version,
        5
    );
    device.session_began();
    assert_eq!(
        applied(device.hear_settings(document(r#"{"version":4,"settings":{"a":4}}"#))).version,
        4
    );
    assert_eq!(device.running()["a"], 4);
}

#[test]
fn an_interval_of_nought_never_makes_a_flood() {
    let mut device = Behaviour::new([]);
    assert_eq!(device.report_interval(), Duration::from_secs(60));
    device.hear_settings(document(r#"{"version":1,"settings":{"reportInterval":0}}"#));
    assert_eq!(device.report_interval(), Duration::from_secs(1));
    device.hear_settings(document(r#"{"version":2,"settings":{"reportInterval":"soon"}}"#));
    assert_eq!(device.report_interval(), Duration::from_secs(60));
}

#[test]
fn what_is_no_document_is_unreadable() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"version":"1","settings":{}}"#,
        r#"{"version":1,"settings":[]}"#,
    ] {
        assert!(read::<SettingsDocument>(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn a_command_is_obeyed_unless_it_came_too_late() {
    let device = Behaviour::new([]);
    let noon = Utc.with_ymd_and_hms(2026, 1, 1, 12, 0, 0).unwrap();
    let id = "00000000-0000-0000-0000-000000000001";
    let reboot: Command =
        read(format!(r#"{{"id":"{id}","name":"reboot","params":{{}}}}"#).as_bytes()).unwrap();
    assert_eq!(
        device.obey(&reboot, noon),
        CommandResult {
            code: 200,
            body: json!({})
        }
    );
    let echo = Command {
        name: "echo".to_owned(),
        params: json!({"x": 1}),
        ..reboot.clone()
    };
    assert_eq!(device.obey(&echo, noon).body, json!({"x": 1}));
    let late = Command {
        expires_at: Some(noon),
        ..reboot
    };
    assert_eq!(device.obey(&late, noon).code, 410);
}

#[test]
fn a_firmware_goes_from_downloading_to_installed_once() {
    let mut device = Behaviour::new([]);
    let offer: FirmwareOffer =
        read(br#"{"version":"1.4.0","url":"http://x","sha256":"0","size":1}"#).unwrap();
    let states: Vec<_> = device
        .install(offer.clone())
        .into_iter()
        .map(|status| status.state)
        .collect();
    assert_eq!(states.first(), Some(&FirmwareState::Downloading));
    assert_eq!(states.last(), Some(&FirmwareState::Installed));
    let again = device.install(offer);
    assert_eq!(
        serde_json::to_value(&again).unwrap(),
        json!([{"version": "1.4.0", "state": "installed", "progress": 100, "message": null}])
    );
}
