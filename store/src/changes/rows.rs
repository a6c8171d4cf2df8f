//! Rows as Postgres gives them, and the counts.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use setpoint_model::{
    change::{Abort, State},
    settings::Document,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Change, Counts};
use crate::{Error, Result, settings::parse};

pub(super) struct ChangeRow {
    pub(super) id: Uuid,
    pub(super) state: String,
    pub(super) stage: Option<String>,
    pub(super) patch: Value,
    pub(super) selection: Value,
    pub(super) selected: i32,
    pub(super) canary: Option<String>,
    pub(super) canary_end: Option<i32>,
    pub(super) rate_per_minute: Option<i32>,
    pub(super) refused_percent: f64,
    pub(super) pending_percent: f64,
    pub(super) after_ms: i64,
    pub(super) actor: String,
    pub(super) undo_actor: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) finished_at: Option<DateTime<Utc>>,
    pub(super) next_at: Option<DateTime<Utc>>,
    pub(super) looked_at: Option<DateTime<Utc>>,
    #[expect(dead_code, reason = "part of every row; asked for by queries alone")]
    pub(super) due_at: Option<DateTime<Utc>>,
}

impl TryFrom<ChangeRow> for Change {
    type Error = Error;

    fn try_from(row: ChangeRow) -> Result<Self> {
        let state = State::parse(&row.state, row.stage.as_deref())
            .map_err(|error| Error::Query(sqlx::Error::Decode(Box::new(error))))?;
        Ok(Self {
            id: row.id,
            state,
            patch: document(row.patch),
            selection: row.selection,
            selected: row.selected,
            canary: row.canary,
            canary_end: row.canary_end,
            rate_per_minute: row.rate_per_minute,
            abort: Abort {
                refused_percent: row.refused_percent,
                pending_percent: row.pending_percent,
                after: Duration::from_millis(u64::try_from(row.after_ms).unwrap_or_default()),
            },
            actor: row.actor,
            undo_actor: row.undo_actor,
            reason: row.reason,
            created_at: row.created_at,
            finished_at: row.finished_at,
            next_at: row.next_at,
            looked_at: row.looked_at,
        })
    }
}

/// The object that was written there.
pub(super) fn document(value: Value) -> Document {
    match value {
        Value::Object(document) => document,
        _ => Document::new(),
    }
}

/// A duration as the table keeps it.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// How many devices stand where now; `silent_since`: which of them count as silent. Devices that have answered for
/// good are counted in the index; what those that may still answer say now is looked up.
pub(super) async fn counts(
    connection: &mut PgConnection,
    id: Uuid,
    silent_since: Option<DateTime<Utc>>,
) -> Result<Counts> {
    let rows = sqlx::query!(
        r#"SELECT state AS "state!", count(*) AS "devices!", 0::bigint AS "silent!" FROM change_devices
           WHERE change_id = $1 AND state NOT IN ('pending', 'refused') GROUP BY state
           UNION ALL
           SELECT state, count(*), count(*) FILTER (WHERE state = 'pending' AND changed_at <= $2)
           FROM change_answers WHERE change_id = $1 GROUP BY state"#,
        id,
        silent_since,
    )
    .fetch_all(connection)
    .await?;
    let mut counts = Counts::default();
    for row in rows {
        let devices = u32::try_from(row.devices).unwrap_or(u32::MAX);
        let count = counts.outcomes.entry(parse(&row.state)?).or_default();
        *count = count.saturating_add(devices);
        counts.silent = counts
            .silent
            .saturating_add(u32::try_from(row.silent).unwrap_or(u32::MAX));
    }
    Ok(counts)
}

/// How many changes run or are paused.
pub(super) async fn open(connection: &mut PgConnection) -> Result<i64> {
    let open = sqlx::query_scalar!(
        r#"SELECT count(*) AS "open!" FROM changes WHERE due_at IS NOT NULL OR state = 'paused'"#
    )
    .fetch_one(connection)
    .await?;
    Ok(open)
}
