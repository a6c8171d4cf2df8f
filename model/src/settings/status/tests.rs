use chrono::TimeDelta;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::settings::{
    ack::{Errors, KeyError},
    diff::diff,
    testing::document,
};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn ack(version: i64, settings: Option<Value>, errors: &[(&str, &str)]) -> Ack {
    let errors = errors.iter().map(|(key, message)| {
        (
            (*key).to_owned(),
            KeyError {
                code: Some(400),
                message: (*message).to_owned(),
            },
        )
    });
    Ack {
        version,
        settings: settings.map(document),
        errors: errors.collect(),
    }
}

fn states(status: &Status) -> Vec<(&str, State, i64, Option<&str>)> {
    status
        .iter()
        .map(|(key, s)| (key, s.state, s.since.timestamp(), s.message.as_deref()))
        .collect()
}

fn created(document: &Document) -> Status {
    Status::default().changed(&diff(&Document::new(), document), 1, at(1))
}

#[test]
fn a_new_devices_keys_are_pending_until_acknowledged() {
    let document = document(json!({"a": 1, "b": true}));
    let status = created(&document);
    assert_eq!(
        states(&status),
        [("a", State::Pending, 1, None), ("b", State::Pending, 1, None)]
    );
    assert!(!status.in_place(1));
    let status = status.acknowledged(&document, &ack(1, None, &[]), at(2));
    assert_eq!(
        states(&status),
        [("a", State::Synced, 2, None), ("b", State::Synced, 2, None)]
    );
    assert!(status.in_place(1));
}

#[test]
fn only_a_changed_key_becomes_pending_and_only_its_own_version_settles_it() {
    let (one, two) = (
        document(json!({"a": 1, "b": 1})),
        document(json!({"a": 1, "b": 2})),
    );
    let status = created(&one).acknowledged(&one, &ack(1, None, &[]), at(2));
    let status = status.changed(&diff(&one, &two), 2, at(3));
    assert_eq!(
        states(&status),
        [("a", State::Synced, 2, None), ("b", State::Pending, 3, None)]
    );
    let late = status.acknowledged(&two, &ack(1, Some(json!({"a": 1, "b": 1})), &[]), at(4));
    assert_eq!(late, status);
    let status = status.acknowledged(&two, &ack(2, Some(json!({"a": 1.0, "b": 2.0})), &[]), at(5));
    assert_eq!(
        states(&status),
        [("a", State::Synced, 2, None), ("b", State::Synced, 5, None)]
    );
}

#[test]
fn a_refusal_stands_until_the_value_is_in_place_or_another_is_wanted() {
    let one = document(json!({"a": 5, "b": 1}));
    let refused = created(&one).acknowledged(
        &one,
        &ack(1, Some(json!({"a": 60, "b": 1})), &[("a", "10..300 only")]),
        at(2),
    );
    let expected = [
        ("a", State::Refused, 2, Some("10..300 only")),
        ("b", State::Synced, 2, None),
    ];
    assert_eq!(states(&refused), expected);
    // A later acknowledgement that names another value, or none at all, leaves the refusal as it is.
    for settings in [json!({"a": 60, "b": 1}), json!({"b": 1})] {
        let later = refused.acknowledged(&one, &ack(1, Some(settings), &[]), at(3));
        assert_eq!(states(&later), expected);
    }
    let accepted = refused.acknowledged(&one, &ack(1, Some(json!({"a": 5, "b": 1})), &[]), at(4));
    assert_eq!(states(&accepted)[0], ("a", State::Synced, 4, None));
    let two = document(json!({"a": 20, "b": 1}));
    let wanted = refused.changed(&diff(&one, &two), 2, at(5));
    assert_eq!(states(&wanted)[0], ("a", State::Pending, 5, None));
}

#[test]
fn a_device_that_runs_another_value_says_so() {
    let one = document(json!({"a": 5, "b": 1, "c": 1}));
    let status = created(&one).acknowledged(&one, &ack(1, Some(json!({"a": 60, "b": 1})), &[]), at(2));
    assert_eq!(
        states(&status),
        [
            ("a", State::Pending, 2, Some("the device runs 60")),
            ("b", State::Synced, 2, None),
            (
                "c",
                State::Pending,
                2,
                Some("the device did not say what it runs")
            ),
        ]
    );
    // It drifts: what was in place no longer is.
    let drifted = status.acknowledged(&one, &ack(1, Some(json!({"b": 9})), &[]), at(3));
    assert_eq!(
        states(&drifted)[1],
        ("b", State::Pending, 3, Some("the device runs 9"))
    );
    assert!(!drifted.in_place(1));
}

#[test]
fn a_key_that_left_the_document_has_no_status() {
    let (one, two) = (document(json!({"a": 1, "b": 1})), document(json!({"b": 1})));
    let status = created(&one).changed(&diff(&one, &two), 2, at(2));
    assert_eq!(status.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["b"]);
}

fn small_document() -> impl Strategy<Value = Document> {
    prop::collection::btree_map("[a-d]", (0..3_i64).prop_map(Value::from), 0..4)
        .prop_map(|m| m.into_iter().collect())
}

fn any_ack(newest: i64) -> impl Strategy<Value = Ack> {
    let errors = prop::collection::btree_map("[a-d]", "[no]", 0..3);
    (1..=newest, prop::option::of(small_document()), errors).prop_map(|(version, settings, errors)| Ack {
        version,
        settings,
        errors: errors
            .into_iter()
            .map(|(key, message)| (key, KeyError { code: None, message }))
            .collect::<Errors>(),
    })
}

/// Documents in the order they were wanted, each with the acknowledgements that came while it was current.
fn history() -> impl Strategy<Value = Vec<(Document, Vec<Ack>)>> {
    prop::collection::vec((small_document(), prop::collection::vec(any_ack(4), 0..4)), 1..5)
}

proptest! {
    #[test]
    fn transitions_keep_their_promises(history in history()) {
        let mut status = Status::default();
        let mut current = Document::new();
        let mut clock = 0;
        for (index, (next, acks)) in history.into_iter().enumerate() {
            let version = i64::try_from(index).unwrap() + 1;
            clock += 1;
            let changes = diff(&current, &next);
            let before = status.clone();
            status = status.changed(&changes, version, at(clock));
            current = next;
            // Every key of the document has a status and nothing else has; what did not change, stands.
            prop_assert!(status.iter().map(|(key, _)| key).eq(current.keys().map(String::as_str)));
            for (key, now) in status.iter() {
                if changes.contains_key(key) {
                    prop_assert_eq!((now.state, now.version), (State::Pending, version));
                } else {
                    prop_assert_eq!(Some(now), before.get(key));
                }
            }
            for ack in acks.into_iter().filter(|ack| ack.version <= version) {
                clock += 1;
                let before = status.clone();
                status = status.acknowledged(&current, &ack, at(clock));
                prop_assert_eq!(&status.acknowledged(&current, &ack, at(clock + 100)), &status);
                for (key, now) in status.iter() {
                    let was = before.get(key).unwrap();
                    let running = ack.settings.as_ref().map(|settings| settings.get(key));
                    let in_place = running.is_none_or(|running| running == current.get(key));
                    if was.version > ack.version {
                        prop_assert_eq!(now, was);
                    } else if let Some(error) = ack.errors.get(key) {
                        prop_assert_eq!(now.state, State::Refused);
                        prop_assert_eq!(now.message.as_ref(), Some(&error.message));
                    } else if in_place {
                        prop_assert_eq!(now.state, State::Synced);
                    } else {
                        // A refusal is never lost without the device having said so.
                        prop_assert_eq!(now.state == State::Refused, was.state == State::Refused);
                    }
                    if now.state == was.state && now.message == was.message {
                        prop_assert_eq!(now.since, was.since);
                    }
                }
            }
        }
    }
}
