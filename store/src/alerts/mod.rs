//! Alert rules: reading, making, changing and deleting them. Where devices stand is in [`states`], how that changes in
//! [`judging`], and what there is to look at in [`work`].

mod judging;
mod rules;
mod samples;
mod states;
mod work;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use setpoint_model::alert::{Definition, Scope, Severity, Span};
use sqlx::{Postgres, Transaction};

use crate::{
    Result, Store,
    audit::{self, NewEntry},
    settings::parse,
};

pub use judging::{DeviceFacts, LockedAlerts, NewState, StoredState, Told};
pub use rules::RuleChange;
pub use samples::{Newest, Sample};
pub use states::{DeviceStanding, StatePage};
pub use work::{Ended, EndedAlerts};

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its id, which no other rule ever had.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// What it says.
    pub definition: Definition,
    /// Rises with each change.
    pub version: i64,
    /// The version that last changed its condition.
    pub era: i64,
    /// Since when that holds.
    pub begun_at: DateTime<Utc>,
    /// Whether it was deleted: what fired is still to be resolved.
    pub deleted: bool,
    /// Whether all devices are still being looked at after a change.
    pub settling: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// For how many devices a rule is in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Pending.
    pub pending: i64,
    /// Firing.
    pub firing: i64,
    /// Resolved not long ago.
    pub resolved: i64,
}

struct Row {
    id: i64,
    name: String,
    title: String,
    condition: String,
    model: Option<String>,
    group_name: Option<String>,
    serial: Option<String>,
    severity: String,
    enabled: bool,
    resolve_after: Option<i32>,
    version: i64,
    era: i64,
    begun_at: DateTime<Utc>,
    deleted: bool,
    settling: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Rule {
    type Error = crate::Error;

    fn try_from(row: Row) -> Result<Self> {
        let scope = match (&row.model, &row.group_name, &row.serial) {
            (Some(model), _, _) => Scope::Model(parse(model)?),
            (None, Some(group), _) => Scope::Group(parse(group)?),
            (None, None, Some(serial)) => Scope::Serial(parse(serial)?),
            (None, None, None) => Scope::All,
        };
        let resolve_after = row
            .resolve_after
            .and_then(|seconds| Span::from_seconds(u32::try_from(seconds).ok()?));
        Ok(Self {
            id: row.id,
            name: row.name,
            definition: Definition {
                title: row.title,
                condition: parse(&row.condition)?,
                scope,
                severity: parse::<Severity>(&row.severity)?,
                enabled: row.enabled,
                resolve_after,
            },
            version: row.version,
            era: row.era,
            begun_at: row.begun_at,
            deleted: row.deleted,
            settling: row.settling,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl Store {
    /// A page of rules by name: those behind `after` (all if it is empty) with `search` in their name or title, in any
    /// case.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn alert_rules(&self, after: &str, search: Option<&str>, limit: i64) -> Result<Vec<Rule>> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, name, title, condition, model, group_name, serial, severity, enabled, resolve_after, version,
                      era, begun_at, deleted, (sweep_after IS NOT NULL) AS "settling!", created_at, updated_at
               FROM alerts WHERE NOT deleted AND name > $1
                 AND ($2::text IS NULL OR strpos(lower(name), lower($2)) > 0 OR strpos(lower(title), lower($2)) > 0)
               ORDER BY name LIMIT $3"#,
            after,
            search,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Rule::try_from).collect()
    }

    /// The rule of this name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn alert_rule(&self, name: &str) -> Result<Option<Rule>> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT id, name, title, condition, model, group_name, serial, severity, enabled, resolve_after, version,
                      era, begun_at, deleted, (sweep_after IS NOT NULL) AS "settling!", created_at, updated_at
               FROM alerts WHERE NOT deleted AND name = $1"#,
            name,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(Rule::try_from).transpose()
    }

    /// For how many devices each of these rules is in which state; a rule without any is left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn alert_counts(&self, rules: &[i64]) -> Result<HashMap<i64, Counts>> {
        let rows = sqlx::query!(
            r#"SELECT rule_id, count(*) FILTER (WHERE state = 'pending') AS "pending!",
                      count(*) FILTER (WHERE state = 'firing') AS "firing!",
                      count(*) FILTER (WHERE state = 'resolved') AS "resolved!"
               FROM alert_states WHERE rule_id = ANY($1) AND state <> 'ok' GROUP BY rule_id"#,
            rules,
        )
        .fetch_all(&self.pool)
        .await?;
        let counts = |pending, firing, resolved| Counts {
            pending,
            firing,
            resolved,
        };
        Ok(rows
            .into_iter()
            .map(|row| (row.rule_id, counts(row.pending, row.firing, row.resolved)))
            .collect())
    }

    /// How many alerts fire and are pending, under all rules.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn alerts_firing(&self) -> Result<(i64, i64)> {
        let row = sqlx::query!(
            r#"SELECT count(*) FILTER (WHERE state = 'firing') AS "firing!",
                      count(*) FILTER (WHERE state = 'pending') AS "pending!"
               FROM alert_states WHERE state <> 'ok'"#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((row.firing, row.pending))
    }

    /// Something that differs whenever any rule was made, changed or deleted since.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn alert_rules_version(&self) -> Result<(i64, i64)> {
        let row = sqlx::query!(
            r#"SELECT coalesce(max(version), 0) AS "newest!", count(*) AS "count!" FROM alerts WHERE NOT deleted"#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((row.newest, row.count))
    }
}
