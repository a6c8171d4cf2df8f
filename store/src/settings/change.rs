//! Changing settings: lock, judge (above this crate), write, commit.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use setpoint_model::{
    DeviceId, Serial,
    settings::{Diff, Document, Source, Status, ack::Errors},
    timeline::Facts,
};
use sqlx::{Postgres, Transaction, types::Json};

use super::{Settings, rows::SettingsRow};
use crate::{Result, Store};

/// Some devices' settings, held against all other writers until it is committed or dropped.
#[derive(Debug)]
pub struct LockedSettings {
    pub(crate) transaction: Transaction<'static, Postgres>,
    pub(super) devices: Vec<Settings>,
}

/// A device's next version.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVersion {
    /// The device.
    pub device_id: DeviceId,
    /// Its new version: one more than the one before.
    pub version: i64,
    /// What is set on the device itself from now on.
    pub overrides: Document,
    /// The new effective document.
    pub document: Document,
    /// Key to the layer its value came from.
    pub origins: BTreeMap<String, String>,
    /// Where each key stands after the change.
    pub status: Status,
    /// What changed in the effective document.
    pub diff: Diff,
    /// Who changed it.
    pub actor: String,
    /// By which way.
    pub source: Source,
    /// When.
    pub at: DateTime<Utc>,
    /// Until when an answer to it is expected.
    pub expected_by: Option<DateTime<Utc>>,
}

/// What a device says it runs, after its last acknowledgement.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// The device.
    pub device_id: DeviceId,
    /// The version it acknowledged.
    pub version: i64,
    /// What it runs.
    pub settings: Document,
    /// Where each key stands now.
    pub status: Status,
    /// When.
    pub at: DateTime<Utc>,
}

/// What an acknowledgement means for the version it names.
#[derive(Debug, Clone, PartialEq)]
pub struct AckedVersion {
    /// The device.
    pub device_id: DeviceId,
    /// The version.
    pub version: i64,
    /// What became of it.
    pub outcome: Outcome,
    /// When.
    pub at: DateTime<Utc>,
}

/// What became of a version on the device.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All of it is in place.
    Applied,
    /// Some of it was refused.
    Refused(Errors),
    /// It was heard, but the device runs something else.
    Heard,
}

impl Store {
    /// Locks the settings of those of `serials` that exist, in the order of their ids. Waits for other writers.
    ///
    /// Their models are held first: a schema that changes waits for what was judged by it, and what comes later is
    /// judged by the new one.
    ///
    /// # Errors
    /// [`crate::Error::Contended`] when a device got another model meanwhile; else when the database fails.
    pub async fn lock_settings(&self, serials: &[&str]) -> Result<LockedSettings> {
        let mut locked = LockedSettings::new(self.pool.begin().await?, Vec::new());
        locked.lock(serials).await?;
        Ok(locked)
    }
}

impl LockedSettings {
    pub(crate) fn new(transaction: Transaction<'static, Postgres>, devices: Vec<Settings>) -> Self {
        Self { transaction, devices }
    }

    /// Locks those of `serials` that exist, in the order of their ids; once in a transaction.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lock(&mut self, serials: &[&str]) -> Result<()> {
        let rows = sqlx::query_as!(
            SettingsRow,
            r#"WITH model AS MATERIALIZED (
                   SELECT name, version, settings_expected_within FROM models
                   WHERE name IN (SELECT model FROM devices WHERE serial = ANY($1)) ORDER BY name FOR KEY SHARE)
               SELECT d.id, d.serial, d.model, m.version AS "model_version?", m.settings_expected_within,
                      s.version, s.first_version, s.layered,
                      s.overrides AS "overrides: Json<Document>", s.document AS "document: Json<Document>",
                      s.origins AS "origins: Json<BTreeMap<String, String>>", s.status AS "status: Json<Status>",
                      s.reported AS "reported: Json<Document>", s.reported_version
               FROM devices d JOIN device_settings s ON s.device_id = d.id LEFT JOIN model m ON m.name = d.model
               WHERE d.serial = ANY($1) ORDER BY d.id
               FOR NO KEY UPDATE OF d, s"#,
            serials as &[&str],
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        self.devices = rows.into_iter().map(Settings::try_from).collect::<Result<_>>()?;
        Ok(())
    }

    /// The settings that are locked.
    pub fn devices(&self) -> &[Settings] {
        &self.devices
    }

    /// Writes new versions, each with its entry in the timeline; a version before it that the device has not
    /// answered is superseded.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_versions(&mut self, versions: &[NewVersion]) -> Result<()> {
        let fields = |version: &NewVersion| Facts::SettingsChanged {
            version: version.version,
            actor: version.actor.clone(),
            source: version.source.as_str().to_owned(),
        };
        let facts: Vec<Facts> = versions.iter().map(fields).collect();
        let kinds: Vec<&str> = facts.iter().map(|facts| facts.kind().as_str()).collect();
        let data: Vec<Value> = facts.iter().map(Facts::to_json).collect();
        let ids: Vec<i64> = versions.iter().map(|v| v.device_id.0).collect();
        let numbers: Vec<i64> = versions.iter().map(|v| v.version).collect();
        let overrides: Vec<Json<&Document>> = versions.iter().map(|v| Json(&v.overrides)).collect();
        let documents: Vec<Json<&Document>> = versions.iter().map(|v| Json(&v.document)).collect();
        let origins: Vec<Json<&BTreeMap<String, String>>> =
            versions.iter().map(|v| Json(&v.origins)).collect();
        let status: Vec<Json<&Status>> = versions.iter().map(|v| Json(&v.status)).collect();
        let diffs: Vec<Json<&Diff>> = versions.iter().map(|v| Json(&v.diff)).collect();
        let actors: Vec<&str> = versions.iter().map(|v| v.actor.as_str()).collect();
        let sources: Vec<&str> = versions.iter().map(|v| v.source.as_str()).collect();
        let times: Vec<DateTime<Utc>> = versions.iter().map(|v| v.at).collect();
        let expected: Vec<Option<DateTime<Utc>>> = versions.iter().map(|v| v.expected_by).collect();
        sqlx::query!(
            "WITH change AS MATERIALIZED (
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::jsonb[], $4::jsonb[], $5::jsonb[], $6::jsonb[],
                                      $7::jsonb[], $8::text[], $9::text[], $10::timestamptz[], $11::text[], $12::jsonb[],
                                      $13::timestamptz[])
                 AS c (device_id, version, overrides, document, origins, status, diff, actor, source, at, kind, data,
                       expected_by)),
             current AS (
                 UPDATE device_settings s
                 SET version = c.version, overrides = c.overrides, document = c.document, origins = c.origins,
                     status = c.status, updated_at = c.at
                 FROM change c WHERE s.device_id = c.device_id),
             superseded AS (
                 UPDATE settings_versions v SET superseded_at = c.at, expected_by = NULL
                 FROM change c WHERE v.device_id = c.device_id AND v.version = c.version - 1
                   AND v.applied_at IS NULL AND v.refused_at IS NULL),
             version AS (
                 INSERT INTO settings_versions (device_id, version, actor, source, at, diff, overrides, expected_by)
                 SELECT device_id, version, actor, source, at, diff, overrides, expected_by FROM change)
             INSERT INTO device_events (device_id, at, kind, data) SELECT device_id, at, kind, data FROM change",
            &ids,
            &numbers,
            &overrides as &[Json<&Document>],
            &documents as &[Json<&Document>],
            &origins as &[Json<&BTreeMap<String, String>>],
            &status as &[Json<&Status>],
            &diffs as &[Json<&Diff>],
            &actors as &[&str],
            &sources as &[&str],
            &times,
            &kinds as &[&str],
            &data,
            &expected as &[Option<DateTime<Utc>>],
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Writes what is set on one device where that changes nothing of what it should run: no new version.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_overrides(
        &mut self,
        device_id: DeviceId,
        overrides: &Document,
        origins: &BTreeMap<String, String>,
        at: DateTime<Utc>,
    ) -> Result<()> {
        sqlx::query!(
            "UPDATE device_settings SET overrides = $2, origins = $3, updated_at = $4 WHERE device_id = $1",
            device_id.0,
            Json(overrides) as Json<&Document>,
            Json(origins) as Json<&BTreeMap<String, String>>,
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Writes what acknowledgements said: `reported` once per device, `versions` once per device and version.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_acks(&mut self, reported: &[Reported], versions: &[AckedVersion]) -> Result<()> {
        let ids: Vec<i64> = reported.iter().map(|r| r.device_id.0).collect();
        let numbers: Vec<i64> = reported.iter().map(|r| r.version).collect();
        let settings: Vec<Json<&Document>> = reported.iter().map(|r| Json(&r.settings)).collect();
        let status: Vec<Json<&Status>> = reported.iter().map(|r| Json(&r.status)).collect();
        let times: Vec<DateTime<Utc>> = reported.iter().map(|r| r.at).collect();
        let version_ids: Vec<i64> = versions.iter().map(|v| v.device_id.0).collect();
        let version_numbers: Vec<i64> = versions.iter().map(|v| v.version).collect();
        let version_times: Vec<DateTime<Utc>> = versions.iter().map(|v| v.at).collect();
        let applied: Vec<bool> = versions.iter().map(|v| v.outcome == Outcome::Applied).collect();
        let errors: Vec<Option<Json<&Errors>>> = versions
            .iter()
            .map(|v| match &v.outcome {
                Outcome::Refused(errors) => Some(Json(errors)),
                Outcome::Applied | Outcome::Heard => None,
            })
            .collect();
        // An acknowledgement proves delivery, also where no PUBACK did (a QoS 0 subscription).
        sqlx::query!(
            "WITH said AS MATERIALIZED (
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::jsonb[], $4::jsonb[], $5::timestamptz[])
                 AS r (device_id, version, settings, status, at)),
             current AS (
                 UPDATE device_settings s
                 SET reported = r.settings, reported_version = r.version, reported_at = r.at, status = r.status
                 FROM said r WHERE s.device_id = r.device_id),
             acked AS MATERIALIZED (
                 SELECT * FROM unnest($6::bigint[], $7::bigint[], $8::timestamptz[], $9::boolean[], $10::jsonb[])
                 AS a (device_id, version, at, applied, errors))
             UPDATE settings_versions v
             SET published_at = coalesce(v.published_at, a.at), delivered_at = coalesce(v.delivered_at, a.at),
                 applied_at = CASE WHEN a.applied THEN coalesce(v.applied_at, a.at)
                                   WHEN a.errors IS NULL THEN v.applied_at END,
                 refused_at = CASE WHEN a.errors IS NOT NULL THEN coalesce(v.refused_at, a.at)
                                   WHEN NOT a.applied THEN v.refused_at END,
                 expected_by = CASE WHEN a.errors IS NULL AND NOT a.applied THEN v.expected_by END,
                 errors = CASE WHEN a.errors IS NULL AND NOT a.applied THEN v.errors ELSE a.errors END
             FROM acked a WHERE v.device_id = a.device_id AND v.version = a.version",
            &ids,
            &numbers,
            &settings as &[Json<&Document>],
            &status as &[Json<&Status>],
            &times,
            &version_ids,
            &version_numbers,
            &version_times,
            &applied,
            &errors as &[Option<Json<&Errors>>],
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
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

    /// The settings of one device among those locked.
    pub fn device(&self, serial: &Serial) -> Option<&Settings> {
        self.devices.iter().find(|settings| settings.serial == *serial)
    }
}
