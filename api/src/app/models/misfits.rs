//! Stored values that a new schema doesn't take.

use serde::Serialize;
use setpoint_model::{Serial, settings::KeyErrors};
use setpoint_store::models::StoredSchedule;

/// The most devices that are listed, and the most groups and schedules; beyond them they are counted.
const MAX_LISTED: usize = 100;

/// What a new schema doesn't take of what is stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Misfits {
    /// The first of the devices on which such a value is set, by serial.
    pub devices: Vec<MisfitDevice>,
    /// How many devices there are.
    #[schema(example = 1)]
    pub devices_total: u64,
    /// The first of the groups that set such a value and have members of the model, by name.
    pub groups: Vec<MisfitGroup>,
    /// How many groups there are.
    #[schema(example = 0)]
    pub groups_total: u64,
    /// The first of the schedules that set such a value on devices of the model.
    pub schedules: Vec<MisfitSchedule>,
    /// How many schedules there are.
    #[schema(example = 0)]
    pub schedules_total: u64,
}

/// A schedule that sets a value which the new schema doesn't take, and the old one did.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct MisfitSchedule {
    /// Its name.
    #[schema(example = "night")]
    pub name: String,
    /// The serial of its device; null for a group's.
    #[schema(example = "HOME-1")]
    pub serial: Option<String>,
    /// The name of its group; null for a device's.
    pub group: Option<String>,
    /// The model.
    #[schema(example = "home")]
    pub model: String,
    /// Setting key to the rule that its value breaks.
    #[schema(example = json!({"reportInterval": "must be from 10 to 600"}))]
    pub errors: KeyErrors,
}

/// A group that sets a value which the new schema doesn't take, and the old one did.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct MisfitGroup {
    /// Its name.
    #[schema(example = "oslo")]
    pub name: String,
    /// The model.
    #[schema(example = "home")]
    pub model: String,
    /// Setting key to the rule that its value breaks.
    #[schema(example = json!({"reportInterval": "must be from 10 to 600"}))]
    pub errors: KeyErrors,
}

/// A device on which a value is set that the new schema doesn't take.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct MisfitDevice {
    /// Its serial.
    #[schema(value_type = String, example = "HOME-1")]
    pub serial: Serial,
    /// Its model.
    #[schema(example = "home")]
    pub model: String,
    /// Setting key to the rule that its value breaks.
    #[schema(example = json!({"reportInterval": "must be from 10 to 600"}))]
    pub errors: KeyErrors,
}

impl Misfits {
    pub(super) fn device(&mut self, model: &str, serial: Serial, errors: KeyErrors) {
        self.devices_total = self.devices_total.saturating_add(1);
        if self.devices.len() < MAX_LISTED {
            let model = model.to_owned();
            self.devices.push(MisfitDevice {
                serial,
                model,
                errors,
            });
        }
    }

    pub(super) fn group(&mut self, model: &str, name: String, errors: KeyErrors) {
        self.groups_total = self.groups_total.saturating_add(1);
        if self.groups.len() < MAX_LISTED {
            let model = model.to_owned();
            self.groups.push(MisfitGroup { name, model, errors });
        }
    }

    pub(super) fn schedule(&mut self, model: &str, schedule: StoredSchedule, errors: KeyErrors) {
        self.schedules_total = self.schedules_total.saturating_add(1);
        if self.schedules.len() < MAX_LISTED {
            self.schedules.push(MisfitSchedule {
                name: schedule.name,
                serial: schedule.serial,
                group: schedule.group,
                model: model.to_owned(),
                errors,
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.devices_total == 0 && self.groups_total == 0 && self.schedules_total == 0
    }

    /// It all in one sentence.
    pub fn sentence(&self) -> String {
        let places = [
            (self.devices_total, "device"),
            (self.groups_total, "group"),
            (self.schedules_total, "schedule"),
        ];
        let places = places.into_iter().filter(|(total, _)| *total > 0);
        let places = places.map(|(total, place)| match total {
            1 => format!("1 {place}"),
            total => format!("{total} {place}s"),
        });
        format!(
            "values that are set on {} break the new rules: change them first, or say in `migrate` what replaces them",
            places.collect::<Vec<_>>().join(" and ")
        )
    }
}
