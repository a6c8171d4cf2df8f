//! Every version that a model ever had.

use chrono::{DateTime, Utc};
use setpoint_model::settings::Document;
use sqlx::types::Json;

use crate::{Result, Store};

/// One version of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelVersion {
    /// Its number.
    pub version: i32,
    /// Who made it.
    pub actor: String,
    /// When.
    pub at: DateTime<Utc>,
    /// All of the model at this version.
    pub definition: Document,
    /// What changed.
    pub diff: Document,
    /// What replaced stored values that didn't fit any more.
    pub migrate: Option<Document>,
    /// How many devices had such values.
    pub migrated_devices: i64,
}

struct Row {
    version: i32,
    actor: String,
    at: DateTime<Utc>,
    definition: Json<Document>,
    diff: Json<Document>,
    migrate: Option<Json<Document>>,
    migrated_devices: i64,
}

impl From<Row> for ModelVersion {
    fn from(row: Row) -> Self {
        Self {
            version: row.version,
            actor: row.actor,
            at: row.at,
            definition: row.definition.0,
            diff: row.diff.0,
            migrate: row.migrate.map(|values| values.0),
            migrated_devices: row.migrated_devices,
        }
    }
}

impl Store {
    /// A page of a model's versions, newest first: those below `before`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn model_versions(
        &self,
        model: &str,
        before: Option<i32>,
        limit: i64,
    ) -> Result<Vec<ModelVersion>> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT version, actor, at, definition AS "definition: Json<Document>", diff AS "diff: Json<Document>",
                      migrate AS "migrate: Json<Document>", migrated_devices
               FROM model_versions WHERE model = $1 AND ($2::integer IS NULL OR version < $2)
               ORDER BY version DESC LIMIT $3"#,
            model,
            before,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(ModelVersion::from).collect())
    }

    /// One version of a model.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn one_model_version(&self, model: &str, version: i32) -> Result<Option<ModelVersion>> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT version, actor, at, definition AS "definition: Json<Document>", diff AS "diff: Json<Document>",
                      migrate AS "migrate: Json<Document>", migrated_devices
               FROM model_versions WHERE model = $1 AND version = $2"#,
            model,
            version,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(ModelVersion::from))
    }
}
