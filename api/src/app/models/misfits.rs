//! Stored values that a new schema doesn't take.

use serde::Serialize;
use setpoint_model::{Serial, settings::KeyErrors};

/// The most devices that are listed; beyond them they are counted.
const MAX_LISTED: usize = 100;

/// What a new schema doesn't take of what is stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Misfits {
    /// The first of the devices on which such a value is set, by serial.
    pub devices: Vec<MisfitDevice>,
    /// How many devices there are.
    #[schema(example = 1)]
    pub devices_total: u64,
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

    pub(super) fn is_empty(&self) -> bool {
        self.devices_total == 0
    }

    /// It all in one sentence.
    pub fn sentence(&self) -> String {
        let devices = if self.devices_total == 1 {
            "device"
        } else {
            "devices"
        };
        format!(
            "values that are set on {} {devices} break the new rules: change them first, or say in `migrate` what \
             replaces them",
            self.devices_total
        )
    }
}
