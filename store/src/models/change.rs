//! Changing models: lock, judge (above this crate), write, commit.

use chrono::{DateTime, Utc};
use serde_json::Value;
use setpoint_model::{
    DeviceId, Serial,
    models::Definition,
    settings::{Document, Source},
};
use sqlx::{Postgres, Transaction, types::Json};

use super::{Model, Row};
use crate::{
    Result, Store,
    audit::{self, NewEntry},
    settings::parse,
};

/// Some models, held against all other changes of them, and against all changes of settings that are judged by them,
/// until it is committed or dropped.
#[derive(Debug)]
pub struct LockedModels {
    pub(crate) transaction: Transaction<'static, Postgres>,
    models: Vec<Model>,
}

/// A model's next version.
#[derive(Debug, Clone, PartialEq)]
pub struct NewModelVersion<'a> {
    /// The model's name.
    pub name: &'a str,
    /// All of it.
    pub definition: &'a Definition,
    /// What changed.
    pub diff: &'a Document,
    /// What replaced stored values that don't fit any more; `None` where nothing had to be.
    pub migrate: Option<&'a Document>,
    /// How many devices had such values.
    pub migrated_devices: i64,
    /// Who.
    pub actor: &'a str,
    /// When.
    pub at: DateTime<Utc>,
}

/// What is set on one device itself.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredOverrides {
    /// The device.
    pub device_id: DeviceId,
    /// Its serial.
    pub serial: Serial,
    /// What is set on it.
    pub overrides: Document,
}

impl Store {
    /// Locks those of `names` that exist, in the order of their names. Waits for other writers, and for changes of the
    /// settings of their devices.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lock_models(&self, names: &[&str]) -> Result<LockedModels> {
        let mut transaction = self.pool.begin().await?;
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT name, title, description, settings AS "settings: Json<Document>",
                      telemetry AS "telemetry: Json<Document>", version, claim_secret, settings_expected_within,
                      schedules_in_document, telemetry_retention, home_assistant,
                      created_at, updated_at
               FROM models WHERE name = ANY($1) ORDER BY name FOR UPDATE"#,
            names as &[&str],
        )
        .fetch_all(&mut *transaction)
        .await?;
        let models = rows.into_iter().map(Model::from).collect();
        Ok(LockedModels { transaction, models })
    }
}

impl LockedModels {
    /// One model among those locked.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }

    /// Makes a model; its version, which goes on where an earlier model of this name ended.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] with `models_pkey` when there is one of this name.
    pub async fn insert(&mut self, new: &NewModelVersion<'_>) -> Result<i32> {
        let version = sqlx::query_scalar!(
            "INSERT INTO models (name, title, description, settings, telemetry, claim_secret, created_at, updated_at,
                                 settings_expected_within, schedules_in_document, telemetry_retention, home_assistant,
                                 version)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11,
                     (SELECT coalesce(max(version), 0) + 1 FROM model_versions WHERE model = $1))
             RETURNING version",
            new.name,
            new.definition.title,
            new.definition.description,
            Json(&new.definition.settings) as Json<&Document>,
            Json(&new.definition.telemetry) as Json<&Document>,
            new.definition.claim_secret,
            new.at,
            new.definition.settings_expected_within,
            new.definition.schedules_in_document,
            new.definition.telemetry_retention,
            new.definition.home_assistant,
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        self.remember(new, version).await?;
        Ok(version)
    }

    /// Changes a model among those locked; its new version.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn update(&mut self, new: &NewModelVersion<'_>) -> Result<i32> {
        let version = sqlx::query_scalar!(
            "UPDATE models SET title = $2, description = $3, settings = $4, telemetry = $5, claim_secret = $6,
                    updated_at = $7, settings_expected_within = $8, schedules_in_document = $9,
                    telemetry_retention = $10, home_assistant = $11, version = version + 1
             WHERE name = $1 RETURNING version",
            new.name,
            new.definition.title,
            new.definition.description,
            Json(&new.definition.settings) as Json<&Document>,
            Json(&new.definition.telemetry) as Json<&Document>,
            new.definition.claim_secret,
            new.at,
            new.definition.settings_expected_within,
            new.definition.schedules_in_document,
            new.definition.telemetry_retention,
            new.definition.home_assistant,
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        self.remember(new, version).await?;
        Ok(version)
    }

    async fn remember(&mut self, new: &NewModelVersion<'_>, version: i32) -> Result<()> {
        sqlx::query!(
            "INSERT INTO model_versions (model, version, actor, at, definition, diff, migrate, migrated_devices)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            new.name,
            version,
            new.actor,
            new.at,
            Value::Object(new.definition.to_document()),
            Json(new.diff) as Json<&Document>,
            new.migrate.map(Json) as Option<Json<&Document>>,
            new.migrated_devices,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Removes a model among those locked; its versions stay.
    ///
    /// # Errors
    /// [`crate::Error::Reference`] when devices, or serials of the factory, are of it.
    pub async fn delete(&mut self, name: &str) -> Result<()> {
        sqlx::query!("DELETE FROM models WHERE name = $1", name)
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    /// How many devices are of this model.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn device_count(&mut self, name: &str) -> Result<i64> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM devices WHERE model = $1"#,
            name
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        Ok(count)
    }

    /// A page of the model's devices on which one of `keys` is set, by serial: those behind `after`. Nobody else can
    /// change what is set while the model is locked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn overrides_of(
        &mut self,
        name: &str,
        keys: &[String],
        after: &str,
        limit: i64,
    ) -> Result<Vec<StoredOverrides>> {
        let rows = sqlx::query!(
            r#"SELECT d.id, d.serial, s.overrides AS "overrides: Json<Document>"
               FROM devices d JOIN device_settings s ON s.device_id = d.id
               WHERE d.model = $1 AND d.serial > $3 AND s.overrides ?| $2
               ORDER BY d.serial LIMIT $4"#,
            name,
            keys,
            after,
            limit,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        let devices = rows.into_iter().map(|row| {
            Ok(StoredOverrides {
                device_id: DeviceId(row.id),
                serial: parse(&row.serial)?,
                overrides: row.overrides.0,
            })
        });
        devices.collect()
    }

    /// Writes what is set on devices from now on; their documents follow through the reconciler.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_overrides(
        &mut self,
        overrides: &[(DeviceId, Document)],
        at: DateTime<Utc>,
    ) -> Result<()> {
        let ids: Vec<i64> = overrides.iter().map(|(id, _)| id.0).collect();
        let documents: Vec<Json<&Document>> = overrides.iter().map(|(_, document)| Json(document)).collect();
        sqlx::query!(
            "UPDATE device_settings s SET overrides = c.overrides, updated_at = $3
             FROM unnest($1::bigint[], $2::jsonb[]) AS c (device_id, overrides) WHERE s.device_id = c.device_id",
            &ids,
            &documents as &[Json<&Document>],
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Marks the model's devices as due at `at`, or earlier if they were: their documents are computed again. Neither can
    /// one be made nor one go while the model is locked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark_due(&mut self, name: &str, actor: &str, at: DateTime<Utc>) -> Result<()> {
        sqlx::query!(
            "INSERT INTO settings_due AS q (device_id, due_at, actor, source)
             SELECT id, $2, $3, $4 FROM devices WHERE model = $1 ORDER BY id
             ON CONFLICT (device_id) DO UPDATE
             SET due_at = least(q.due_at, excluded.due_at), actor = excluded.actor, source = excluded.source",
            name,
            at,
            actor,
            Source::Model.as_str(),
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Adds an entry that stands and falls with the change.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&mut self, entry: &NewEntry) -> Result<()> {
        audit::write(&mut self.transaction, entry).await
    }

    /// Makes the changes last.
    ///
    /// # Errors
    /// When the database fails; then nothing was changed, unless the answer alone was lost.
    pub async fn commit(self) -> Result<()> {
        self.transaction.commit().await?;
        Ok(())
    }

    /// Lets go without a change.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(self) -> Result<()> {
        self.transaction.rollback().await?;
        Ok(())
    }
}
