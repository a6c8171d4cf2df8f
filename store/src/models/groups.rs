//! What is set on groups that have members of a model.

use chrono::{DateTime, Utc};
use setpoint_model::settings::Document;
use sqlx::types::Json;

use super::LockedModels;
use crate::Result;

/// What is set on one group.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredGroup {
    /// Its name.
    pub name: String,
    /// What it sets.
    pub settings: Document,
}

impl LockedModels {
    /// A page of the groups that set one of `keys` and have a member of this model, by name: those behind `after`. They
    /// are held against other changes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn groups_of(
        &mut self,
        model: &str,
        keys: &[String],
        after: &str,
        limit: i64,
    ) -> Result<Vec<StoredGroup>> {
        let rows = sqlx::query!(
            r#"SELECT g.name, g.settings AS "settings: Json<Document>"
               FROM groups g
               WHERE g.name > $3 AND NOT g.deleted AND g.settings ?| $2
                 AND EXISTS (SELECT FROM group_members m JOIN devices d ON d.id = m.device_id
                             WHERE m.group_name = g.name AND d.model = $1)
               ORDER BY g.name LIMIT $4 FOR NO KEY UPDATE OF g"#,
            model,
            keys,
            after,
            limit,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        let groups = rows.into_iter().map(|row| StoredGroup {
            name: row.name,
            settings: row.settings.0,
        });
        Ok(groups.collect())
    }

    /// Writes what a group sets from now on; its members follow through the reconciler.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_group(
        &mut self,
        name: &str,
        settings: &Document,
        actor: &str,
        at: DateTime<Utc>,
    ) -> Result<()> {
        sqlx::query!(
            "UPDATE groups SET settings = $2, members_after = 0, version = version + 1, actor = $3, updated_at = $4
             WHERE name = $1",
            name,
            Json(settings) as Json<&Document>,
            actor,
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }
}
