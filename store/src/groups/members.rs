//! Who belongs to which group: told at once for a device whose tags change, and page by page after a group changed.

use chrono::{DateTime, Utc};
use setpoint_model::{
    DeviceId, Selector, Serial,
    device::Tags,
    settings::{Document, Source},
};
use sqlx::{PgConnection, Postgres, QueryBuilder, types::Json};

use crate::{
    Result, Store,
    devices::select,
    settings::{LockedSettings, mark_due, parse},
};

/// The advisory lock on memberships as a whole: shared by devices whose tags change, exclusive for a group's change.
const MEMBERSHIPS: i64 = 0x5e79_0148;

/// What a group lays under some devices.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupLayer {
    /// The group.
    pub name: String,
    /// What its members inherit.
    pub settings: Document,
    /// Those of the devices asked for that belong to it, by id.
    pub members: Vec<DeviceId>,
}

/// What a step of [`Store::settle_groups`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Every group is settled, or others are at work on it.
    All,
    /// There may be more to do; this many devices are due now.
    Some(usize),
}

/// A group that is not settled.
struct Unsettled {
    name: String,
    selector: String,
    devices_after: Option<i64>,
    members_after: Option<i64>,
    deleted: bool,
    actor: String,
}

/// Waits until no device is changing its tags, and keeps all from it until the transaction ends.
pub(super) async fn exclude(connection: &mut PgConnection) -> Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", MEMBERSHIPS)
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes a device's memberships agree with its tags; whether it belongs to any group. The device must be locked, or new.
pub(crate) async fn join(connection: &mut PgConnection, device: DeviceId, tags: &Tags) -> Result<bool> {
    // A statement of its own: what is read next shows every group's change that was waited for.
    sqlx::query!("SELECT pg_advisory_xact_lock_shared($1)", MEMBERSHIPS)
        .execute(&mut *connection)
        .await?;
    let groups = sqlx::query!("SELECT name, selector FROM groups WHERE NOT deleted")
        .fetch_all(&mut *connection)
        .await?;
    let mut joined = Vec::new();
    for group in groups {
        if parse::<Selector>(&group.selector)?.matches(tags) {
            joined.push(group.name);
        }
    }
    sqlx::query!(
        "WITH gone AS (DELETE FROM group_members WHERE device_id = $1 AND group_name <> ALL($2))
         INSERT INTO group_members (device_id, group_name) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING",
        device.0,
        &joined,
    )
    .execute(connection)
    .await?;
    Ok(!joined.is_empty())
}

impl LockedSettings {
    /// Makes the memberships of a device among those locked agree with its new tags.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn join_groups(&mut self, device: DeviceId, tags: &Tags) -> Result<()> {
        if join(&mut self.transaction, device, tags).await? {
            self.set_layered(&[device.0]).await?;
        }
        Ok(())
    }

    /// The groups that some of `devices` belong to, in the order in which they are laid over each other: the highest
    /// priority last.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn group_layers(&mut self, devices: &[DeviceId]) -> Result<Vec<GroupLayer>> {
        let ids: Vec<i64> = devices.iter().map(|device| device.0).collect();
        let rows = sqlx::query!(
            r#"SELECT g.name, g.settings AS "settings: Json<Document>", m.members AS "members!"
               FROM (SELECT group_name, array_agg(device_id ORDER BY device_id) AS members
                     FROM group_members WHERE device_id = ANY($1) GROUP BY group_name) m
               JOIN groups g ON g.name = m.group_name
               WHERE NOT g.deleted ORDER BY g.priority, g.name"#,
            &ids,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        let layer = |members: Vec<i64>, name, settings: Json<Document>| GroupLayer {
            name,
            settings: settings.0,
            members: members.into_iter().map(DeviceId).collect(),
        };
        Ok(rows
            .into_iter()
            .map(|row| layer(row.members, row.name, row.settings))
            .collect())
    }
}

impl Store {
    /// The serials of a group's devices; `None` if there is no such group.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn group_serials(&self, group: &str) -> Result<Option<Vec<Serial>>> {
        let serials = sqlx::query_scalar!(
            r#"SELECT (SELECT array_agg(d.serial) FROM group_members m JOIN devices d ON d.id = m.device_id
                       WHERE m.group_name = g.name) AS serials
               FROM groups g WHERE g.name = $1 AND NOT g.deleted"#,
            group,
        )
        .fetch_optional(&self.pool)
        .await?;
        let parsed = |serials: Option<Vec<String>>| {
            let serials = serials.unwrap_or_default();
            serials.iter().map(|serial| parse(serial)).collect()
        };
        serials.map(parsed).transpose()
    }

    /// Goes one step on with a group that changed: looks at up to `page` devices, corrects their membership, and marks those
    /// as due that a layer changed under. Groups that others are at work on are left alone.
    ///
    /// # Errors
    /// When the database fails; the same step is made again then.
    pub async fn settle_groups(&self, page: i64, at: DateTime<Utc>) -> Result<Settled> {
        let mut transaction = self.pool.begin().await?;
        let group = sqlx::query_as!(
            Unsettled,
            "SELECT name, selector, devices_after, members_after, deleted, actor FROM groups
             WHERE devices_after IS NOT NULL OR members_after IS NOT NULL
             ORDER BY name LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED",
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(group) = group else {
            return Ok(Settled::All);
        };
        let due = match (group.devices_after, group.members_after) {
            (Some(after), _) => group.enrol(&mut transaction, after, page).await?,
            (None, after) => group.inherit(&mut transaction, after.unwrap_or(0), page).await?,
        };
        mark_due(&mut transaction, &due, at, &group.actor, Source::Group).await?;
        transaction.commit().await?;
        Ok(Settled::Some(due.len()))
    }
}

impl Unsettled {
    /// Corrects the membership of a page of devices; those for which it changed.
    async fn enrol(&self, connection: &mut PgConnection, after: i64, page: i64) -> Result<Vec<i64>> {
        let selector: Selector = parse(&self.selector)?;
        let (last, looked_at, differing) = self.differing(connection, &selector, after, page).await?;
        let mut changed = Vec::new();
        if !differing.is_empty() {
            // Tags that are being changed are waited for, and looked at again below.
            sqlx::query!(
                "SELECT d.id FROM devices d JOIN device_settings s ON s.device_id = d.id
                 WHERE d.id = ANY($1) ORDER BY d.id FOR NO KEY UPDATE OF d, s",
                &differing,
            )
            .fetch_all(&mut *connection)
            .await?;
            changed = self.enter(connection, &selector, &differing).await?;
            sqlx::query!(
                "UPDATE device_settings SET layered = true WHERE device_id = ANY($1) AND NOT layered",
                &changed,
            )
            .execute(&mut *connection)
            .await?;
            changed.extend(self.leave(connection, &selector, &differing).await?);
        }
        sqlx::query!(
            "UPDATE groups SET devices_after = $2 WHERE name = $1",
            self.name,
            last.filter(|_| looked_at >= page),
        )
        .execute(connection)
        .await?;
        Ok(changed)
    }

    /// Of the `page` devices behind `after`: the last one's id, how many they are, and those whose membership is wrong.
    async fn differing(
        &self,
        connection: &mut PgConnection,
        selector: &Selector,
        after: i64,
        page: i64,
    ) -> Result<(Option<i64>, i64, Vec<i64>)> {
        let mut query = QueryBuilder::<Postgres>::new(
            "SELECT max(id), count(*), coalesce(array_agg(id ORDER BY id) FILTER (WHERE differs), '{}')
             FROM (SELECT d.id, (",
        );
        select::push(&mut query, selector);
        query
            .push(") <> (m.device_id IS NOT NULL) AS differs FROM devices d LEFT JOIN group_members m ON m.group_name = ")
            .push_bind(self.name.clone())
            .push(" AND m.device_id = d.id WHERE d.id > ")
            .push_bind(after)
            .push(" ORDER BY d.id LIMIT ")
            .push_bind(page)
            .push(") devices");
        Ok(query.build_query_as().fetch_one(connection).await?)
    }

    async fn enter(
        &self,
        connection: &mut PgConnection,
        selector: &Selector,
        devices: &[i64],
    ) -> Result<Vec<i64>> {
        let mut query =
            QueryBuilder::<Postgres>::new("INSERT INTO group_members (group_name, device_id) SELECT ");
        query
            .push_bind(self.name.clone())
            .push(", d.id FROM devices d WHERE d.id = ANY(")
            .push_bind(devices.to_vec())
            .push(") AND (");
        select::push(&mut query, selector);
        query.push(") ON CONFLICT DO NOTHING RETURNING device_id");
        Ok(query.build_query_scalar().fetch_all(connection).await?)
    }

    async fn leave(
        &self,
        connection: &mut PgConnection,
        selector: &Selector,
        devices: &[i64],
    ) -> Result<Vec<i64>> {
        let mut query = QueryBuilder::<Postgres>::new(
            "DELETE FROM group_members m USING devices d WHERE d.id = m.device_id AND m.group_name = ",
        );
        query
            .push_bind(self.name.clone())
            .push(" AND d.id = ANY(")
            .push_bind(devices.to_vec())
            .push(") AND NOT (");
        select::push(&mut query, selector);
        query.push(") RETURNING m.device_id");
        Ok(query.build_query_scalar().fetch_all(connection).await?)
    }

    /// A page of members that inherit something else now, or nothing more; the row of a deleted group goes with the last.
    async fn inherit(&self, connection: &mut PgConnection, after: i64, page: i64) -> Result<Vec<i64>> {
        let members = sqlx::query_scalar!(
            "SELECT device_id FROM group_members WHERE group_name = $1 AND device_id > $2 ORDER BY device_id LIMIT $3",
            self.name,
            after,
            page,
        )
        .fetch_all(&mut *connection)
        .await?;
        let next = members
            .last()
            .copied()
            .filter(|_| i64::try_from(members.len()).is_ok_and(|count| count >= page));
        if self.deleted {
            sqlx::query!(
                "DELETE FROM group_members WHERE group_name = $1 AND device_id = ANY($2)",
                self.name,
                &members,
            )
            .execute(&mut *connection)
            .await?;
        }
        if self.deleted && next.is_none() {
            sqlx::query!("DELETE FROM groups WHERE name = $1", self.name)
                .execute(connection)
                .await?;
        } else {
            sqlx::query!(
                "UPDATE groups SET members_after = $2 WHERE name = $1",
                self.name,
                next
            )
            .execute(connection)
            .await?;
        }
        Ok(members)
    }
}
