//! The devices that Home Assistant is told of.

use setpoint_model::{DeviceId, Serial, settings::Document};
use sqlx::types::Json;

use crate::{
    Result, Store,
    models::{Model, Row},
    settings::parse,
};

/// A device of a model that asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownDevice {
    /// Its id.
    pub id: DeviceId,
    /// Its serial.
    pub serial: Serial,
    /// Its name.
    pub name: String,
}

impl Store {
    /// The models whose devices Home Assistant is told of, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn home_assistant_models(&self) -> Result<Vec<Model>> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT name, title, description, settings AS "settings: Json<Document>", telemetry AS "telemetry: Json<Document>", version,
                      claim_secret, settings_expected_within, schedules_in_document, telemetry_retention,
                      home_assistant, created_at, updated_at
               FROM models WHERE home_assistant ORDER BY name"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(Model::from).collect())
    }

    /// A page of a model's devices by serial: those behind `after`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn shown_devices(&self, model: &str, after: &str, limit: i64) -> Result<Vec<ShownDevice>> {
        let rows = sqlx::query!(
            "SELECT id, serial, name FROM devices WHERE model = $1 AND serial > $2 ORDER BY serial LIMIT $3",
            model,
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        let device = rows.into_iter().map(|row| {
            Ok(ShownDevice {
                id: DeviceId(row.id),
                serial: parse(&row.serial)?,
                name: row.name,
            })
        });
        device.collect()
    }
}
