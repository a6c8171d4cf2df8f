//! Where each key of a device's settings stands between "wanted" and "the device runs it".

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Ack, Diff, Document, document::same};
use crate::schedule::DOCUMENT_KEY;

/// The longest value that a message quotes, in characters.
const MAX_QUOTED: usize = 80;

/// Where one key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The device said that it runs the value.
    Synced,
    /// The device has not said anything about the value, or said that it runs another one.
    Pending,
    /// The device said that it will not run the value.
    Refused,
}

/// One key's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStatus {
    /// Where it stands.
    pub state: State,
    /// Since when: the change or acknowledgement that brought it here.
    pub since: DateTime<Utc>,
    /// The device's own words, or what it runs instead; `None` when there is nothing to say.
    pub message: Option<String>,
    /// The version that last changed the key's value: acknowledgements of older ones say nothing about it.
    pub version: i64,
}

/// The state of every key in a device's document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Status(BTreeMap<String, KeyStatus>);

impl Status {
    /// The status after the document changed by `diff` into `version`: what changed is pending, what is no
    /// longer in the document has no status, and the rest stands as it stood.
    pub fn changed(&self, diff: &Diff, version: i64, at: DateTime<Utc>) -> Self {
        let mut keys = self.0.clone();
        // What a device is told of its schedules is no value that it could run or refuse.
        for (key, change) in diff.iter().filter(|(key, _)| *key != DOCUMENT_KEY) {
            if change.to.is_some() {
                let pending = KeyStatus {
                    state: State::Pending,
                    since: at,
                    message: None,
                    version,
                };
                keys.insert(key.clone(), pending);
            } else {
                keys.remove(key);
            }
        }
        Self(keys)
    }

    /// The status after `ack`, which [`Ack::check`] found good. `document` is the current one.
    ///
    /// For each key whose value has stood since the acknowledged version or longer:
    /// - named in `errors`: refused, with the device's words;
    /// - no `settings`, or the same value in them: synced;
    /// - another value: pending, with what the device runs;
    /// - not in `settings`: still pending, if it was; else as it stood.
    ///
    /// A refusal ends only with the value in place or a new value wanted, never because a later
    /// acknowledgement merely left it out. Applying the same acknowledgement again changes nothing.
    pub fn acknowledged(&self, document: &Document, ack: &Ack, at: DateTime<Utc>) -> Self {
        let settle = |(key, before): (&String, &KeyStatus)| {
            let after = if before.version > ack.version {
                None
            } else {
                outcome(key, before, document, ack)
            };
            let unchanged = |(state, message): &(State, Option<String>)| {
                *state == before.state && *message == before.message
            };
            let after = match after.filter(|after| !unchanged(after)) {
                Some((state, message)) => KeyStatus {
                    state,
                    since: at,
                    message,
                    version: before.version,
                },
                None => before.clone(),
            };
            (key.clone(), after)
        };
        Self(self.0.iter().map(settle).collect())
    }

    /// Whether every key whose value has stood since `version` or longer is in place on the device.
    pub fn in_place(&self, version: i64) -> bool {
        self.0
            .values()
            .filter(|key| key.version <= version)
            .all(|key| key.state == State::Synced)
    }

    /// The keys with their states, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &KeyStatus)> {
        self.0.iter().map(|(key, status)| (key.as_str(), status))
    }

    /// One key's state.
    pub fn get(&self, key: &str) -> Option<&KeyStatus> {
        self.0.get(key)
    }
}

/// What the acknowledgement says about one key, or `None` when it says nothing.
fn outcome(key: &str, before: &KeyStatus, wanted: &Document, ack: &Ack) -> Option<(State, Option<String>)> {
    if let Some(error) = ack.errors.get(key) {
        return Some((State::Refused, Some(error.text())));
    }
    let Some(running) = &ack.settings else {
        return Some((State::Synced, None));
    };
    match running.get(key) {
        Some(value) if wanted.get(key).is_some_and(|wanted| same(wanted, value)) => {
            Some((State::Synced, None))
        }
        _ if before.state == State::Refused => None,
        Some(value) => {
            let quoted: String = value.to_string().chars().take(MAX_QUOTED).collect();
            Some((State::Pending, Some(format!("the device runs {quoted}"))))
        }
        None if before.state == State::Pending => Some((
            State::Pending,
            Some("the device did not say what it runs".to_owned()),
        )),
        None => None,
    }
}

#[cfg(test)]
mod tests;
