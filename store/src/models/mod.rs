//! Models: product types with their settings schema and telemetry names.

mod change;
mod groups;
mod schedules;
#[cfg(test)]
mod tests;
mod versions;

use chrono::{DateTime, Utc};
use setpoint_model::{models::Definition, settings::Document};
use sqlx::types::Json;

use crate::{Result, Store, settings::LockedSettings};

pub use change::{LockedModels, NewModelVersion, StoredOverrides};
pub use groups::StoredGroup;
pub use schedules::StoredSchedule;
pub use versions::ModelVersion;

/// A product type.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// All that people say about it.
    pub definition: Definition,
    /// Its version: rises with each change.
    pub version: i32,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) settings: Json<Document>,
    pub(crate) telemetry: Json<Document>,
    pub(crate) version: i32,
    pub(crate) claim_secret: bool,
    pub(crate) settings_expected_within: Option<i32>,
    pub(crate) schedules_in_document: bool,
    pub(crate) home_assistant: bool,
    pub(crate) telemetry_retention: Option<i32>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

impl From<Row> for Model {
    fn from(row: Row) -> Self {
        Self {
            name: row.name,
            definition: Definition {
                title: row.title,
                description: row.description,
                settings: row.settings.0,
                telemetry: row.telemetry.0,
                claim_secret: row.claim_secret,
                settings_expected_within: row.settings_expected_within,
                schedules_in_document: row.schedules_in_document,
                telemetry_retention: row.telemetry_retention,
                home_assistant: row.home_assistant,
            },
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl Store {
    /// A page of models by name: those behind `after`, all if it is empty.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn models(&self, after: &str, limit: i64) -> Result<Vec<Model>> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT name, title, description, settings AS "settings: Json<Document>",
                      telemetry AS "telemetry: Json<Document>", version, claim_secret, settings_expected_within,
                      schedules_in_document, telemetry_retention, home_assistant,
                      created_at, updated_at
               FROM models WHERE name > $1 ORDER BY name LIMIT $2"#,
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(Model::from).collect())
    }

    /// The model of this name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn model(&self, name: &str) -> Result<Option<Model>> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT name, title, description, settings AS "settings: Json<Document>",
                      telemetry AS "telemetry: Json<Document>", version, claim_secret, settings_expected_within,
                      schedules_in_document, telemetry_retention, home_assistant,
                      created_at, updated_at
               FROM models WHERE name = $1"#,
            name,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(Model::from))
    }

    /// The schema version of the model of this name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn model_version(&self, name: &str) -> Result<Option<i32>> {
        Ok(
            sqlx::query_scalar!("SELECT version FROM models WHERE name = $1", name)
                .fetch_optional(&self.pool)
                .await?,
        )
    }
}

impl LockedSettings {
    /// The model of this name, held against changes of it, and read on the connection that holds the lock: one that
    /// waited for another could wait for ever behind others that do the same.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn model(&mut self, name: &str) -> Result<Option<Model>> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT name, title, description, settings AS "settings: Json<Document>",
                      telemetry AS "telemetry: Json<Document>", version, claim_secret, settings_expected_within,
                      schedules_in_document, telemetry_retention, home_assistant,
                      created_at, updated_at
               FROM models WHERE name = $1 FOR KEY SHARE"#,
            name,
        )
        .fetch_optional(&mut *self.transaction)
        .await?;
        Ok(row.map(Model::from))
    }
}
