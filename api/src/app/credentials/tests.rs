use super::*;

fn credential(serial: &str, secret: &[u8]) -> Credential {
    Credential {
        device_id: DeviceId(1),
        serial: serial.parse().unwrap(),
        hash: SecretHash::of(secret),
        previous: None,
        stolen: false,
    }
}

#[test]
fn a_look_that_began_before_a_revocation_is_not_remembered() {
    let credentials = Credentials::default();
    let old = credential("A", b"old");
    let before = credentials.epoch();
    credentials.revoke(&old.serial);
    credentials.remember(&old, before);
    assert!(credentials.get(&old.serial).0.is_none());
    credentials.remember(&credential("A", b"new"), credentials.epoch());
    assert!(
        credentials
            .get(&old.serial)
            .0
            .unwrap()
            .hash
            .matches(&SecretHash::of(b"new"))
    );
}

#[test]
fn of_two_replacements_at_once_neither_is_remembered_for_the_other() {
    let credentials = Credentials::default();
    let (one, other) = (credential("A", b"one"), credential("A", b"other"));
    let epoch = credentials.epoch();
    credentials.replace(&one, epoch);
    assert!(credentials.get(&one.serial).0.is_some());
    assert!(
        !credentials.is_current(&one.serial, epoch),
        "what was before has ended"
    );
    credentials.replace(&other, epoch);
    assert!(credentials.get(&one.serial).0.is_none());
}

#[test]
fn a_former_token_holds_within_its_grace_alone() {
    let now = DateTime::UNIX_EPOCH;
    let credential = Credential {
        previous: Some((SecretHash::of(b"old"), now + TimeDelta::hours(1))),
        ..credential("A", b"new")
    };
    let held = Held::from(&credential);
    for (secret, hours, takes) in [
        ("new", 0, true),
        ("old", 0, true),
        ("old", 1, false),
        ("new", 1, true),
    ] {
        let at = now + TimeDelta::hours(hours);
        assert_eq!(
            held.takes(&SecretHash::of(secret.as_bytes()), at),
            takes,
            "{secret} at {at}"
        );
    }
}

#[test]
fn a_sign_in_holds_until_its_own_device_is_revoked() {
    let credentials = Credentials::default();
    let (a, b): (Serial, Serial) = ("A".parse().unwrap(), "B".parse().unwrap());
    let epoch = credentials.epoch();
    credentials.revoke(&b);
    assert!(credentials.is_current(&a, epoch));
    assert!(!credentials.is_current(&b, epoch));
    assert!(credentials.is_current(&b, credentials.epoch()));
    credentials.revoke(&a);
    assert!(!credentials.is_current(&a, epoch));
}

#[test]
fn a_sign_in_older_than_every_remembered_revocation_does_not_hold() {
    let credentials = Credentials::default();
    let (a, b): (Serial, Serial) = ("A".parse().unwrap(), "B".parse().unwrap());
    let epoch = credentials.epoch();
    for _ in 0..MAX_REVOCATIONS {
        credentials.revoke(&b);
    }
    assert!(credentials.is_current(&a, epoch));
    credentials.revoke(&b);
    assert!(!credentials.is_current(&a, epoch));
    assert!(credentials.is_current(&a, epoch + 1));
}
