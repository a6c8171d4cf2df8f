//! Where devices stand, as it is read.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use setpoint_model::{
    DeviceId,
    alert::{Standing, State},
};
use sqlx::types::Json;

use super::{Row, Rule, rules::columns};
use crate::{Result, Store, settings::parse};

/// Where one device stands towards one rule.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceStanding {
    /// The device's serial.
    pub serial: String,
    /// Where it stands; `None` while nothing is wrong and never was.
    pub standing: Option<Standing>,
    /// The values that were looked at, by metric.
    pub values: Map<String, Value>,
}

/// Which devices of a rule are asked for.
#[derive(Debug, Clone, Copy)]
pub struct StatePage<'a> {
    /// In one of these states; empty for all.
    pub states: &'a [State],
    /// Behind this serial; empty for the first page.
    pub after: &'a str,
    /// At most so many.
    pub limit: i64,
}

pub(super) struct StandingRow {
    pub(super) state: Option<String>,
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) true_since: Option<DateTime<Utc>>,
    pub(super) false_since: Option<DateTime<Utc>>,
    pub(super) observed_at: Option<DateTime<Utc>>,
}

impl StandingRow {
    pub(super) fn standing(self) -> Result<Option<Standing>> {
        let (Some(state), Some(since)) = (self.state, self.since) else {
            return Ok(None);
        };
        Ok(Some(Standing {
            state: parse(&state)?,
            since,
            true_since: self.true_since,
            false_since: self.false_since,
            observed_at: self.observed_at,
        }))
    }
}

struct PageRow {
    serial: String,
    state: Option<String>,
    since: Option<DateTime<Utc>>,
    true_since: Option<DateTime<Utc>>,
    false_since: Option<DateTime<Utc>>,
    observed_at: Option<DateTime<Utc>>,
    values: Option<Json<Map<String, Value>>>,
}

impl TryFrom<PageRow> for DeviceStanding {
    type Error = crate::Error;

    fn try_from(row: PageRow) -> Result<Self> {
        let standing = StandingRow {
            state: row.state,
            since: row.since,
            true_since: row.true_since,
            false_since: row.false_since,
            observed_at: row.observed_at,
        };
        Ok(Self {
            serial: row.serial,
            standing: standing.standing()?,
            values: row.values.map(|values| values.0).unwrap_or_default(),
        })
    }
}

impl Store {
    /// A page of a rule's devices by serial, with where each stands: all that it is for, or those in some states.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn alert_devices(&self, rule: &Rule, page: StatePage<'_>) -> Result<Vec<DeviceStanding>> {
        let states: Vec<&str> = page.states.iter().map(|state| state.as_str()).collect();
        let rows = if page.states.is_empty() || page.states.contains(&State::Ok) {
            let (model, group, serial) = columns(&rule.definition.scope);
            sqlx::query_as!(
                PageRow,
                r#"SELECT d.serial, s.state AS "state?", s.since AS "since?", s.true_since, s.false_since, s.observed_at,
                          s.values AS "values?: Json<Map<String, Value>>"
                   FROM devices d LEFT JOIN alert_states s ON s.rule_id = $1 AND s.device_id = d.id
                   WHERE d.serial > $2 AND (cardinality($3::text[]) = 0 OR coalesce(s.state, 'ok') = ANY($3))
                     AND ($4::text IS NULL OR d.model = $4) AND ($5::text IS NULL OR d.serial = $5)
                     AND ($6::text IS NULL
                          OR d.id IN (SELECT device_id FROM group_members WHERE group_name = $6))
                   ORDER BY d.serial LIMIT $7"#,
                rule.id,
                page.after,
                &states as &[&str],
                model,
                serial,
                group,
                page.limit,
            )
            .fetch_all(&self.pool)
            .await?
        } else {
            sqlx::query_as!(
                PageRow,
                r#"SELECT d.serial, s.state AS "state?", s.since AS "since?", s.true_since, s.false_since, s.observed_at,
                          s.values AS "values?: Json<Map<String, Value>>"
                   FROM alert_states s JOIN devices d ON d.id = s.device_id
                   WHERE s.rule_id = $1 AND s.state <> 'ok' AND d.serial > $2 AND s.state = ANY($3)
                   ORDER BY d.serial LIMIT $4"#,
                rule.id,
                page.after,
                &states as &[&str],
                page.limit,
            )
            .fetch_all(&self.pool)
            .await?
        };
        rows.into_iter().map(DeviceStanding::try_from).collect()
    }

    /// The enabled rules that are for a device, by name, and where it stands towards each.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn device_alerts(&self, device: DeviceId) -> Result<Vec<(Rule, DeviceStanding)>> {
        let rules = sqlx::query_as!(
            Row,
            r#"SELECT a.id, a.name, a.title, a.condition, a.model, a.group_name, a.serial, a.severity, a.enabled,
                      a.resolve_after, a.version, a.era, a.begun_at, a.deleted, (sweep_after IS NOT NULL) AS "settling!",
                      a.created_at, a.updated_at
               FROM alerts a JOIN devices d ON d.id = $1
               WHERE NOT a.deleted AND a.enabled AND (a.model IS NULL OR a.model = d.model)
                 AND (a.serial IS NULL OR a.serial = d.serial)
                 AND (a.group_name IS NULL
                      OR a.group_name IN (SELECT m.group_name FROM group_members m WHERE m.device_id = d.id))
               ORDER BY a.name"#,
            device.0,
        )
        .fetch_all(&self.pool)
        .await?;
        let rows = sqlx::query!(
            r#"SELECT s.rule_id, d.serial, s.state, s.since, s.true_since, s.false_since, s.observed_at,
                      s.values AS "values: Json<Map<String, Value>>"
               FROM alert_states s JOIN devices d ON d.id = s.device_id WHERE s.device_id = $1"#,
            device.0,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut standings = std::collections::HashMap::with_capacity(rows.len());
        for row in rows {
            let standing = StandingRow {
                state: Some(row.state),
                since: Some(row.since),
                true_since: row.true_since,
                false_since: row.false_since,
                observed_at: row.observed_at,
            };
            let standing = DeviceStanding {
                serial: row.serial,
                standing: standing.standing()?,
                values: row.values.0,
            };
            standings.insert(row.rule_id, standing);
        }
        let mut alerts = Vec::with_capacity(rules.len());
        for row in rules {
            let rule = Rule::try_from(row)?;
            let standing = standings.remove(&rule.id).unwrap_or_else(|| DeviceStanding {
                serial: String::new(),
                standing: None,
                values: Map::new(),
            });
            alerts.push((rule, standing));
        }
        Ok(alerts)
    }
}
