//! Rows as Postgres gives them, and their parsing.

use std::{collections::BTreeMap, str::FromStr};

use setpoint_model::{
    DeviceId,
    settings::{Document, Status},
};
use sqlx::types::Json;

use super::Settings;
use crate::{Error, Result};

pub(super) struct SettingsRow {
    pub(super) id: i64,
    pub(super) serial: String,
    pub(super) model: String,
    /// `None` when the device got another model between two looks at it.
    pub(super) model_version: Option<i32>,
    pub(super) settings_expected_within: Option<i32>,
    pub(super) version: i64,
    pub(super) first_version: i64,
    pub(super) layered: bool,
    pub(super) overrides: Json<Document>,
    pub(super) document: Json<Document>,
    pub(super) origins: Json<BTreeMap<String, String>>,
    pub(super) status: Json<Status>,
    pub(super) reported: Option<Json<Document>>,
    pub(super) reported_version: Option<i64>,
}

impl TryFrom<SettingsRow> for Settings {
    type Error = Error;

    fn try_from(row: SettingsRow) -> Result<Self> {
        let moved = || Error::Contended(sqlx::Error::Protocol("the device got another model".to_owned()));
        let model_version = row.model_version.ok_or_else(moved)?;
        Ok(Self {
            device_id: DeviceId(row.id),
            serial: parse(&row.serial)?,
            model: row.model,
            model_version,
            expected_within: row.settings_expected_within,
            version: row.version,
            first_version: row.first_version,
            layered: row.layered,
            overrides: row.overrides.0,
            document: row.document.0,
            origins: row.origins.0,
            status: row.status.0,
            reported: row.reported.map(|reported| reported.0),
            reported_version: row.reported_version,
        })
    }
}

/// Parses a text that only parsed values were ever written to.
pub(crate) fn parse<T>(text: &str) -> Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.parse()
        .map_err(|error: T::Err| Error::Query(sqlx::Error::Decode(Box::new(error))))
}
