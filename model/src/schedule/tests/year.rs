//! A whole year, minute by minute, against the engine. The model knows of a zone only what its clock shows at each
//! minute, and of the rule only its two sentences: a window begins when the clock first shows its start or a later
//! time, and ends when the clock will never again show a time before its end.

use std::sync::LazyLock;

use chrono::{DateTime, Duration, NaiveDate, NaiveDateTime, Offset, TimeZone, Utc, Weekday};
use chrono_tz::Tz;
use proptest::prelude::*;

use super::super::*;
use crate::settings::Document;

/// Zones with a year of theirs: an hour's shift on either side of the world, one of half an hour, of two hours, at
/// midnight and a minute past it, none at all, one around Ramadan, and a day left out.
const YEARS: [(Tz, i32); 12] = [
    (Tz::Europe__Oslo, 2026),
    (Tz::America__New_York, 2026),
    (Tz::Australia__Lord_Howe, 2026),
    (Tz::Antarctica__Troll, 2026),
    (Tz::America__Sao_Paulo, 2018),
    (Tz::America__Goose_Bay, 2010),
    (Tz::Asia__Kolkata, 2026),
    (Tz::Africa__Casablanca, 2026),
    (Tz::Pacific__Apia, 2011),
    (Tz::Pacific__Kwajalein, 1993),
    (Tz::Asia__Gaza, 2023),
    (Tz::America__Scoresbysund, 2024),
];

/// Made once: a year takes longer to look at than to compare with.
static CLOCKS: LazyLock<Vec<Clock>> = LazyLock::new(|| {
    YEARS
        .iter()
        .map(|(zone, year)| Clock::new(*zone, *year))
        .collect()
});

/// Days before and behind the year that the model also knows.
const MARGIN: i64 = 4;
const DAY: i64 = 24 * 60;

/// What a zone's clock shows over a year and its margins, in minutes of the local calendar.
#[derive(Debug)]
struct Clock {
    zone: Tz,
    year: i32,
    start: DateTime<Utc>,
    /// The latest time that the clock has shown up to each minute.
    shown: Vec<i64>,
    /// The earliest that it shows from each minute on.
    to_show: Vec<i64>,
    walls: Vec<i64>,
}

fn minute(local: NaiveDateTime) -> i64 {
    local.and_utc().timestamp().div_euclid(60)
}

impl Clock {
    fn new(zone: Tz, year: i32) -> Self {
        let first = |year| {
            NaiveDate::from_ymd_opt(year, 1, 1)
                .unwrap()
                .and_time(Default::default())
                .and_utc()
        };
        let start = first(year) - Duration::days(MARGIN);
        let length = (first(year + 1) - first(year)).num_minutes() + 2 * MARGIN * DAY;
        let walls: Vec<i64> = (0..length)
            .map(|offset| {
                let at = (start + Duration::minutes(offset)).naive_utc();
                minute(at + zone.offset_from_utc_datetime(&at).fix())
            })
            .collect();
        let (mut shown, mut to_show) = (walls.clone(), walls.clone());
        for index in 1..walls.len() {
            shown[index] = shown[index].max(shown[index - 1]);
            let back = walls.len() - 1 - index;
            to_show[back] = to_show[back].min(to_show[back + 1]);
        }
        Self {
            zone,
            year,
            start,
            shown,
            to_show,
            walls,
        }
    }

    fn at(&self, index: usize) -> DateTime<Utc> {
        self.start + Duration::minutes(i64::try_from(index).unwrap())
    }

    /// The minutes of the year itself.
    fn minutes(&self) -> std::ops::Range<usize> {
        let margin = usize::try_from(MARGIN * DAY).unwrap();
        margin..self.walls.len() - margin
    }

    /// Whether a window between two local times is open at this minute.
    fn open(&self, index: usize, begin: i64, end: i64) -> bool {
        self.shown[index] >= begin && self.to_show[index] < end
    }

    fn holds(&self, rule: &Rule, index: usize) -> bool {
        match *rule {
            Rule::Weekly { week, from, to } => {
                let dates = self.to_show[index].div_euclid(DAY) - 1..=self.shown[index].div_euclid(DAY);
                dates.into_iter().any(|date| {
                    // Day 0, 1 January 1970, was a Thursday.
                    let named = week[usize::try_from((date + 3).rem_euclid(7)).unwrap()];
                    named && self.open(index, date * DAY + from, date * DAY + to)
                })
            }
            Rule::Absolute(starts_at, ends_at) => starts_at <= self.at(index) && self.at(index) < ends_at,
            Rule::Local(starts_at, ends_at) => self.open(index, starts_at, ends_at),
        }
    }
}

/// A plan in minutes.
enum Rule {
    /// Days, Monday first; `to` is of the next day where it must be.
    Weekly {
        week: [bool; 7],
        from: i64,
        to: i64,
    },
    Absolute(DateTime<Utc>, DateTime<Utc>),
    Local(i64, i64),
}

fn of_day(time: TimeOfDay) -> i64 {
    minute(NaiveDate::default().and_time(time.time()))
}

impl From<Plan> for Rule {
    fn from(plan: Plan) -> Self {
        match plan {
            Plan::Weekly { days, from, to } => {
                let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
                let week = names.map(|name| days.names().any(|other| other == name));
                let (from, to) = (of_day(from), of_day(to));
                let to = if to > from { to } else { to + DAY };
                Self::Weekly { week, from, to }
            }
            Plan::Once(Period::Absolute { starts_at, ends_at }) => Self::Absolute(starts_at, ends_at),
            Plan::Once(Period::Local { starts_at, ends_at }) => {
                Self::Local(minute(starts_at), minute(ends_at))
            }
        }
    }
}

/// Minutes of a day, half of them about when clocks are changed.
fn time_of_day() -> impl Strategy<Value = TimeOfDay> {
    let minutes = prop_oneof![
        0_i64..DAY,
        0_i64..210,
        Just(0),
        (0_i64..8).prop_map(|half| half * 30)
    ];
    minutes.prop_map(|minutes| {
        format!("{:02}:{:02}", minutes / 60, minutes % 60)
            .parse()
            .unwrap()
    })
}

fn days() -> impl Strategy<Value = Days> {
    let days: Vec<Weekday> = (0..7).map(|n| Weekday::try_from(n).unwrap()).collect();
    prop_oneof![
        Just(Days::EVERY),
        prop::sample::subsequence(days, 1..7).prop_map(|days| days.into_iter().collect()),
    ]
}

fn period(year: i32) -> impl Strategy<Value = Plan> {
    (any::<bool>(), 0..364 * DAY, 1..10 * DAY).prop_map(move |(local, start, length)| {
        let begin = NaiveDate::from_ymd_opt(year, 1, 1)
            .unwrap()
            .and_time(Default::default());
        let starts_at = begin + Duration::minutes(start);
        let ends_at = starts_at + Duration::minutes(length);
        Plan::Once(if local {
            Period::Local { starts_at, ends_at }
        } else {
            let (starts_at, ends_at) = (starts_at.and_utc(), ends_at.and_utc());
            Period::Absolute { starts_at, ends_at }
        })
    })
}

fn plan(year: i32) -> impl Strategy<Value = Plan> {
    prop_oneof![
        4 => (days(), time_of_day(), time_of_day()).prop_map(|(days, from, to)| Plan::Weekly { days, from, to }),
        1 => period(year),
    ]
}

fn schedules(year: i32) -> impl Strategy<Value = Vec<Schedule>> {
    let one = (
        plan(year),
        -1..=1_i32,
        prop::bool::weighted(0.9),
        "[ab]",
        any::<bool>(),
    );
    prop::collection::vec(one, 1..4).prop_map(|made| {
        let schedule = |(plan, priority, enabled, name, own): (Plan, i32, bool, String, bool)| Schedule {
            owner: if own {
                Owner::Device
            } else {
                Owner::Group {
                    priority: 0,
                    name: "g".to_owned(),
                }
            },
            name: name.parse().unwrap(),
            definition: Definition {
                plan,
                settings: Document::new(),
                enabled,
                priority,
            },
        };
        made.into_iter().map(schedule).collect()
    })
}

/// A time of the year in which the same schedules hold, by their places in the list, the winner last.
type Stretch = (DateTime<Utc>, DateTime<Utc>, Vec<usize>);

/// The year by the model, minutes alike made one.
fn by_minutes(clock: &Clock, schedules: &[Schedule]) -> Vec<Stretch> {
    let mut order: Vec<usize> = (0..schedules.len()).collect();
    order.sort_by_key(|place| {
        let Schedule {
            owner,
            name,
            definition,
        } = &schedules[*place];
        (
            definition.priority,
            *owner == Owner::Device,
            name.as_str().to_owned(),
        )
    });
    order.retain(|place| schedules[*place].definition.enabled);
    let rules: Vec<Rule> = schedules
        .iter()
        .map(|schedule| schedule.definition.plan.into())
        .collect();
    let mut stretches: Vec<Stretch> = Vec::new();
    for index in clock.minutes() {
        let holding = order.iter().copied();
        let holding = holding.filter(|place| clock.holds(&rules[*place], index));
        let holding: Vec<usize> = holding.collect();
        let (from, to) = (clock.at(index), clock.at(index + 1));
        match stretches.last_mut() {
            Some((_, end, same)) if *same == holding => *end = to,
            _ => stretches.push((from, to, holding)),
        }
    }
    stretches
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn the_engine_agrees_with_every_minute_of_the_year(
        (clock, schedules) in (0..YEARS.len()).prop_flat_map(|place| {
            let clock = &CLOCKS[place];
            (Just(clock), schedules(clock.year))
        })
    ) {
        let zone = clock.zone;
        let expected = by_minutes(clock, &schedules);
        let place = |schedule: &Schedule| schedules.iter().position(|other| std::ptr::eq(other, schedule)).unwrap();
        let places = |holding: &[&Schedule]| holding.iter().map(|schedule| place(schedule)).collect::<Vec<_>>();
        let (from, until) = (clock.at(clock.minutes().start), clock.at(clock.minutes().end));

        let shown: Vec<Stretch> = preview(&schedules, zone, from, until)
            .map(|interval| (interval.from, interval.to, places(&interval.schedules)))
            .collect();
        let held: Vec<Stretch> = expected.iter().filter(|(_, _, holding)| !holding.is_empty()).cloned().collect();
        // Schedules of equal rank may stand in either order.
        let sorted = |stretches: Vec<Stretch>| -> Vec<Stretch> {
            let unique = schedules.iter().enumerate().all(|(place, one)| {
                schedules.iter().skip(place + 1).all(|other| one.rank().cmp(&other.rank()).is_ne())
            });
            let sort = |(from, to, mut holding): Stretch| {
                if !unique {
                    holding.sort_unstable();
                }
                (from, to, holding)
            };
            stretches.into_iter().map(sort).collect()
        };
        prop_assert_eq!(sorted(shown), sorted(held));

        // From boundary to boundary, each is the next one after any instant before it.
        for pair in expected.windows(2) {
            let (start, end, holding) = &pair[0];
            let mut now = places(&active(&schedules, zone, *start));
            let mut holding = holding.clone();
            now.sort_unstable();
            holding.sort_unstable();
            prop_assert_eq!(&now, &holding);
            for at in [*start, *start + (*end - *start) / 2, *end - Duration::milliseconds(1)] {
                prop_assert_eq!(next_boundary(&schedules, zone, at), Some(*end));
            }
        }
    }

    /// What people see: whenever the clock shows a time within a window, the window is open.
    #[test]
    fn no_window_is_shut_while_the_clock_shows_a_time_in_it(
        place in 0..YEARS.len(), from in time_of_day(), to in time_of_day()
    ) {
        let clock = &CLOCKS[place];
        let zone = clock.zone;
        let plan = Plan::Weekly { days: Days::EVERY, from, to };
        let windows = plan.windows(zone, clock.at(clock.minutes().start), clock.at(clock.minutes().end));
        let (from, to) = (of_day(from), of_day(to));
        for index in clock.minutes() {
            let wall = clock.walls[index].rem_euclid(DAY);
            let within = if from < to { from <= wall && wall < to } else { from <= wall || wall < to };
            if within {
                let at = clock.at(index);
                let next = windows.partition_point(|window| window.end <= at);
                prop_assert!(windows.get(next).is_some_and(|window| window.contains(at)), "{} at {}", zone, at);
            }
        }
    }
}
