//! Which schedules hold when, and in which order they lie over each other.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use super::{Definition, Plan, Schedule, Window};

/// How far ahead a weekly schedule's next boundary is looked for. It comes within a week, or within two where a zone
/// left a whole day out; a schedule without one in this time always holds.
const HORIZON: TimeDelta = TimeDelta::days(16);

/// Where a schedule stands at a certain time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ScheduleState)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is not enabled.
    Disabled,
    /// It will hold.
    Waiting,
    /// It holds.
    Active,
    /// A single period that has passed: it does nothing any more.
    Over,
}

impl Definition {
    /// Where it stands on a device of this zone.
    pub fn state(&self, zone: Tz, at: DateTime<Utc>) -> State {
        if self.plan.is_over(zone, at) {
            State::Over
        } else if !self.enabled {
            State::Disabled
        } else if self.plan.holds(zone, at) {
            State::Active
        } else {
            State::Waiting
        }
    }
}

/// A time throughout which the same schedules hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Interval<'a> {
    /// The first instant.
    pub from: DateTime<Utc>,
    /// The first instant that is no longer in it.
    pub to: DateTime<Utc>,
    /// At least one schedule, in the order of [`Schedule::rank`]: the last one wins.
    pub schedules: Vec<&'a Schedule>,
}

/// The schedules that hold at an instant, in the order of [`Schedule::rank`]: the last one wins.
pub fn active<'a>(
    schedules: impl IntoIterator<Item = &'a Schedule>,
    zone: Tz,
    at: DateTime<Utc>,
) -> Vec<&'a Schedule> {
    let holds =
        |schedule: &&Schedule| schedule.definition.enabled && schedule.definition.plan.holds(zone, at);
    let mut active: Vec<&Schedule> = schedules.into_iter().filter(holds).collect();
    active.sort_by(|one, other| one.rank().cmp(&other.rank()));
    active
}

/// The first instant behind `after` at which a schedule begins or ends to hold; `None` if none ever does again.
pub fn next_boundary<'a>(
    schedules: impl IntoIterator<Item = &'a Schedule>,
    zone: Tz,
    after: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let horizon = after.checked_add_signed(HORIZON)?;
    let enabled = schedules
        .into_iter()
        .filter(|schedule| schedule.definition.enabled);
    let next = |schedule: &Schedule| {
        let plan = &schedule.definition.plan;
        // Behind the horizon a weekly plan's windows are cut off, not ended.
        let real = |boundary: &DateTime<Utc>| matches!(plan, Plan::Once(_)) || *boundary <= horizon;
        let windows = plan.windows(zone, after, horizon).into_iter();
        let boundaries = windows.flat_map(|window| [window.start, window.end]);
        boundaries
            .filter(|boundary| *boundary > after && real(boundary))
            .min()
    };
    enabled.filter_map(next).min()
}

/// What holds from `from` until `until`, in order; times in which no schedule holds are left out.
pub fn preview<'a>(
    schedules: impl IntoIterator<Item = &'a Schedule>,
    zone: Tz,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> impl Iterator<Item = Interval<'a>> {
    let enabled = schedules
        .into_iter()
        .filter(|schedule| schedule.definition.enabled);
    let mut holding: Vec<(&Schedule, Vec<Window>)> = enabled
        .map(|schedule| (schedule, schedule.definition.plan.windows(zone, from, until)))
        .collect();
    holding.sort_by(|(one, _), (other, _)| one.rank().cmp(&other.rank()));
    let mut cuts: Vec<DateTime<Utc>> = holding
        .iter()
        .flat_map(|(_, windows)| windows.iter().flat_map(|window| [window.start, window.end]))
        .filter(|cut| from < *cut && *cut < until)
        .chain([from, until.max(from)])
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let starts = cuts.clone().into_iter();
    starts
        .zip(cuts.into_iter().skip(1))
        .filter_map(move |(from, to)| {
            let mut schedules = Vec::new();
            for (schedule, windows) in &holding {
                let next = windows.partition_point(|window| window.end <= from);
                if windows.get(next).is_some_and(|window| window.contains(from)) {
                    schedules.push(*schedule);
                }
            }
            let interval = Interval { from, to, schedules };
            (!interval.schedules.is_empty()).then_some(interval)
        })
}
