//! What schedules will do: which hold when, and what they set together.

use std::{borrow::Cow, collections::BTreeMap};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use setpoint_model::{
    schedule::{Interval, Owner, Schedule, preview},
    settings::{Document, Effective, Layer, Origin, Schema, layers::effective},
};

use super::{Found, Whose};
use crate::app::{Actor, App, Error, policy::Action};

/// The time that a preview covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first instant.
    pub from: DateTime<Utc>,
    /// The first instant that is no longer in it.
    pub until: DateTime<Utc>,
}

/// What holds from one time to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// The first instant.
    pub from: DateTime<Utc>,
    /// The first instant that is no longer in it.
    pub to: DateTime<Utc>,
    /// What the schedules set together.
    pub settings: Document,
    /// Key to the schedule its value comes from: `schedule:NAME`.
    pub origins: BTreeMap<String, String>,
    /// The schedule that lies over all others.
    pub schedule: String,
    /// The group it belongs to; `None` for the device's own.
    pub group: Option<String>,
}

impl App {
    /// What schedules will set on a device, or on members of a group that are in `zone` (UTC without one): the first
    /// `most` intervals, in order. Times in which no schedule holds are left out.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:read`; [`Error::NotFound`]; [`Error::Invalid`] for `days`, if it is too
    /// long, and for `time_zone`, which a device has of its own.
    pub async fn preview_schedules(
        &self,
        actor: &Actor,
        whose: &Whose,
        Span { from, until }: Span,
        zone: Option<Tz>,
        most: usize,
    ) -> Result<Vec<Forecast>, Error> {
        let found = self.found(actor, Action::ReadSchedules, whose).await?;
        let days = self.schedule_limits.max_preview_days;
        if until - from > TimeDelta::days(days.into()) {
            return Err(Error::invalid("days", format!("1 to {days}")));
        }
        let (schedules, zone, schema) = match &found {
            Found::Device(_) if zone.is_some() => {
                return Err(Error::invalid("time_zone", "a device has its own"));
            }
            Found::Device(device) => {
                let schedules = self.store.schedules_applying(device.id).await?;
                let schema = self.schema(&device.description.model).await?;
                (schedules, device.description.time_zone, schema)
            }
            Found::Group(name) => {
                let schedules = self.store.schedules_of_group(name).await?;
                (schedules, zone.unwrap_or(Tz::UTC), None)
            }
        };
        let intervals = preview(&schedules, zone, from, until).take(most);
        Ok(intervals
            .map(|interval| forecast(&interval, schema.as_deref()))
            .collect())
    }
}

/// An interval as people want to see it: what all of its schedules set together, of what the model takes.
fn forecast(interval: &Interval<'_>, schema: Option<&Schema>) -> Forecast {
    let layer = |schedule: &&Schedule| {
        let settings = &schedule.definition.settings;
        Layer {
            origin: Origin::Schedule(schedule.name.to_string()),
            values: match schema {
                Some(schema) => Cow::Owned(schema.accepted(settings)),
                None => Cow::Owned(settings.clone()),
            },
        }
    };
    let Effective { document, origins } = effective(interval.schedules.iter().map(layer));
    let top = interval.schedules.last();
    Forecast {
        from: interval.from,
        to: interval.to,
        settings: document,
        origins,
        schedule: top.map(|top| top.name.to_string()).unwrap_or_default(),
        group: top.and_then(|top| match &top.owner {
            Owner::Group { name, .. } => Some(name.clone()),
            Owner::Device => None,
        }),
    }
}
