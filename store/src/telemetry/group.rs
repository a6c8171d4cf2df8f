//! Telemetry of many devices: which they are, how many series they have, and the newest value of each.

use chrono::{DateTime, TimeDelta, Utc};
use setpoint_model::{DeviceId, Selector, Serial, telemetry::Value};
use sqlx::{FromRow, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::{
    Result, Store,
    devices::{Selected, select},
    settings::parse,
};

/// How far back the newest sample of a metric is looked for before all partitions are.
const RECENT: TimeDelta = TimeDelta::days(2);

/// Which devices; a field that is `None` asks for nothing.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// Those that this means by their tags.
    pub selector: Option<Selector>,
    /// Registered to or shared with this person.
    pub owner: Option<Uuid>,
}

/// How many series some devices have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesCount {
    /// Pairs of a device and a metric.
    pub series: i64,
    /// Metrics.
    pub metrics: i64,
}

/// A device's metric, and its newest value.
#[derive(Debug, Clone, PartialEq)]
pub struct LatestOf {
    /// The device.
    pub device: Selected,
    /// The metric's name.
    pub metric: String,
    /// The metric's id.
    pub metric_id: i32,
    /// When it was taken, and the value; `None` if its samples are gone.
    pub newest: Option<(DateTime<Utc>, Value<'static>)>,
}

#[derive(FromRow)]
struct Row {
    id: i64,
    serial: String,
    metric_id: i32,
    name: String,
    at: Option<DateTime<Utc>>,
    number: Option<f64>,
    flag: Option<bool>,
    text: Option<String>,
}

#[derive(FromRow)]
struct Old {
    device_id: i64,
    metric_id: i32,
    at: DateTime<Utc>,
    number: Option<f64>,
    flag: Option<bool>,
    text: Option<String>,
}

fn value(number: Option<f64>, flag: Option<bool>, text: Option<String>) -> Option<Value<'static>> {
    match (number, flag, text) {
        (Some(number), _, _) => Some(Value::Number(number)),
        (None, Some(flag), _) => Some(Value::Flag(flag)),
        (None, None, text) => text.map(|text| Value::Text(text.into())),
    }
}

/// Adds the condition that the device `d` belongs to the fleet.
fn push(query: &mut QueryBuilder<Postgres>, fleet: &Fleet) {
    query.push("true");
    if let Some(selector) = &fleet.selector {
        query.push(" AND (");
        select::push(query, selector);
        query.push(")");
    }
    if let Some(owner) = fleet.owner {
        query
            .push(" AND d.id IN (SELECT device_id FROM device_owners WHERE user_id = ")
            .push_bind(owner)
            .push(")");
    }
}

impl Store {
    /// The devices of a fleet, at most `limit`, by id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn fleet(&self, fleet: &Fleet, limit: i64) -> Result<Vec<Selected>> {
        let mut query = QueryBuilder::<Postgres>::new("SELECT d.id, d.serial FROM devices d WHERE ");
        push(&mut query, fleet);
        query.push(" ORDER BY d.id LIMIT ").push_bind(limit);
        let rows: Vec<(i64, String)> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter()
            .map(|(id, serial)| selected(id, &serial))
            .collect()
    }

    /// How many series of these metrics (all, with `None`) the devices have.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_series(
        &self,
        devices: &[DeviceId],
        metrics: Option<&[String]>,
    ) -> Result<SeriesCount> {
        let devices: Vec<i64> = devices.iter().map(|device| device.0).collect();
        let counted = sqlx::query_as!(
            SeriesCount,
            r#"SELECT count(*) AS "series!", count(DISTINCT d.metric_id) AS "metrics!"
               FROM device_metrics d JOIN metrics m ON m.id = d.metric_id
               WHERE d.device_id = ANY($1) AND ($2::text[] IS NULL OR m.name = ANY($2))"#,
            &devices,
            metrics,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(counted)
    }

    /// A page of the newest values of a fleet's devices, by device and metric: those behind `after`, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn latest_of_fleet(
        &self,
        fleet: &Fleet,
        metrics: Option<&[String]>,
        after: (DeviceId, i32),
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<Vec<LatestOf>> {
        let mut query = QueryBuilder::<Postgres>::new(
            "SELECT p.id, p.serial, p.metric_id, p.name, t.at, t.number, t.flag, t.text FROM (
                 SELECT d.id, d.serial, dm.metric_id, m.name
                 FROM devices d JOIN device_metrics dm ON dm.device_id = d.id JOIN metrics m ON m.id = dm.metric_id
                 WHERE ",
        );
        push(&mut query, fleet);
        if let Some(metrics) = metrics {
            query
                .push(" AND m.name = ANY(")
                .push_bind(metrics.to_vec())
                .push(")");
        }
        let (device, metric) = after;
        query
            .push(" AND (d.id, dm.metric_id) > (")
            .push_bind(device.0)
            .push(", ")
            .push_bind(metric)
            .push(") ORDER BY d.id, dm.metric_id LIMIT ")
            .push_bind(limit)
            // Nearly always all are recent; only metrics that fell silent are looked for in every partition.
            .push(
                ") p LEFT JOIN LATERAL (
                     SELECT t.at, t.number, t.flag, t.text FROM telemetry t
                     WHERE t.device_id = p.id AND t.metric_id = p.metric_id AND t.at >= ",
            )
            .push_bind(now - RECENT)
            .push(" ORDER BY t.at DESC LIMIT 1) t ON true ORDER BY p.id, p.metric_id");
        let rows: Vec<Row> = query.build_query_as().fetch_all(&self.pool).await?;
        let silent = rows.iter().filter(|row| row.at.is_none());
        let (devices, metrics): (Vec<i64>, Vec<i32>) = silent.map(|row| (row.id, row.metric_id)).unzip();
        let mut old = self
            .last_of_series(&devices, &metrics)
            .await?
            .into_iter()
            .peekable();
        let mut found = Vec::new();
        for row in rows {
            let newest = match row.at {
                Some(at) => value(row.number, row.flag, row.text).map(|value| (at, value)),
                None => old
                    .next_if(|old| (old.device_id, old.metric_id) == (row.id, row.metric_id))
                    .and_then(|old| Some((old.at, value(old.number, old.flag, old.text)?))),
            };
            found.push(LatestOf {
                device: selected(row.id, &row.serial)?,
                metric: row.name,
                metric_id: row.metric_id,
                newest,
            });
        }
        Ok(found)
    }

    /// The newest sample of each of these series, however old, by device and metric.
    async fn last_of_series(&self, devices: &[i64], metrics: &[i32]) -> Result<Vec<Old>> {
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query_as!(
            Old,
            r#"SELECT s.device_id AS "device_id!", s.metric_id AS "metric_id!", t.at AS "at!", t.number, t.flag, t.text
               FROM unnest($1::bigint[], $2::integer[]) AS s (device_id, metric_id)
               CROSS JOIN LATERAL (
                   SELECT t.at, t.number, t.flag, t.text FROM telemetry t
                   WHERE t.device_id = s.device_id AND t.metric_id = s.metric_id
                   ORDER BY t.at DESC LIMIT 1) t
               ORDER BY 1, 2"#,
            devices,
            metrics,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }
}

fn selected(id: i64, serial: &str) -> Result<Selected> {
    Ok(Selected {
        id: DeviceId(id),
        serial: parse::<Serial>(serial)?,
    })
}
