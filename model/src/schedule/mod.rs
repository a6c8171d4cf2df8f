//! Schedules: settings that hold at certain times, in the time zone of each device.
//!
//! A schedule is weekly (certain days, from one time of day to another) or a single period. [`windows`] turns it
//! into stretches of time, right across changes of the clock; [`in_force`] says which schedules hold when, and over
//! which others.

mod definition;
pub mod in_force;
mod local;
mod name;
mod plan;
#[cfg(test)]
mod tests;
mod told;
pub mod windows;

pub use definition::Definition;
pub use in_force::{Interval, State, active, next_boundary, preview};
pub use name::{InvalidScheduleName, ScheduleName};
pub use plan::{Days, Period, Plan, TimeOfDay};
pub use told::told;
pub use windows::Window;

/// The key of the settings document under which a device finds its schedules, if its model asks for them.
pub const DOCUMENT_KEY: &str = "schedules";

/// Whose schedule it is, in the order in which schedules of equal priority yield: a group's to a device's own, and
/// among groups as their settings do, by the group's priority and then its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A group's, for each of its members.
    Group {
        /// The group's priority.
        priority: i32,
        /// The group's name.
        name: String,
    },
    /// The device's own.
    Device,
}

/// A schedule as it applies to a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Whose it is.
    pub owner: Owner,
    /// Its name: unique among those of its owner.
    pub name: ScheduleName,
    /// When it holds, and what it sets.
    pub definition: Definition,
}

impl Schedule {
    /// The place among schedules that hold at once; of two that set the same key the one behind wins. By priority,
    /// then owner, then name.
    pub fn rank(&self) -> impl Ord + '_ {
        (self.definition.priority, &self.owner, &self.name)
    }
}
