//! Bulk changes: one patch for many devices, and what became of it on each.
//!
//! Who works on a change locks its row in `changes` first, and devices after it.

mod begin;
mod devices;
mod rows;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use setpoint_model::{
    DeviceId, Serial,
    change::{Abort, Outcome, State},
    settings::Document,
};
use uuid::Uuid;

use crate::{Result, Store};

pub use begin::ChangeDraft;
pub use devices::{ChangeDevice, DevicePage};
pub use work::{ClaimedChange, Given, NewOverrides, Taken, Undoable, WaitingDevice};

/// A bulk change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its id; version 7, so that ids sort by age.
    pub id: Uuid,
    /// Where it stands.
    pub state: State,
    /// The merge patch.
    pub patch: Document,
    /// How its devices were selected: `{"selector": ..}`, `{"group": ..}` or `{"serials": how many}`.
    pub selection: Value,
    /// How many devices were selected.
    pub selected: i32,
    /// The canary as it was asked for.
    pub canary: Option<String>,
    /// The last place of the canary.
    pub canary_end: Option<i32>,
    /// The pace of waves; as fast as possible without.
    pub rate_per_minute: Option<i32>,
    /// When it stops itself.
    pub abort: Abort,
    /// Who began it: `user:anna`.
    pub actor: String,
    /// Who has it taken back.
    pub undo_actor: Option<String>,
    /// Why it stopped itself.
    pub reason: Option<String>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it came to its end.
    pub finished_at: Option<DateTime<Utc>>,
    /// When the pace allows the next device.
    pub next_at: Option<DateTime<Utc>>,
    /// When the answers were last looked at.
    pub looked_at: Option<DateTime<Utc>>,
}

/// A change to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct NewChange {
    /// Its id.
    pub id: Uuid,
    /// The merge patch.
    pub patch: Document,
    /// How its devices were selected.
    pub selection: Value,
    /// The canary as it was asked for.
    pub canary: Option<String>,
    /// The pace of waves.
    pub rate_per_minute: Option<i32>,
    /// When it stops itself.
    pub abort: Abort,
    /// Who begins it.
    pub actor: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// A device that was selected, and judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedDevice {
    /// The device.
    pub device_id: DeviceId,
    /// Its serial.
    pub serial: Serial,
    /// [`Outcome::Waiting`], [`Outcome::Invalid`] or [`Outcome::Unchanged`].
    pub outcome: Outcome,
    /// What is wrong with the patch for it.
    pub message: Option<String>,
}

/// How many devices of a change stand where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// By outcome; one that is missing counts none.
    pub outcomes: BTreeMap<Outcome, u32>,
    /// Those pending since before a moment asked for.
    pub silent: u32,
}

impl Counts {
    /// How many devices stand there.
    pub fn of(&self, outcome: Outcome) -> u32 {
        self.outcomes.get(&outcome).copied().unwrap_or_default()
    }
}

impl Store {
    /// A change; `None` if there is none of this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn change(&self, id: Uuid) -> Result<Option<Change>> {
        let row = sqlx::query_as!(rows::ChangeRow, "SELECT * FROM changes WHERE id = $1", id)
            .fetch_optional(&self.pool)
            .await?;
        row.map(Change::try_from).transpose()
    }

    /// A page of changes, newest first: those before `before`, all if it is `None`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn changes(&self, before: Option<Uuid>, limit: i64) -> Result<Vec<Change>> {
        let rows = sqlx::query_as!(
            rows::ChangeRow,
            "SELECT * FROM changes WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2",
            before,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Change::try_from).collect()
    }

    /// How many devices of a change stand where at this moment.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn change_counts(&self, id: Uuid) -> Result<Counts> {
        let mut connection = self.pool.acquire().await?;
        rows::counts(&mut connection, id, None).await
    }

    /// How many changes run or are paused.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open_changes(&self) -> Result<i64> {
        let mut connection = self.pool.acquire().await?;
        rows::open(&mut connection).await
    }

    /// When the next change is due.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_change_due(&self) -> Result<Option<DateTime<Utc>>> {
        Ok(
            sqlx::query_scalar!("SELECT min(due_at) FROM changes WHERE due_at IS NOT NULL")
                .fetch_one(&self.pool)
                .await?,
        )
    }

    /// Puts a change off that could not be worked on, so that it keeps none of the others waiting.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn defer_change(&self, id: Uuid, until: DateTime<Utc>) -> Result<()> {
        sqlx::query!(
            "UPDATE changes SET due_at = greatest(due_at, $2) WHERE id = $1 AND due_at IS NOT NULL",
            id,
            until,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Removes one change that ended before `horizon`, with the record of its devices; `false` if there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire_change(&self, horizon: DateTime<Utc>) -> Result<bool> {
        let gone = sqlx::query!(
            "DELETE FROM changes WHERE id = (
                 SELECT id FROM changes WHERE finished_at < $1 AND due_at IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED)",
            horizon,
        )
        .execute(&self.pool)
        .await?;
        Ok(gone.rows_affected() > 0)
    }
}
