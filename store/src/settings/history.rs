//! The versions of a device's settings, newest first.

use chrono::{DateTime, Utc};
use setpoint_model::{
    DeviceId, Serial,
    settings::{Diff, Document, Source, Status, Timeline, ack::Errors},
};
use sqlx::types::Json;

use super::rows::parse;
use crate::{Result, Store};

/// One version, and how far it came.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingsVersion {
    /// Its number.
    pub version: i64,
    /// Who made it.
    pub actor: String,
    /// By which way.
    pub source: Source,
    /// What changed in the effective document.
    pub diff: Diff,
    /// What was set on the device itself.
    pub overrides: Document,
    /// Its steps.
    pub timeline: Timeline,
    /// What the device refused of it.
    pub errors: Errors,
}

/// Whose versions they are, and what their verdicts need besides.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionsOf {
    /// The device.
    pub device_id: DeviceId,
    /// Its newest version.
    pub current: i64,
    /// The last version it acknowledged.
    pub reported: Option<i64>,
    /// Where each key stands.
    pub status: Status,
    /// Its presence, if it ever connected.
    pub presence: Option<LastPresence>,
}

/// A device's presence as last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastPresence {
    /// Whether it is connected.
    pub online: bool,
    /// Since when.
    pub since: DateTime<Utc>,
}

struct Row {
    version: i64,
    actor: String,
    source: String,
    at: DateTime<Utc>,
    diff: Json<Diff>,
    overrides: Json<Document>,
    published_at: Option<DateTime<Utc>>,
    delivered_at: Option<DateTime<Utc>>,
    applied_at: Option<DateTime<Utc>>,
    refused_at: Option<DateTime<Utc>>,
    superseded_at: Option<DateTime<Utc>>,
    errors: Option<Json<Errors>>,
}

impl TryFrom<Row> for SettingsVersion {
    type Error = crate::Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            version: row.version,
            actor: row.actor,
            source: parse(&row.source)?,
            diff: row.diff.0,
            overrides: row.overrides.0,
            timeline: Timeline {
                requested: Some(row.at),
                published: row.published_at,
                delivered: row.delivered_at,
                applied: row.applied_at,
                refused: row.refused_at,
                superseded: row.superseded_at,
            },
            errors: row.errors.map(|errors| errors.0).unwrap_or_default(),
        })
    }
}

impl Store {
    /// What is needed to tell the story of a device's versions; `None` if there is no such device.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn versions_of(&self, serial: &Serial) -> Result<Option<VersionsOf>> {
        let row = sqlx::query!(
            r#"SELECT d.id, s.version, s.reported_version, s.status AS "status: Json<Status>",
                      p.online AS "online?", p.since AS "since?"
               FROM devices d JOIN device_settings s ON s.device_id = d.id
               LEFT JOIN device_presence p ON p.device_id = d.id
               WHERE d.serial = $1"#,
            serial.as_str(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| VersionsOf {
            device_id: DeviceId(row.id),
            current: row.version,
            reported: row.reported_version,
            status: row.status.0,
            presence: row
                .online
                .zip(row.since)
                .map(|(online, since)| LastPresence { online, since }),
        }))
    }

    /// A page of a device's versions, newest first: those below `before`, all if it is `None`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settings_versions(
        &self,
        device_id: DeviceId,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<SettingsVersion>> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT version, actor, source, at, diff AS "diff: Json<Diff>",
                      overrides AS "overrides: Json<Document>", published_at, delivered_at, applied_at, refused_at,
                      superseded_at, errors AS "errors: Json<Errors>"
               FROM settings_versions
               WHERE device_id = $1 AND version < coalesce($2, 9223372036854775807)
               ORDER BY version DESC LIMIT $3"#,
            device_id.0,
            before,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(SettingsVersion::try_from).collect()
    }

    /// One version of a device; `None` if it has no such version.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settings_version(
        &self,
        device_id: DeviceId,
        version: i64,
    ) -> Result<Option<SettingsVersion>> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT version, actor, source, at, diff AS "diff: Json<Diff>",
                      overrides AS "overrides: Json<Document>", published_at, delivered_at, applied_at, refused_at,
                      superseded_at, errors AS "errors: Json<Errors>"
               FROM settings_versions WHERE device_id = $1 AND version = $2"#,
            device_id.0,
            version,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(SettingsVersion::try_from).transpose()
    }
}
