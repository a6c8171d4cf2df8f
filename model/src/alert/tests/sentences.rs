//! What people read.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::{
    alert::{Standing, State, Timing, Told, sentence},
    settings::testing::document,
};

fn at(minute: i64) -> DateTime<Utc> {
    "2026-01-15T14:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::minutes(minute)
}

fn told(condition: &str, standing: &Standing, values: Value) -> String {
    let timing = Timing {
        hold: TimeDelta::minutes(5),
        resolve_after: TimeDelta::minutes(5),
        begun: at(-10),
    };
    let told = Told {
        condition: &condition.parse().unwrap(),
        standing,
        values: &document(values),
        timing,
    };
    sentence(&told, at(60))
}

fn standing(state: State, true_since: i64, false_since: Option<i64>) -> Standing {
    Standing {
        state,
        since: at(true_since),
        true_since: Some(at(true_since)),
        false_since: false_since.map(at),
        observed_at: None,
    }
}

#[test]
fn each_state_has_its_sentence() {
    let hot = json!({"temperature": 31.5});
    let firing = standing(State::Firing, 2, None);
    for (condition, standing, values, expected) in [
        (
            "temperature > 30 for 5m",
            firing,
            hot.clone(),
            "temperature is 31.5, above 30 since 14:02",
        ),
        (
            "temperature > 30 clear 28",
            firing,
            json!({"temperature": 29}),
            "temperature is 29, not back to 28 yet since 14:02",
        ),
        (
            "temperature >= 30 and door == true and mode != \"off\"",
            firing,
            json!({"temperature": 31, "door": true, "mode": "heat"}),
            "temperature is 31, at least 30, and door is true, and mode is \"heat\", not \"off\" since 14:02",
        ),
        (
            "temperature < 5 for 5m",
            standing(State::Pending, 2, None),
            json!({"temperature": 4}),
            "temperature is 4, below 5 since 14:02, fires at 14:07",
        ),
        (
            "temperature > 30 for 5m",
            standing(State::Firing, 2, Some(20)),
            json!({"temperature": 25}),
            "no longer so since 14:20: temperature is 25, resolved at 14:25 if it stays so",
        ),
        (
            "temperature > 30",
            standing(State::Resolved, 2, None),
            json!({"temperature": 25}),
            "over since 14:02: temperature is 25",
        ),
        (
            "no telemetry for 15m",
            firing,
            json!({}),
            "no telemetry since 14:02",
        ),
        (
            "no temperature for 15m",
            firing,
            json!({}),
            "no temperature since 14:02",
        ),
        (
            "offline for 15m",
            standing(State::Firing, -24 * 60, None),
            json!({}),
            "offline since 2026-01-14 14:00",
        ),
        (
            "settings pending for 15m",
            firing,
            json!({}),
            "settings pending since 14:02",
        ),
        ("offline", Standing::ok(at(0)), json!({}), "all is well"),
    ] {
        assert_eq!(told(condition, &standing, values), expected);
    }
}
