//! Schedules of devices and of groups. Which apply to which devices is in [`applying`].

mod applying;

use chrono::{DateTime, Utc};
use setpoint_model::{
    DeviceId,
    schedule::{Definition, Plan, ScheduleName},
    settings::{Document, Source},
};
use sqlx::{PgConnection, Postgres, Transaction, types::Json};

use crate::{
    Error, Result, Store,
    audit::{self, NewEntry},
    groups::LockedGroup,
    settings::{LockedSettings, mark_due, parse, set_layered},
};

pub use applying::{AppliedSchedule, Applying, Clock};

/// Whose schedules are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A device's.
    Device(DeviceId),
    /// A group's, by its name.
    Group(String),
}

/// A schedule as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSchedule {
    /// Its name.
    pub name: ScheduleName,
    /// When it holds, and what it sets.
    pub definition: Definition,
    /// Rises with each change of any schedule; never used twice.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// The schedules of one holder, held against all other writers until they are committed or dropped.
#[derive(Debug)]
pub struct LockedSchedules {
    pub(crate) transaction: Transaction<'static, Postgres>,
    holder: Holder,
}

/// How much a holder has already, one schedule left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Others {
    /// How many.
    pub count: i64,
    /// Bytes of JSON of all they set.
    pub bytes: i64,
}

struct Row {
    name: String,
    plan: Json<Document>,
    settings: Json<Document>,
    enabled: bool,
    priority: i32,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for StoredSchedule {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            name: parse(&row.name)?,
            definition: Definition {
                plan: plan(row.plan.0)?,
                settings: row.settings.0,
                enabled: row.enabled,
                priority: row.priority,
            },
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Reads a plan that only a parsed one was ever written to.
fn plan(fields: Document) -> Result<Plan> {
    Plan::from_document(fields)
        .map_err(|errors| Error::Query(sqlx::Error::Decode(format!("{errors:?}").into())))
}

impl Holder {
    /// The two columns, of which one holds.
    fn columns(&self) -> (Option<i64>, Option<&str>) {
        match self {
            Self::Device(id) => (Some(id.0), None),
            Self::Group(name) => (None, Some(name)),
        }
    }
}

impl Store {
    /// A page of schedules by name: those behind `after`, all if it is empty.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schedules(&self, holder: &Holder, after: &str, limit: i64) -> Result<Vec<StoredSchedule>> {
        let (device, group) = holder.columns();
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT name, plan AS "plan: Json<Document>", settings AS "settings: Json<Document>", enabled, priority,
                      version, created_at, updated_at
               FROM schedules WHERE (device_id = $1 OR group_name = $2) AND name > $3 ORDER BY name LIMIT $4"#,
            device,
            group,
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(StoredSchedule::try_from).collect()
    }

    /// One schedule.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schedule(&self, holder: &Holder, name: &ScheduleName) -> Result<Option<StoredSchedule>> {
        let mut connection = self.pool.acquire().await?;
        one(&mut connection, holder, name).await
    }
}

async fn one(
    connection: &mut PgConnection,
    holder: &Holder,
    name: &ScheduleName,
) -> Result<Option<StoredSchedule>> {
    let (device, group) = holder.columns();
    let row = sqlx::query_as!(
        Row,
        r#"SELECT name, plan AS "plan: Json<Document>", settings AS "settings: Json<Document>", enabled, priority,
                  version, created_at, updated_at
           FROM schedules WHERE (device_id = $1 OR group_name = $2) AND name = $3"#,
        device,
        group,
        name.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    row.map(StoredSchedule::try_from).transpose()
}

impl Store {
    /// Holds the schedules of a group, and with them all that its members inherit; `None` if there is no such group.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lock_group_schedules(&self, group: &str) -> Result<Option<LockedSchedules>> {
        let LockedGroup { mut transaction } = self.lock_group(group).await?;
        let found = sqlx::query_scalar!("SELECT name FROM groups WHERE name = $1 AND NOT deleted", group)
            .fetch_optional(&mut *transaction)
            .await?;
        Ok(found.map(|name| LockedSchedules {
            transaction,
            holder: Holder::Group(name),
        }))
    }
}

impl LockedSettings {
    /// Goes on to the schedules of a device among those locked.
    pub fn into_schedules(self, device: DeviceId) -> LockedSchedules {
        LockedSchedules {
            transaction: self.transaction,
            holder: Holder::Device(device),
        }
    }
}

impl LockedSchedules {
    /// One of them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&mut self, name: &ScheduleName) -> Result<Option<StoredSchedule>> {
        one(&mut self.transaction, &self.holder, name).await
    }

    /// How much the holder has beside this schedule.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn others(&mut self, name: &ScheduleName) -> Result<Others> {
        let (device, group) = self.holder.columns();
        let others = sqlx::query_as!(
            Others,
            r#"SELECT count(*) AS "count!", coalesce(sum(length(settings::text)), 0) AS "bytes!"
               FROM schedules WHERE (device_id = $1 OR group_name = $2) AND name <> $3"#,
            device,
            group,
            name.as_str(),
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        Ok(others)
    }

    /// Writes a schedule, a new one or another definition of one that is there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put(
        &mut self,
        name: &ScheduleName,
        definition: &Definition,
        at: DateTime<Utc>,
    ) -> Result<StoredSchedule> {
        let (device, group) = self.holder.columns();
        let updated = sqlx::query_as!(
            Row,
            r#"UPDATE schedules
               SET plan = $4, settings = $5, enabled = $6, priority = $7, version = nextval('schedule_versions'),
                   updated_at = $8
               WHERE (device_id = $1 OR group_name = $2) AND name = $3
               RETURNING name, plan AS "plan: Json<Document>", settings AS "settings: Json<Document>", enabled,
                         priority, version, created_at, updated_at"#,
            device,
            group,
            name.as_str(),
            Json(definition.plan.to_document()) as Json<Document>,
            Json(&definition.settings) as Json<&Document>,
            definition.enabled,
            definition.priority,
            at,
        )
        .fetch_optional(&mut *self.transaction)
        .await?;
        if let Some(row) = updated {
            return row.try_into();
        }
        let row = sqlx::query_as!(
            Row,
            r#"INSERT INTO schedules
                   (device_id, group_name, name, plan, settings, enabled, priority, created_at, updated_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
               RETURNING name, plan AS "plan: Json<Document>", settings AS "settings: Json<Document>", enabled,
                         priority, version, created_at, updated_at"#,
            device,
            group,
            name.as_str(),
            Json(definition.plan.to_document()) as Json<Document>,
            Json(&definition.settings) as Json<&Document>,
            definition.enabled,
            definition.priority,
            at,
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        row.try_into()
    }

    /// Removes a schedule.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove(&mut self, name: &ScheduleName) -> Result<()> {
        let (device, group) = self.holder.columns();
        sqlx::query!(
            "DELETE FROM schedules WHERE (device_id = $1 OR group_name = $2) AND name = $3",
            device,
            group,
            name.as_str(),
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Has the documents of the devices that the schedules apply to computed again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark_due(&mut self, at: DateTime<Utc>, actor: &str) -> Result<()> {
        match &self.holder {
            Holder::Device(device) => {
                set_layered(&mut self.transaction, &[device.0]).await?;
                mark_due(&mut self.transaction, &[device.0], at, actor, Source::Schedule).await
            }
            Holder::Group(name) => {
                sqlx::query!(
                    "UPDATE groups SET members_after = 0, actor = $2 WHERE name = $1",
                    name,
                    actor
                )
                .execute(&mut *self.transaction)
                .await?;
                Ok(())
            }
        }
    }

    /// Adds an entry to the audit log.
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
}
