//! Beginning a change: its devices are written down page by page, in a transaction that stands or falls as a whole.

use chrono::{DateTime, Utc};
use setpoint_model::change::{Canary, Stage, State};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::{NewChange, SelectedDevice, rows};
use crate::{
    Result, Store,
    audit::{self, NewEntry},
};

/// Key of the advisory lock under which open changes are counted.
const OPEN_LOCK: i64 = 0x5e79_0350;

/// A change whose devices are being written down; nothing of it is there until it is begun.
#[derive(Debug)]
pub struct ChangeDraft {
    transaction: Transaction<'static, Postgres>,
    id: Uuid,
    devices: i32,
}

impl Store {
    /// Drafts a change.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn draft_change(&self, new: &NewChange) -> Result<ChangeDraft> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "INSERT INTO changes (id, state, stage, patch, selection, canary, rate_per_minute, refused_percent,
                                  pending_percent, after_ms, actor, created_at)
             VALUES ($1, 'waves', 'waves', $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            new.id,
            serde_json::Value::Object(new.patch.clone()),
            new.selection,
            new.canary,
            new.rate_per_minute,
            new.abort.refused_percent,
            new.abort.pending_percent,
            rows::millis(new.abort.after),
            new.actor,
            new.at,
        )
        .execute(&mut *transaction)
        .await?;
        Ok(ChangeDraft {
            transaction,
            id: new.id,
            devices: 0,
        })
    }
}

impl ChangeDraft {
    /// Adds devices, in the order in which they get the change.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add(&mut self, devices: &[SelectedDevice]) -> Result<()> {
        let ids: Vec<i64> = devices.iter().map(|device| device.device_id.0).collect();
        let serials: Vec<&str> = devices.iter().map(|device| device.serial.as_str()).collect();
        let states: Vec<&str> = devices.iter().map(|device| device.outcome.as_str()).collect();
        let messages: Vec<Option<&str>> = devices.iter().map(|device| device.message.as_deref()).collect();
        let added = sqlx::query!(
            "INSERT INTO change_devices (change_id, place, device_id, serial, state, message)
             SELECT $1, $2 + d.place::integer - 1, d.device_id, d.serial, d.state, d.message
             FROM unnest($3::bigint[], $4::text[], $5::text[], $6::text[]) WITH ORDINALITY
                  AS d (device_id, serial, state, message, place)",
            self.id,
            self.devices,
            &ids,
            &serials as &[&str],
            &states as &[&str],
            &messages as &[Option<&str>],
        )
        .execute(&mut *self.transaction)
        .await?;
        let added = i32::try_from(added.rows_affected()).unwrap_or(i32::MAX);
        self.devices = self.devices.saturating_add(added);
        Ok(())
    }

    /// Begins the change with the devices that were added, unless `max_open` run or are paused already: then it is
    /// dropped, and `None` is returned. One that has nothing to do is completed at once.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin(
        mut self,
        canary: Option<Canary>,
        max_open: i64,
        at: DateTime<Utc>,
        entry: &NewEntry,
    ) -> Result<Option<State>> {
        sqlx::query!("SELECT pg_advisory_xact_lock($1)", OPEN_LOCK)
            .execute(&mut *self.transaction)
            .await?;
        let waiting = sqlx::query_scalar!(
            r#"SELECT count(*) AS "waiting!" FROM change_devices WHERE change_id = $1 AND state = 'waiting'"#,
            self.id,
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let state = match canary {
            _ if waiting == 0 => State::Completed,
            Some(_) => State::Running(Stage::Canary),
            None => State::Running(Stage::Waves),
        };
        if state.is_open() && rows::open(&mut self.transaction).await? >= max_open {
            self.transaction.rollback().await?;
            return Ok(None);
        }
        let last = canary.map(|canary| i64::from(canary.size(waiting).saturating_sub(1)));
        sqlx::query!(
            "UPDATE changes SET state = $2, stage = $3, selected = $4, next_at = $5::timestamptz,
                 due_at = CASE WHEN $7 THEN $5::timestamptz END,
                 finished_at = CASE WHEN NOT $7 THEN $5::timestamptz END,
                 canary_end = (SELECT place FROM change_devices WHERE change_id = $1 AND state = 'waiting'
                               AND $6::bigint IS NOT NULL ORDER BY place OFFSET $6 LIMIT 1)
             WHERE id = $1",
            self.id,
            state.as_str(),
            state.stage().map(Stage::as_str),
            self.devices,
            at,
            last,
            state.is_active(),
        )
        .execute(&mut *self.transaction)
        .await?;
        audit::write(&mut self.transaction, entry).await?;
        self.transaction.commit().await?;
        Ok(Some(state))
    }
}
