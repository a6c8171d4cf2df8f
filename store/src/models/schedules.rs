//! What schedules set, of devices of a model and of groups that have some.

use chrono::{DateTime, Utc};
use setpoint_model::settings::Document;
use sqlx::types::Json;

use super::LockedModels;
use crate::{Error, Result};

/// What one schedule sets.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSchedule {
    /// Its id.
    pub id: i64,
    /// Its version.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// The serial of its device, unless it is a group's.
    pub serial: Option<String>,
    /// The name of its group, unless it is a device's.
    pub group: Option<String>,
    /// What it sets.
    pub settings: Document,
}

impl LockedModels {
    /// A page of the schedules that set one of `keys` on devices of this model, by id: those behind `after`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schedules_of(
        &mut self,
        model: &str,
        keys: &[String],
        after: i64,
        limit: i64,
    ) -> Result<Vec<StoredSchedule>> {
        let rows = sqlx::query!(
            r#"SELECT s.id, s.version, s.name, d.serial AS "serial?", s.group_name,
                      s.settings AS "settings: Json<Document>"
               FROM schedules s LEFT JOIN devices d ON d.id = s.device_id
               WHERE s.id > $3 AND s.settings ?| $2
                 AND (d.model = $1
                      OR EXISTS (SELECT FROM group_members m JOIN devices o ON o.id = m.device_id
                                 WHERE m.group_name = s.group_name AND o.model = $1))
               ORDER BY s.id LIMIT $4"#,
            model,
            keys,
            after,
            limit,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        let schedules = rows.into_iter().map(|row| StoredSchedule {
            id: row.id,
            version: row.version,
            name: row.name,
            serial: row.serial,
            group: row.group_name,
            settings: row.settings.0,
        });
        Ok(schedules.collect())
    }

    /// Writes what a schedule sets from now on; the members of its group follow through the reconciler.
    ///
    /// # Errors
    /// [`Error::Contended`] when it changed meanwhile; else when the database fails.
    pub async fn write_schedule(
        &mut self,
        schedule: &StoredSchedule,
        settings: &Document,
        actor: &str,
        at: DateTime<Utc>,
    ) -> Result<()> {
        // The group first, as all who change its schedules do.
        sqlx::query!(
            "UPDATE groups SET members_after = 0, actor = $2 WHERE name = $1",
            schedule.group,
            actor,
        )
        .execute(&mut *self.transaction)
        .await?;
        let written = sqlx::query!(
            "UPDATE schedules SET settings = $3, updated_at = $4, version = nextval('schedule_versions')
             WHERE id = $1 AND version = $2",
            schedule.id,
            schedule.version,
            Json(settings) as Json<&Document>,
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        if written.rows_affected() == 0 {
            let changed = "a schedule changed while its model did".to_owned();
            return Err(Error::Contended(sqlx::Error::Protocol(changed)));
        }
        Ok(())
    }
}
