//! The story of one settings version, as times and as a plain sentence.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{State, Status, ack::Errors};
use crate::clock;

/// When each step of a version's way to the device happened; `None` for those that did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Timeline {
    /// The change was committed.
    pub requested: Option<DateTime<Utc>>,
    /// The document was handed to MQTT.
    pub published: Option<DateTime<Utc>>,
    /// The device's PUBACK came in.
    pub delivered: Option<DateTime<Utc>>,
    /// The device said that it runs the document.
    pub applied: Option<DateTime<Utc>>,
    /// The device said that it will not run a part of it.
    pub refused: Option<DateTime<Utc>>,
    /// A newer version took its place before it was applied.
    pub superseded: Option<DateTime<Utc>>,
}

/// What is known of the device's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It has never connected.
    Never,
    /// It is not connected.
    Offline {
        /// Since when.
        since: DateTime<Utc>,
    },
    /// It is connected, but does not hear its settings.
    Deaf,
    /// It is connected and hears its settings.
    Listening,
}

/// What a verdict is made from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The version in question.
    pub version: i64,
    /// Its steps.
    pub timeline: Timeline,
    /// What the device refused of it.
    pub errors: &'a Errors,
    /// The state of each key, if this is the device's current version and the device has acknowledged it.
    pub status: Option<&'a Status>,
    /// The device's connection.
    pub connection: Connection,
}

/// One sentence, without a full stop: what became of the version, or what it waits for. Times are UTC, with
/// the date unless it is `now`'s.
pub fn verdict(facts: &Facts<'_>, now: DateTime<Utc>) -> String {
    let time = |at: DateTime<Utc>| clock::told(at, now);
    let steps = facts.timeline;
    if steps.refused.is_some() {
        let reasons: Vec<String> = facts
            .errors
            .iter()
            .map(|(key, error)| format!("{key}: {}", error.text()))
            .collect();
        return format!("refused: {}", reasons.join("; "));
    }
    if let Some(at) = steps.applied {
        return format!("applied at {}", time(at));
    }
    if steps.superseded.is_some() {
        // Each version takes the place of all before it, so the next one did.
        return format!("superseded by version {}", facts.version.saturating_add(1));
    }
    if let Some(status) = facts.status {
        return differing(status);
    }
    match (facts.connection, steps.delivered, steps.published) {
        (Connection::Never, None, _) => "the device has never connected".to_owned(),
        (Connection::Offline { since }, None, _) => format!("offline since {}", time(since)),
        (Connection::Offline { since }, Some(at), _) => {
            format!(
                "delivered at {}, no acknowledgement, offline since {}",
                time(at),
                time(since)
            )
        }
        (_, Some(at), _) => format!("delivered at {}, no acknowledgement yet", time(at)),
        (Connection::Deaf, None, _) => "connected, but not subscribed to its settings".to_owned(),
        (Connection::Listening, None, Some(at)) => format!("published at {}, not delivered yet", time(at)),
        (Connection::Listening, None, None) => "waiting to be published".to_owned(),
    }
}

/// What keeps an acknowledged version from being in place.
fn differing(status: &Status) -> String {
    let told = status
        .iter()
        .filter(|(_, key)| key.state != State::Synced)
        .map(|(name, key)| {
            let message = key.message.as_deref().unwrap_or("pending");
            format!("{name}: {message}")
        });
    format!(
        "acknowledged, but not in place: {}",
        told.collect::<Vec<_>>().join("; ")
    )
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use serde_json::json;

    use super::*;
    use crate::settings::{Ack, Document, ack::KeyError, diff::diff, testing::document};

    fn at(day: u32, hour: u32, minute: u32) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 1, day, hour, minute, 0).unwrap()
    }

    fn sentence(timeline: Timeline, connection: Connection) -> String {
        let errors = Errors::from([
            (
                "label".into(),
                KeyError {
                    code: Some(7),
                    message: String::new(),
                },
            ),
            (
                "reportInterval".into(),
                KeyError {
                    code: Some(400),
                    message: "10..300 only".into(),
                },
            ),
        ]);
        let facts = Facts {
            version: 6,
            timeline,
            errors: &errors,
            status: None,
            connection,
        };
        verdict(&facts, at(2, 15, 0))
    }

    #[test]
    fn each_situation_has_its_sentence() {
        let requested = Timeline {
            requested: Some(at(2, 14, 0)),
            ..Timeline::default()
        };
        let published = Timeline {
            published: Some(at(2, 14, 1)),
            ..requested
        };
        let delivered = Timeline {
            delivered: Some(at(2, 14, 3)),
            ..published
        };
        let applied = Timeline {
            applied: Some(at(2, 14, 4)),
            ..delivered
        };
        let refused = Timeline {
            refused: Some(at(2, 14, 4)),
            ..delivered
        };
        let superseded = Timeline {
            superseded: Some(at(2, 14, 5)),
            ..delivered
        };
        let offline = Connection::Offline { since: at(2, 14, 2) };
        let long = Connection::Offline { since: at(1, 14, 2) };
        for (timeline, connection, expected) in [
            (requested, Connection::Never, "the device has never connected"),
            (requested, Connection::Listening, "waiting to be published"),
            (
                published,
                Connection::Listening,
                "published at 14:01, not delivered yet",
            ),
            (
                published,
                Connection::Deaf,
                "connected, but not subscribed to its settings",
            ),
            (published, offline, "offline since 14:02"),
            (published, long, "offline since 2026-01-01 14:02"),
            (
                delivered,
                Connection::Listening,
                "delivered at 14:03, no acknowledgement yet",
            ),
            (
                delivered,
                Connection::Deaf,
                "delivered at 14:03, no acknowledgement yet",
            ),
            (
                delivered,
                offline,
                "delivered at 14:03, no acknowledgement, offline since 14:02",
            ),
            (applied, offline, "applied at 14:04"),
            (
                refused,
                Connection::Listening,
                "refused: label: code 7; reportInterval: 10..300 only",
            ),
            (superseded, Connection::Listening, "superseded by version 7"),
            (
                Timeline {
                    applied: Some(at(2, 14, 6)),
                    ..superseded
                },
                offline,
                "applied at 14:06",
            ),
        ] {
            assert_eq!(sentence(timeline, connection), expected);
        }
    }

    #[test]
    fn a_device_that_acknowledged_but_runs_something_else_is_quoted() {
        let document = document(json!({"reportInterval": 20}));
        let wanted = Status::default().changed(&diff(&Document::new(), &document), 6, at(2, 14, 0));
        let running = Some(Document::from_iter([("reportInterval".to_owned(), json!(60))]));
        let ack = Ack {
            version: 6,
            settings: running,
            errors: Errors::new(),
        };
        let status = wanted.acknowledged(&document, &ack, at(2, 14, 4));
        let delivered = Timeline {
            delivered: Some(at(2, 14, 3)),
            ..Timeline::default()
        };
        let facts = Facts {
            version: 6,
            timeline: delivered,
            errors: &Errors::new(),
            status: Some(&status),
            connection: Connection::Listening,
        };
        let expected = "acknowledged, but not in place: reportInterval: the device runs 60";
        assert_eq!(verdict(&facts, at(2, 15, 0)), expected);
    }
}
