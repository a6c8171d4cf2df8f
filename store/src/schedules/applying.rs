//! Which schedules apply to which devices: their own, and those of the groups they belong to.

use std::collections::HashMap;

use chrono_tz::Tz;
use setpoint_model::{
    DeviceId,
    schedule::{Definition, Owner, Schedule},
    settings::Document,
};
use sqlx::{PgConnection, types::Json};

use super::{Holder, plan};
use crate::{
    Result, Store,
    settings::{LockedSettings, parse},
};

/// The enabled schedules that apply to some devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applying {
    /// The schedules, in no order.
    pub schedules: Vec<AppliedSchedule>,
    /// Of each device that one applies to, what its schedules go by.
    pub clocks: HashMap<DeviceId, Clock>,
}

/// A schedule with the devices that it applies to.
#[derive(Debug, Clone, PartialEq)]
pub struct AppliedSchedule {
    /// The schedule.
    pub schedule: Schedule,
    /// Those of the devices asked for that it applies to, by id.
    pub devices: Vec<DeviceId>,
}

/// What a device's schedules go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The device's time zone.
    pub zone: Tz,
    /// Whether its model wants the schedules in the settings document.
    pub in_document: bool,
}

impl Applying {
    /// The schedules that apply to a device.
    pub fn to(&self, device: DeviceId) -> impl Iterator<Item = &Schedule> {
        let applies = move |applied: &&AppliedSchedule| applied.devices.binary_search(&device).is_ok();
        self.schedules
            .iter()
            .filter(applies)
            .map(|applied| &applied.schedule)
    }
}

impl LockedSettings {
    /// The schedules that apply to devices among those locked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schedules(&mut self, devices: &[DeviceId]) -> Result<Applying> {
        applying(&mut self.transaction, devices).await
    }
}

impl Store {
    /// The enabled schedules that apply to a device.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schedules_applying(&self, device: DeviceId) -> Result<Vec<Schedule>> {
        let mut connection = self.pool.acquire().await?;
        let applying = applying(&mut connection, &[device]).await?;
        let schedules = applying.schedules.into_iter();
        Ok(schedules.map(|applied| applied.schedule).collect())
    }

    /// The schedules of a group as they apply to its members; `i64::MAX` of them at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schedules_of_group(&self, group: &str) -> Result<Vec<Schedule>> {
        let schedules = self
            .schedules(&Holder::Group(group.to_owned()), "", i64::MAX)
            .await?;
        let owned = |stored: super::StoredSchedule| Schedule {
            // All are of one group: its priority decides nothing among them.
            owner: Owner::Group {
                priority: 0,
                name: group.to_owned(),
            },
            name: stored.name,
            definition: stored.definition,
        };
        Ok(schedules.into_iter().map(owned).collect())
    }
}

async fn applying(connection: &mut PgConnection, devices: &[DeviceId]) -> Result<Applying> {
    let ids: Vec<i64> = devices.iter().map(|device| device.0).collect();
    let rows = sqlx::query!(
        r#"SELECT NULL AS group_name, NULL::integer AS group_priority, s.name AS "name!",
                  s.plan AS "plan!: Json<Document>", s.settings AS "settings!: Json<Document>",
                  s.priority AS "priority!", ARRAY[s.device_id] AS "devices!"
           FROM schedules s WHERE s.device_id = ANY($1) AND s.enabled
           UNION ALL
           SELECT g.name, g.priority, s.name, s.plan, s.settings, s.priority, m.devices
           FROM (SELECT group_name, array_agg(device_id ORDER BY device_id) AS devices
                 FROM group_members WHERE device_id = ANY($1) GROUP BY group_name) m
           JOIN groups g ON g.name = m.group_name JOIN schedules s ON s.group_name = g.name
           WHERE s.enabled AND NOT g.deleted"#,
        &ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut schedules = Vec::with_capacity(rows.len());
    for row in rows {
        let owner = match (row.group_name, row.group_priority) {
            (Some(name), Some(priority)) => Owner::Group { priority, name },
            _ => Owner::Device,
        };
        let definition = Definition {
            plan: plan(row.plan.0)?,
            settings: row.settings.0,
            enabled: true,
            priority: row.priority,
        };
        schedules.push(AppliedSchedule {
            schedule: Schedule {
                owner,
                name: parse(&row.name)?,
                definition,
            },
            devices: row.devices.into_iter().map(DeviceId).collect(),
        });
    }
    let clocks = if schedules.is_empty() {
        HashMap::new()
    } else {
        clocks(connection, &ids).await?
    };
    Ok(Applying { schedules, clocks })
}

async fn clocks(connection: &mut PgConnection, devices: &[i64]) -> Result<HashMap<DeviceId, Clock>> {
    let rows = sqlx::query!(
        "SELECT d.id, d.time_zone, m.schedules_in_document
         FROM devices d JOIN models m ON m.name = d.model WHERE d.id = ANY($1)",
        devices,
    )
    .fetch_all(connection)
    .await?;
    let clock = |row: (i64, String, bool)| {
        let (id, zone, in_document) = row;
        let zone = parse::<Tz>(&zone)?;
        Ok((DeviceId(id), Clock { zone, in_document }))
    };
    rows.into_iter()
        .map(|row| clock((row.id, row.time_zone, row.schedules_in_document)))
        .collect()
}
