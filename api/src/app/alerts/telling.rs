//! What is told of an alert: in the device's timeline, to those who listen, and to webhooks.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use setpoint_model::{
    DeviceId, Serial,
    alert::{self, Reason, Standing, State, Transition, sentence},
    timeline::Facts,
};
use setpoint_store::alerts::{Rule, Told};

use super::pair::{Judged, Pair, timing};

/// Tells of an alert that fired, or was resolved because its condition is over.
pub(super) fn told(pair: &Pair<'_>, judged: &Judged, transition: Transition, now: DateTime<Utc>) -> Told {
    // How it stood when that happened: there may be more than one transition at once.
    let standing = Standing {
        state: transition.to,
        since: transition.at,
        true_since: judged.standing.true_since.filter(|at| *at <= transition.at),
        false_since: None,
        observed_at: None,
    };
    let message = sentence(
        &alert::Told {
            condition: &pair.rule.definition.condition,
            standing: &standing,
            values: &judged.values,
            timing: pair.timing(),
        },
        now,
    );
    let reason = (transition.to == State::Resolved).then_some(Reason::Cleared);
    let what = What {
        since: standing.true_since,
        values: &judged.values,
        reason,
        message,
    };
    of(pair.rule, (pair.device.id, &pair.device.serial), transition, what)
}

/// Tells of an alert that fired, and is over for a reason of its own.
pub(super) fn ended(
    rule: &Rule,
    device: (DeviceId, &Serial),
    (since, values): (Option<DateTime<Utc>>, &Map<String, Value>),
    reason: Reason,
    now: DateTime<Utc>,
) -> Told {
    let message = match reason {
        Reason::Cleared => "it is over",
        Reason::RuleChanged => "the rule has another condition",
        Reason::RuleDisabled => "the rule was disabled",
        Reason::RuleDeleted => "the rule was deleted",
        Reason::OutOfScope => "the rule is not for this device any more",
        Reason::DeviceGone => "the device was deleted or begins anew",
    };
    let transition = Transition {
        to: State::Resolved,
        at: now,
    };
    let what = What {
        since,
        values,
        reason: Some(reason),
        message: message.to_owned(),
    };
    of(rule, device, transition, what)
}

/// What happened.
struct What<'a> {
    /// Since when the condition held.
    since: Option<DateTime<Utc>>,
    values: &'a Map<String, Value>,
    /// Why it is over; `None` if it fires.
    reason: Option<Reason>,
    message: String,
}

fn of(rule: &Rule, (device_id, serial): (DeviceId, &Serial), transition: Transition, what: What<'_>) -> Told {
    let definition = &rule.definition;
    let (alert, title) = (rule.name.clone(), definition.title.clone());
    let (severity, condition) = (definition.severity.to_string(), definition.condition.to_string());
    let What { since, message, .. } = what;
    let values = Value::Object(what.values.clone());
    let facts = match what.reason {
        None => Facts::AlertFiring {
            alert,
            title,
            severity,
            condition,
            since: since.unwrap_or(transition.at),
            values,
            message,
        },
        Some(reason) => Facts::AlertResolved {
            alert,
            title,
            severity,
            condition,
            since,
            values,
            reason,
            message,
        },
    };
    // What webhooks are told is made of the timeline's entry in the same way (`migrations/0115_webhooks.sql`).
    let mut event = facts.to_json();
    if let Value::Object(event) = &mut event {
        event.insert("serial".to_owned(), json!(serial));
        event.insert("state".to_owned(), json!(transition.to));
        event.insert("at".to_owned(), json!(transition.at));
    }
    Told {
        device_id,
        serial: serial.clone(),
        transition,
        facts,
        event,
    }
}

/// Where a device stands, as a sentence for people.
pub(super) fn standing(
    rule: &Rule,
    standing: &Standing,
    values: &Map<String, Value>,
    now: DateTime<Utc>,
) -> String {
    let told = alert::Told {
        condition: &rule.definition.condition,
        standing,
        values,
        timing: timing(rule),
    };
    sentence(&told, now)
}
