//! Settings: what each device should run, what it says it runs, and every version in between.
//!
//! All writers hold the models (shared), then lock a device's row in `devices` and then the one in `device_settings`,
//! devices in the order of their ids, so that no two can wait for each other.

mod change;
mod due;
mod history;
mod overdue;
mod publish;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use setpoint_model::{
    DeviceId, Serial,
    settings::{Document, Status},
};
use sqlx::types::Json;

use crate::{Result, Store};

pub use change::{AckedVersion, LockedSettings, NewVersion, Outcome, Reported};
pub use due::Due;
pub(crate) use due::{mark_due, set_layered};
pub use history::{LastPresence, SettingsVersion, VersionsOf};
pub use overdue::OverdueSettings;
pub use publish::{DeliveryMark, DueSettings};
pub(crate) use rows::parse;

/// A device's settings as they stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The device.
    pub device_id: DeviceId,
    /// Its serial.
    pub serial: Serial,
    /// Its model's name.
    pub model: String,
    /// Its model's schema version.
    pub model_version: i32,
    /// Within how many seconds a device of its model is expected to answer; `None` for the configured default.
    pub expected_within: Option<i32>,
    /// The newest version.
    pub version: i64,
    /// The device's first version.
    pub first_version: i64,
    /// Whether anything but the model and the device itself may have a part in its document; never wrongly false.
    pub layered: bool,
    /// What was set on the device itself.
    pub overrides: Document,
    /// The whole effective document.
    pub document: Document,
    /// Key to the layer its value came from.
    pub origins: BTreeMap<String, String>,
    /// Where each key stands.
    pub status: Status,
    /// What the device says it runs; `None` before its first acknowledgement.
    pub reported: Option<Document>,
    /// The last version it acknowledged.
    pub reported_version: Option<i64>,
}

impl Store {
    /// A device's settings; `None` if there is no such device.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settings(&self, serial: &Serial) -> Result<Option<Settings>> {
        let row = sqlx::query_as!(
            rows::SettingsRow,
            r#"SELECT d.id, d.serial, d.model, m.version AS "model_version?", m.settings_expected_within,
                      s.version, s.first_version, s.layered,
                      s.overrides AS "overrides: Json<Document>", s.document AS "document: Json<Document>",
                      s.origins AS "origins: Json<BTreeMap<String, String>>", s.status AS "status: Json<Status>",
                      s.reported AS "reported: Json<Document>", s.reported_version
               FROM devices d JOIN device_settings s ON s.device_id = d.id JOIN models m ON m.name = d.model
               WHERE d.serial = $1"#,
            serial.as_str(),
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(Settings::try_from).transpose()
    }
}
