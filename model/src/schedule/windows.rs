//! The stretches of time in which a plan holds.

use chrono::{DateTime, Days as Count, NaiveDate, NaiveDateTime, Utc};
use chrono_tz::Tz;

use super::{Days, Period, Plan, TimeOfDay, local};

/// How many days before a date's own the windows that may reach into it began: one that crosses midnight is of the
/// day before, a clock that is set back by a day (as at the date line) adds one, and one is for good measure.
const DAYS_BEFORE: u64 = 3;
/// How many days later: the clock may be set back over midnight.
const DAYS_AFTER: u64 = 2;

/// A stretch of time: from its start to before its end. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first instant.
    pub start: DateTime<Utc>,
    /// The first instant that is no longer in it.
    pub end: DateTime<Utc>,
}

impl Window {
    /// Whether the instant is in it.
    pub fn contains(&self, at: DateTime<Utc>) -> bool {
        self.start <= at && at < self.end
    }
}

impl Plan {
    /// Every window that has any of the time from `from` to `until` in it (and perhaps neighbours), in order, those
    /// that touch or overlap made one. Near `from` and `until` they may begin earlier and end later than told here.
    pub fn windows(&self, zone: Tz, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<Window> {
        match *self {
            Self::Weekly {
                days,
                from: begin,
                to,
            } => weekly(days, begin, to, zone, from, until),
            Self::Once(period) => period.window(zone).into_iter().collect(),
        }
    }

    /// Whether it holds at an instant.
    pub fn holds(&self, zone: Tz, at: DateTime<Utc>) -> bool {
        let windows = self.windows(zone, at, at);
        windows.iter().any(|window| window.contains(at))
    }

    /// Whether it will never hold again.
    pub fn is_over(&self, zone: Tz, at: DateTime<Utc>) -> bool {
        match self {
            Self::Weekly { .. } => false,
            Self::Once(period) => period.window(zone).is_none_or(|window| window.end <= at),
        }
    }
}

impl Period {
    /// `None` if all of it lies in a time that the zone's clocks leave out.
    fn window(self, zone: Tz) -> Option<Window> {
        let (start, end) = match self {
            Self::Absolute { starts_at, ends_at } => (starts_at, ends_at),
            Self::Local { starts_at, ends_at } => (local::begin(starts_at, zone), local::end(ends_at, zone)),
        };
        (start < end).then_some(Window { start, end })
    }
}

fn weekly(
    days: Days,
    from: TimeOfDay,
    to: TimeOfDay,
    zone: Tz,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Vec<Window> {
    let date = |at: DateTime<Utc>| at.with_timezone(&zone).date_naive();
    let first = date(since)
        .checked_sub_days(Count::new(DAYS_BEFORE))
        .unwrap_or(NaiveDate::MIN);
    let last = date(until)
        .checked_add_days(Count::new(DAYS_AFTER))
        .unwrap_or(NaiveDate::MAX);
    let mut windows: Vec<Window> = Vec::new();
    for date in first.iter_days().take_while(|date| *date <= last) {
        let Some((begin, finish)) = times(date, from, to).filter(|_| days.contains(date)) else {
            continue;
        };
        let (start, end) = (local::begin(begin, zone), local::end(finish, zone));
        match windows.last_mut() {
            Some(before) if start <= before.end => before.end = before.end.max(end),
            // Empty: all of it lies in a gap.
            _ if start >= end => {}
            _ => windows.push(Window { start, end }),
        }
    }
    windows
}

/// The local times between which a date's window lies.
fn times(date: NaiveDate, from: TimeOfDay, to: TimeOfDay) -> Option<(NaiveDateTime, NaiveDateTime)> {
    let until = if from < to { date } else { date.succ_opt()? };
    Some((date.and_time(from.time()), until.and_time(to.time())))
}
