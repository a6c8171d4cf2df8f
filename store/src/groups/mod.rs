//! Groups: reading, making, changing and deleting them. Who belongs to them is in [`members`].
//!
//! Locks are taken in this order: a group's row, then devices in the order of their ids with their settings and what is
//! due, then [`Store::lock_groups`]' lock on memberships as a whole.

mod members;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use setpoint_model::{group::GroupDescription, settings::Document};
use sqlx::{Postgres, Transaction, types::Json};

use crate::{
    Result, Store,
    audit::{self, NewEntry},
    settings::parse,
};

pub(crate) use members::join;
pub use members::{GroupLayer, Settled};

/// A group.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What it says.
    pub description: GroupDescription,
    /// Rises with each change.
    pub version: i64,
    /// How many devices belong to it now.
    pub members: i64,
    /// Whether the reconciler is still at work on who belongs to it and what they inherit: also while the document of a
    /// member waits to be computed again.
    pub settling: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

struct Row {
    name: String,
    selector: String,
    priority: i32,
    settings: Json<Document>,
    version: i64,
    members: i64,
    settling: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Group {
    type Error = crate::Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            name: row.name,
            description: GroupDescription {
                selector: parse(&row.selector)?,
                priority: row.priority,
                settings: row.settings.0,
            },
            version: row.version,
            members: row.members,
            settling: row.settling,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// A change of one group, held against other changes of it until it is committed or dropped.
#[derive(Debug)]
pub struct LockedGroup {
    pub(crate) transaction: Transaction<'static, Postgres>,
}

impl Store {
    /// A page of groups by name as they are `now`: those behind `after`, all if it is empty.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn groups(&self, after: &str, limit: i64, now: DateTime<Utc>) -> Result<Vec<Group>> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT name, selector, priority, settings AS "settings: Json<Document>", version,
                      (SELECT count(*) FROM group_members m WHERE m.group_name = g.name) AS "members!",
                      (devices_after IS NOT NULL OR members_after IS NOT NULL
                       OR name IN (SELECT m.group_name FROM settings_due q JOIN group_members m USING (device_id)
                                   WHERE q.due_at <= $3)) AS "settling!",
                      created_at, updated_at
               FROM groups g WHERE NOT deleted AND name > $1 ORDER BY name LIMIT $2"#,
            after,
            limit,
            now,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Group::try_from).collect()
    }

    /// The group of this name as it is `now`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn group(&self, name: &str, now: DateTime<Utc>) -> Result<Option<Group>> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT name, selector, priority, settings AS "settings: Json<Document>", version,
                      (SELECT count(*) FROM group_members m WHERE m.group_name = g.name) AS "members!",
                      (devices_after IS NOT NULL OR members_after IS NOT NULL
                       OR EXISTS (SELECT FROM settings_due q JOIN group_members m USING (device_id)
                                  WHERE m.group_name = g.name AND q.due_at <= $2)) AS "settling!",
                      created_at, updated_at
               FROM groups g WHERE NOT deleted AND name = $1"#,
            name,
            now,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(Group::try_from).transpose()
    }

    /// Begins a change of the group of this name, whether there is one or not. Waits for other changes of it.
    ///
    /// No device changes its tags or is made until this is committed or dropped: whoever reads the groups that a device
    /// belongs to sees all of this change, or is seen by the reconciler that follows it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lock_group(&self, name: &str) -> Result<LockedGroup> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("SELECT name FROM groups WHERE name = $1 FOR NO KEY UPDATE", name)
            .fetch_optional(&mut *transaction)
            .await?;
        members::exclude(&mut transaction).await?;
        Ok(LockedGroup { transaction })
    }
}

impl LockedGroup {
    /// Makes a group, unless there is one of this name (`false`) or as many as `most` already (`None`). Its members follow
    /// by [`Store::settle_groups`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create(
        &mut self,
        name: &str,
        group: &GroupDescription,
        most: i64,
        actor: &str,
        at: DateTime<Utc>,
    ) -> Result<Option<bool>> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM groups WHERE NOT deleted AND name <> $1"#,
            name
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        if count >= most {
            return Ok(None);
        }
        // One of this name that was deleted, and whose members have not all left yet, begins anew. Versions don't fall.
        let made = sqlx::query!(
            "INSERT INTO groups AS g (name, selector, priority, settings, actor, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $6)
             ON CONFLICT (name) DO UPDATE
             SET selector = excluded.selector, priority = excluded.priority, settings = excluded.settings,
                 version = g.version + 1, devices_after = 0, members_after = 0, deleted = false,
                 actor = excluded.actor, created_at = excluded.created_at, updated_at = excluded.updated_at
             WHERE g.deleted",
            name,
            group.selector.to_string(),
            group.priority,
            Json(&group.settings) as Json<&Document>,
            actor,
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(Some(made.rows_affected() > 0))
    }

    /// Writes what a group says from now on, as the version after `before`; `false` if another is current. Its members
    /// follow by [`Store::settle_groups`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write(
        &mut self,
        name: &str,
        before: i64,
        group: &GroupDescription,
        actor: &str,
        at: DateTime<Utc>,
    ) -> Result<bool> {
        let settings = Json(&group.settings) as Json<&Document>;
        let written = sqlx::query!(
            "UPDATE groups
             SET devices_after = CASE WHEN selector = $3 THEN devices_after ELSE 0 END,
                 members_after = CASE WHEN (priority, settings) = ($4, $5::jsonb) THEN members_after ELSE 0 END,
                 selector = $3, priority = $4, settings = $5, version = version + 1, actor = $6, updated_at = $7
             WHERE name = $1 AND version = $2 AND NOT deleted",
            name,
            before,
            group.selector.to_string(),
            group.priority,
            settings as _,
            actor,
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(written.rows_affected() > 0)
    }

    /// Deletes a group of this version; `false` if another is current. Its members leave by [`Store::settle_groups`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete(&mut self, name: &str, before: i64, actor: &str, at: DateTime<Utc>) -> Result<bool> {
        let deleted = sqlx::query!(
            "WITH gone AS (
                 DELETE FROM schedules s USING groups g
                 WHERE g.name = $1 AND g.version = $2 AND NOT g.deleted AND s.group_name = g.name)
             UPDATE groups SET deleted = true, devices_after = NULL, members_after = 0, actor = $3, updated_at = $4
             WHERE name = $1 AND version = $2 AND NOT deleted",
            name,
            before,
            actor,
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(deleted.rows_affected() > 0)
    }

    /// Adds an entry that stands and falls with the change.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&mut self, entry: &NewEntry) -> Result<()> {
        audit::write(&mut self.transaction, entry).await
    }

    /// Makes the change last.
    ///
    /// # Errors
    /// When the database fails; then nothing was changed, unless the answer alone was lost.
    pub async fn commit(self) -> Result<()> {
        self.transaction.commit().await?;
        Ok(())
    }
}
