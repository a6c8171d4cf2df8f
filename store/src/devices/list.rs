//! Lists of devices: filters, order and keyset pages.

use chrono::{DateTime, Utc};
use serde_json::Value;
use setpoint_model::Selector;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::{Device, Row, select};
use crate::{Result, Store};

/// Which devices; a field that is `None` asks for nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceFilter {
    /// Exactly this serial.
    pub serial: Option<String>,
    /// Exactly this name.
    pub name: Option<String>,
    /// This model.
    pub model: Option<String>,
    /// This time zone.
    pub time_zone: Option<String>,
    /// Connected, or not.
    pub online: Option<bool>,
    /// Each of these tags with one of its values: `floor=2` may mean the text or the number.
    pub tags: Vec<(String, Vec<Value>)>,
    /// Those that this means by their tags.
    pub selector: Option<Selector>,
    /// Members of this group.
    pub group: Option<String>,
    /// A part of the serial or the name, in any case.
    pub search: Option<String>,
    /// Registered to or shared with this person.
    pub owner: Option<Uuid>,
}

/// By what devices are sorted; the serial breaks ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// By serial.
    Serial,
    /// By name.
    Name,
    /// By model.
    Model,
    /// By when they were made.
    CreatedAt,
    /// By when their description last changed.
    UpdatedAt,
    /// By when they were last heard of; those that never were come first.
    LastSeen,
}

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSort {
    /// By what.
    pub key: SortKey,
    /// The largest first.
    pub descending: bool,
}

/// Where a page ended: the last device's place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// In an order by a text: the text, and the serial.
    Text(String, String),
    /// In an order by a time: the time, and the serial. `None` for a device that was never heard of.
    Time(Option<DateTime<Utc>>, String),
}

impl SortKey {
    /// The SQL that is sorted by; never null, so that keyset comparison holds.
    fn expression(self) -> &'static str {
        match self {
            Self::Serial => "d.serial",
            Self::Name => "d.name",
            Self::Model => "d.model",
            Self::CreatedAt => "d.created_at",
            Self::UpdatedAt => "d.updated_at",
            Self::LastSeen => "coalesce(p.last_seen, '-infinity')",
        }
    }

    /// A device's place in this order.
    pub fn position(self, device: &Device) -> Position {
        let serial = device.serial.as_str().to_owned();
        match self {
            Self::Serial => Position::Text(serial.clone(), serial),
            Self::Name => Position::Text(device.description.name.clone(), serial),
            Self::Model => Position::Text(device.description.model.clone(), serial),
            Self::CreatedAt => Position::Time(Some(device.created_at), serial),
            Self::UpdatedAt => Position::Time(Some(device.updated_at), serial),
            Self::LastSeen => Position::Time(device.last_seen, serial),
        }
    }
}

impl Store {
    /// A page of devices: those behind `after` in the order of `sort`, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn devices(
        &self,
        filter: &DeviceFilter,
        sort: DeviceSort,
        after: Option<&Position>,
        limit: i64,
    ) -> Result<Vec<Device>> {
        let mut query = QueryBuilder::<Postgres>::new(
            "SELECT d.id, d.serial, d.name, d.model, d.tags, d.time_zone, d.location, d.created_at, d.updated_at,
                    coalesce(p.online, false) AS online, p.last_seen, p.disconnect_reason,
                    s.version AS settings_version, c.created_at AS credential_created_at, d.stolen_at
             FROM devices d JOIN device_settings s ON s.device_id = d.id
             LEFT JOIN device_presence p ON p.device_id = d.id
             LEFT JOIN device_credentials c ON c.device_id = d.id
             WHERE true",
        );
        push_filter(&mut query, filter);
        let (key, comparison, direction) = match sort.descending {
            false => (sort.key.expression(), ">", "ASC"),
            true => (sort.key.expression(), "<", "DESC"),
        };
        if let Some(after) = after {
            query.push(format_args!(" AND ({key}, d.serial) {comparison} ("));
            let serial = match after {
                Position::Text(text, serial) => {
                    query.push_bind(text.clone());
                    serial
                }
                Position::Time(time, serial) => {
                    query
                        .push("coalesce(")
                        .push_bind(*time)
                        .push("::timestamptz, '-infinity')");
                    serial
                }
            };
            query.push(", ").push_bind(serial.clone()).push(")");
        }
        query
            .push(format_args!(
                " ORDER BY {key} {direction}, d.serial {direction} LIMIT "
            ))
            .push_bind(limit);
        let rows: Vec<Row> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter().map(Device::try_from).collect()
    }
}

fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &DeviceFilter) {
    let texts = [
        (" AND d.serial = ", &filter.serial),
        (" AND d.name = ", &filter.name),
        (" AND d.model = ", &filter.model),
        (" AND d.time_zone = ", &filter.time_zone),
    ];
    for (condition, text) in texts {
        if let Some(text) = text {
            query.push(condition).push_bind(text.clone());
        }
    }
    if let Some(online) = filter.online {
        query.push(" AND coalesce(p.online, false) = ").push_bind(online);
    }
    for (name, values) in &filter.tags {
        let choices: Vec<Value> = values
            .iter()
            .map(|value| serde_json::json!({ name: value }))
            .collect();
        query.push(" AND d.tags @> ANY(").push_bind(choices).push(")");
    }
    if let Some(selector) = &filter.selector {
        query.push(" AND (");
        select::push(query, selector);
        query.push(")");
    }
    if let Some(group) = &filter.group {
        query
            .push(" AND d.id IN (SELECT device_id FROM group_members WHERE group_name = ")
            .push_bind(group.clone())
            .push(")");
    }
    if let Some(owner) = filter.owner {
        query
            .push(" AND d.id IN (SELECT device_id FROM device_owners WHERE user_id = ")
            .push_bind(owner)
            .push(")");
    }
    if let Some(search) = &filter.search {
        let pattern = format!(
            "%{}%",
            search
                .replace('\\', "\\\\")
                .replace('%', "\\%")
                .replace('_', "\\_")
        );
        query.push(" AND (d.serial ILIKE ").push_bind(pattern.clone());
        query.push(" OR d.name ILIKE ").push_bind(pattern).push(")");
    }
}
