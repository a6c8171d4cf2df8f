//! Schedules of devices and of groups: reading them. [`write`] changes them, [`preview`] tells what will hold when.

mod preview;
mod write;

use setpoint_model::{
    GroupName, Serial,
    schedule::{ScheduleName, State},
};
use setpoint_store::{
    devices::Device,
    schedules::{Holder, StoredSchedule},
};

use super::{Actor, App, Error, policy::Action};
pub use preview::{Forecast, Span};

/// No such schedule.
const NOT_FOUND: Error = Error::NotFound { what: "schedule" };

/// Whose schedules are meant, by the name they go by outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// A device's.
    Device(Serial),
    /// A group's.
    Group(GroupName),
}

impl Whose {
    /// Whose they are, as the audit log has it.
    fn object(&self) -> String {
        match self {
            Self::Device(serial) => format!("device:{serial}"),
            Self::Group(name) => format!("group:{name}"),
        }
    }
}

/// A schedule, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The schedule.
    pub schedule: StoredSchedule,
    /// Where it stands now; unknown for a group's, whose members may be in several zones.
    pub state: Option<State>,
}

/// The holder of schedules as it was found.
enum Found {
    Device(Box<Device>),
    Group(String),
}

impl Found {
    fn holder(&self) -> Holder {
        match self {
            Self::Device(device) => Holder::Device(device.id),
            Self::Group(name) => Holder::Group(name.clone()),
        }
    }
}

impl App {
    /// A page of schedules by name, those behind `after`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:read`; [`Error::NotFound`] for the device or group.
    pub async fn schedules(
        &self,
        actor: &Actor,
        whose: &Whose,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Shown>, Error> {
        let found = self.found(actor, Action::ReadSchedules, whose).await?;
        let schedules = self.store.schedules(&found.holder(), after, limit).await?;
        let shown = |schedule| self.shown(&found, schedule);
        Ok(schedules.into_iter().map(shown).collect())
    }

    /// One schedule.
    ///
    /// # Errors
    /// As [`Self::schedules`]; [`Error::NotFound`] also for the schedule.
    pub async fn schedule(&self, actor: &Actor, whose: &Whose, name: &ScheduleName) -> Result<Shown, Error> {
        let found = self.found(actor, Action::ReadSchedules, whose).await?;
        let schedule = self.store.schedule(&found.holder(), name).await?;
        Ok(self.shown(&found, schedule.ok_or(NOT_FOUND)?))
    }

    /// The device or group, for an actor who may do this with it.
    async fn found(&self, actor: &Actor, action: Action, whose: &Whose) -> Result<Found, Error> {
        match whose {
            Whose::Device(serial) => {
                self.authorize_device(actor, action, serial).await?;
                let device = self.store.device(serial).await?;
                let device = device.ok_or(Error::NotFound { what: "device" })?;
                Ok(Found::Device(Box::new(device)))
            }
            Whose::Group(name) => {
                self.authorize_all(actor, action)?;
                let group = self.store.group(name.as_str(), self.clock.now()).await?;
                let group = group.ok_or(Error::NotFound { what: "group" })?;
                Ok(Found::Group(group.name))
            }
        }
    }

    fn shown(&self, found: &Found, schedule: StoredSchedule) -> Shown {
        let state = match found {
            Found::Device(device) => {
                let zone = device.description.time_zone;
                Some(schedule.definition.state(zone, self.clock.now()))
            }
            Found::Group(_) => None,
        };
        Shown { schedule, state }
    }
}
