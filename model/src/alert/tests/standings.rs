//! The states, step by step and against a plain description of them.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use crate::alert::{Standing, State, Timing, Transition};

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn timing(hold: i64, resolve_after: i64) -> Timing {
    Timing {
        hold: TimeDelta::seconds(hold),
        resolve_after: TimeDelta::seconds(resolve_after),
        begun: at(0),
    }
}

fn fires(second: i64) -> Transition {
    Transition {
        to: State::Firing,
        at: at(second),
    }
}

fn resolved(second: i64) -> Transition {
    Transition {
        to: State::Resolved,
        at: at(second),
    }
}

#[test]
fn it_fires_after_its_time_and_is_resolved_after_its_time() {
    let timing = timing(300, 120);
    let mut pair = Standing::ok(at(0));
    assert_eq!(pair.observe(true, at(10), timing), []);
    assert_eq!((pair.state, pair.due(timing)), (State::Pending, Some(at(310))));
    assert_eq!(pair.advance(at(309), timing), None);
    assert_eq!(
        pair.advance(at(1_000), timing),
        Some(fires(310)),
        "however late somebody looks"
    );
    assert_eq!((pair.since, pair.true_since), (at(310), Some(at(10))));
    // Over and back again within the time: still the same alert.
    assert_eq!(pair.observe(false, at(1_010), timing), []);
    assert_eq!(pair.due(timing), Some(at(1_130)));
    assert_eq!(pair.observe(true, at(1_100), timing), []);
    assert_eq!((pair.state, pair.due(timing)), (State::Firing, None));
    assert_eq!(pair.observe(false, at(1_200), timing), []);
    assert_eq!(pair.observe(false, at(1_319), timing), []);
    assert_eq!(
        pair.observe(true, at(1_320), timing),
        [resolved(1_320)],
        "and pending anew"
    );
    assert_eq!(pair.state, State::Pending);
}

#[test]
fn a_condition_that_is_over_before_its_time_was_nothing() {
    let timing = timing(300, 0);
    let mut pair = Standing::ok(at(0));
    pair.observe(true, at(10), timing);
    assert_eq!(pair.observe(false, at(309), timing), []);
    assert_eq!((pair.state, pair.true_since), (State::Ok, None));
    pair.observe(true, at(400), timing);
    // What is observed holds until the next observation.
    assert_eq!(pair.observe(false, at(700), timing), [fires(700), resolved(700)]);
}

#[test]
fn what_is_older_than_the_last_observation_changes_nothing() {
    let timing = timing(0, 0);
    let mut pair = Standing::ok(at(0));
    assert_eq!(pair.observe(true, at(10), timing), [fires(10)]);
    let before = pair;
    assert_eq!(pair.observe(false, at(9), timing), []);
    assert_eq!(pair, before);
}

#[test]
fn nothing_happens_before_the_rule_began() {
    let timing = Timing {
        begun: at(1_000),
        ..timing(300, 0)
    };
    let mut pair = Standing::ok(at(1_000));
    assert_eq!(pair.observe(true, at(10), timing), []);
    assert_eq!(pair.advance(at(1_000), timing), Some(fires(1_000)));
    assert_eq!(pair.true_since, Some(at(10)));
}

/// What happens, told second by second: an alert fires once the condition has held for `hold`, is resolved once it was
/// over for `resolve`.
fn described(series: &[(i64, bool)], hold: i64, resolve: i64, end: i64) -> Vec<Transition> {
    let value = |second: i64| {
        let before = series.iter().rev().find(|(at, _)| *at <= second);
        before.is_some_and(|(_, holds)| *holds)
    };
    let (mut firing, mut told) = (false, Vec::new());
    for second in 0..=end {
        // What held up to this second, then what is observed in it.
        for observed in [false, true] {
            let all = |wanted: bool, length: i64| match (length, observed) {
                (0, true) => value(second) == wanted,
                (0, false) | (_, true) => false,
                (_, false) => second >= length && (second - length..second).all(|s| value(s) == wanted),
            };
            if firing && all(false, resolve) {
                firing = false;
                told.push(resolved(second));
            } else if !firing && all(true, hold) {
                firing = true;
                told.push(fires(second));
            }
        }
    }
    told
}

proptest! {
    #[test]
    fn it_is_of_no_matter_when_somebody_looks(
        observed in prop::collection::btree_map(0_i64..60, any::<bool>(), 0..25),
        looks in prop::collection::btree_set(0_i64..90, 0..25),
        hold in 0_i64..8,
        resolve in 0_i64..8,
    ) {
        let series: Vec<(i64, bool)> = observed.into_iter().collect();
        let timing = timing(hold, resolve);
        let mut pair = Standing::ok(at(0));
        let mut told = Vec::new();
        for second in 0..=90 {
            for (_, holds) in series.iter().filter(|(at, _)| *at == second) {
                told.extend(pair.observe(*holds, at(second), timing));
            }
            if looks.contains(&second) {
                told.extend(pair.advance(at(second), timing));
            }
        }
        told.extend(pair.advance(at(90), timing));
        prop_assert_eq!(told, described(&series, hold, resolve, 90));
    }

    #[test]
    fn what_was_observed_before_may_be_observed_again(
        observed in prop::collection::btree_map(0_i64..60, any::<bool>(), 1..25),
        again in 0_usize..25,
        hold in 0_i64..8,
        resolve in 0_i64..8,
    ) {
        let series: Vec<(i64, bool)> = observed.into_iter().collect();
        let timing = timing(hold, resolve);
        let mut pair = Standing::ok(at(0));
        for (second, holds) in &series {
            pair.observe(*holds, at(*second), timing);
        }
        let before = pair;
        for (second, holds) in series.iter().skip(again) {
            prop_assert_eq!(pair.observe(*holds, at(*second), timing), []);
        }
        prop_assert_eq!(pair, before);
    }
}
