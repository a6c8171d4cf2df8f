//! What docs/schedules.md says of changes of the clock, and of order.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::{super::*, schedule};

const EVERY: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn daily(name: &str, from: &str, to: &str) -> Schedule {
    schedule(name, json!({"days": EVERY, "from": from, "to": to}))
}

/// What holds from one time to another: start, end and the names, later ones over earlier.
fn shown(schedules: &[Schedule], zone: &str, from: &str, until: &str) -> Vec<(String, String, String)> {
    let zone: Tz = zone.parse().unwrap();
    let text = |at: DateTime<Utc>| at.format("%dT%H:%M").to_string();
    preview(schedules, zone, at(from), at(until))
        .map(|interval| {
            let names: Vec<&str> = interval.schedules.iter().map(|s| s.name.as_str()).collect();
            (text(interval.from), text(interval.to), names.join(" "))
        })
        .collect()
}

fn expect(shown: Vec<(String, String, String)>, expected: &[(&str, &str, &str)]) {
    let shown: Vec<(&str, &str, &str)> = shown.iter().map(|(a, b, c)| (&**a, &**b, &**c)).collect();
    assert_eq!(shown, expected);
}

/// Europe/Oslo on 29 March 2026: 02:00 to 03:00 (01:00Z) is missing.
fn spring(from: &str, to: &str) -> Vec<(String, String, String)> {
    let schedules = [daily("x", from, to)];
    shown(
        &schedules,
        "Europe/Oslo",
        "2026-03-28T12:00:00Z",
        "2026-03-29T12:00:00Z",
    )
}

/// Europe/Oslo on 25 October 2026: 02:00 to 03:00 comes twice, from 00:00Z and from 01:00Z.
fn autumn(from: &str, to: &str) -> Vec<(String, String, String)> {
    let schedules = [daily("x", from, to)];
    shown(
        &schedules,
        "Europe/Oslo",
        "2026-10-24T12:00:00Z",
        "2026-10-25T12:00:00Z",
    )
}

#[test]
fn a_boundary_in_the_missing_hour_happens_behind_it() {
    expect(spring("02:30", "05:00"), &[("29T01:00", "29T03:00", "x")]);
    expect(spring("22:00", "02:30"), &[("28T21:00", "29T01:00", "x")]);
    expect(spring("02:10", "02:50"), &[]);
    expect(spring("02:00", "03:00"), &[]);
    expect(spring("01:00", "04:00"), &[("29T00:00", "29T02:00", "x")]);
}

#[test]
fn in_the_doubled_hour_a_window_lasts_from_the_first_start_to_the_last_end() {
    expect(autumn("02:10", "02:50"), &[("25T00:10", "25T01:50", "x")]);
    expect(autumn("22:00", "02:30"), &[("24T20:00", "25T01:30", "x")]);
    expect(autumn("02:30", "05:00"), &[("25T00:30", "25T04:00", "x")]);
    expect(autumn("01:00", "04:00"), &[("24T23:00", "25T03:00", "x")]);
    expect(autumn("02:00", "03:00"), &[("25T00:00", "25T02:00", "x")]);
}

#[test]
fn at_the_edges_of_the_doubled_hour_nothing_is_doubled() {
    // The clock goes back to 02:00, never to a time before it.
    expect(autumn("22:00", "02:00"), &[("24T20:00", "25T00:00", "x")]);
    expect(autumn("03:00", "05:00"), &[("25T02:00", "25T04:00", "x")]);
}

#[test]
fn a_day_that_a_zone_left_out_has_no_windows() {
    // Samoa went from Thursday, 29 December 2011 to Saturday, the 31st, at 10:00Z on the 30th.
    let apia = |days: Value, from: &str, to: &str| {
        let schedules = [schedule("x", json!({"days": days, "from": from, "to": to}))];
        shown(
            &schedules,
            "Pacific/Apia",
            "2011-12-28T12:00:00Z",
            "2012-01-01T00:00:00Z",
        )
    };
    expect(apia(json!(["fri"]), "09:00", "17:00"), &[]);
    expect(
        apia(json!(["thu"]), "22:00", "06:00"),
        &[("30T08:00", "30T10:00", "x")],
    );
    expect(
        apia(json!(["fri"]), "22:00", "06:00"),
        &[("30T10:00", "30T16:00", "x")],
    );
    let fridays = [schedule(
        "x",
        json!({"days": ["fri"], "from": "09:00", "to": "17:00"}),
    )];
    let next = next_boundary(&fridays, chrono_tz::Pacific::Apia, at("2011-12-24T12:00:00Z"));
    assert_eq!(next, Some(at("2012-01-05T19:00:00Z")), "two weeks later");
}

#[test]
fn equal_times_are_a_whole_day() {
    let sunday = [schedule(
        "x",
        json!({"days": ["sun"], "from": "00:00", "to": "00:00"}),
    )];
    let oslo = |from, until| shown(&sunday, "Europe/Oslo", from, until);
    expect(
        oslo("2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"),
        &[("24T22:00", "25T23:00", "x")],
    );
    let always = [daily("x", "07:00", "07:00")];
    assert_eq!(
        next_boundary(&always, Tz::Europe__Oslo, at("2026-01-01T00:00:00Z")),
        None
    );
    assert_eq!(
        active(&always, Tz::Europe__Oslo, at("2026-01-01T00:00:00Z")).len(),
        1
    );
}

#[test]
fn a_single_period_is_absolute_or_by_the_devices_clock() {
    let fixed = [schedule(
        "x",
        json!({"starts_at": "2026-07-01T12:00:00+02:00", "ends_at": "2026-07-01T13:00:00+02:00"}),
    )];
    let local = [schedule(
        "x",
        json!({"starts_at": "2026-07-01T12:00", "ends_at": "2026-07-01T13:00:00"}),
    )];
    let day = ("2026-07-01T00:00:00Z", "2026-07-02T00:00:00Z");
    expect(
        shown(&fixed, "Asia/Kolkata", day.0, day.1),
        &[("01T10:00", "01T11:00", "x")],
    );
    expect(
        shown(&local, "Asia/Kolkata", day.0, day.1),
        &[("01T06:30", "01T07:30", "x")],
    );
    let (before, after) = (at("2026-07-01T07:29:59Z"), at("2026-07-01T07:30:00Z"));
    let state = |at: DateTime<Utc>| local[0].definition.state(Tz::Asia__Kolkata, at);
    assert_eq!(state(at("2026-07-01T06:29:59Z")), State::Waiting);
    assert_eq!((state(before), state(after)), (State::Active, State::Over));
    assert_eq!(next_boundary(&local, Tz::Asia__Kolkata, before), Some(after));
    assert_eq!(next_boundary(&local, Tz::Asia__Kolkata, after), None);
}

#[test]
fn a_disabled_schedule_does_nothing() {
    let off = [schedule(
        "x",
        json!({"days": EVERY, "from": "00:00", "to": "12:00", "enabled": false}),
    )];
    let noon = at("2026-01-01T06:00:00Z");
    assert_eq!(off[0].definition.state(Tz::UTC, noon), State::Disabled);
    assert!(active(&off, Tz::UTC, noon).is_empty());
    assert_eq!(next_boundary(&off, Tz::UTC, noon), None);
    assert_eq!(
        preview(&off, Tz::UTC, noon, at("2026-01-09T00:00:00Z")).count(),
        0
    );
}

#[test]
fn the_order_is_by_priority_then_owner_then_name() {
    let made = |owner: &str, name: &str, priority: i32| {
        let owner = match owner.split_once(':') {
            Some((group, priority)) => Owner::Group {
                priority: priority.parse().unwrap(),
                name: group.to_owned(),
            },
            None => Owner::Device,
        };
        let fields = json!({"days": EVERY, "from": "00:00", "to": "00:00", "priority": priority});
        Schedule {
            owner,
            ..schedule(name, fields)
        }
    };
    let schedules = [
        made("device", "a", 1),
        made("device", "b", 0),
        made("device", "a", 0),
        made("site:2", "z", 0),
        made("floor:10", "y", 0),
        made("room:2", "x", 0),
        made("site:2", "low", -1),
    ];
    let order: Vec<(i32, &str)> = active(&schedules, Tz::UTC, at("2026-01-01T00:00:00Z"))
        .iter()
        .map(|s| (s.definition.priority, s.name.as_str()))
        .collect();
    assert_eq!(
        order,
        [
            (-1, "low"),
            (0, "x"),
            (0, "z"),
            (0, "y"),
            (0, "a"),
            (0, "b"),
            (1, "a")
        ]
    );
}

#[test]
fn overlaps_are_cut_where_something_changes() {
    let schedules = [daily("night", "22:00", "06:00"), daily("early", "05:00", "07:00")];
    expect(
        shown(&schedules, "UTC", "2026-01-01T12:00:00Z", "2026-01-02T12:00:00Z"),
        &[
            ("01T22:00", "02T05:00", "night"),
            ("02T05:00", "02T06:00", "early night"),
            ("02T06:00", "02T07:00", "early"),
        ],
    );
    let nothing = preview(
        &schedules,
        Tz::UTC,
        at("2026-01-02T00:00:00Z"),
        at("2026-01-01T00:00:00Z"),
    );
    assert_eq!(nothing.count(), 0);
}
