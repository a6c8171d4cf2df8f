//! Working on a change: claim it, give it to some devices or put some back, and say when to go on, in one transaction.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use setpoint_model::{
    DeviceId, Serial,
    change::{Outcome, Stage, State},
    settings::Document,
};
use sqlx::types::Json;
use uuid::Uuid;

use super::{Change, Counts, rows};
use crate::{
    Result, Store,
    audit::{self, NewEntry},
    settings::{LockedSettings, parse},
};

/// A change that nobody else works on until this is committed or dropped.
#[derive(Debug)]
pub struct ClaimedChange {
    /// The change as it stands.
    pub change: Change,
    /// The devices that are locked with it: none at first.
    pub locked: LockedSettings,
}

/// A device that waits for the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingDevice {
    /// Its place.
    pub place: i32,
    /// The device.
    pub device_id: DeviceId,
    /// Its serial.
    pub serial: Serial,
}

/// A device to which the change was given, or for which it came to nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// Its place.
    pub place: i32,
    /// [`Outcome::Pending`], [`Outcome::Unchanged`], [`Outcome::Invalid`] or [`Outcome::Gone`].
    pub outcome: Outcome,
    /// Why it came to nothing.
    pub message: Option<String>,
    /// The version that it made.
    pub version: Option<i64>,
    /// The keys that changed by it.
    pub keys: Vec<String>,
    /// The overrides of the patch's keys before and after; `None` where nothing was written.
    pub overrides: Option<(Document, Document)>,
}

/// What is set on a device itself from now on, where that changes nothing of what it should run.
#[derive(Debug, Clone, PartialEq)]
pub struct NewOverrides {
    /// The device.
    pub device_id: DeviceId,
    /// What is set on it.
    pub overrides: Document,
    /// Key to the layer its value comes from.
    pub origins: BTreeMap<String, String>,
}

/// A device that has something to put back.
#[derive(Debug, Clone, PartialEq)]
pub struct Undoable {
    /// Its place.
    pub place: i32,
    /// The device.
    pub device_id: DeviceId,
    /// Its serial.
    pub serial: Serial,
    /// The overrides of the patch's keys before the change.
    pub before: Document,
    /// And after it.
    pub after: Document,
}

/// A device that was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its place.
    pub place: i32,
    /// [`Outcome::Undone`], [`Outcome::Kept`] or [`Outcome::Gone`].
    pub outcome: Outcome,
    /// What stayed, and why.
    pub message: Option<String>,
}

impl Store {
    /// Claims the change that is due longest and that nobody works on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_change(&self, now: DateTime<Utc>) -> Result<Option<ClaimedChange>> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query_as!(
            rows::ChangeRow,
            "SELECT * FROM changes WHERE due_at <= $1 ORDER BY due_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED",
            now,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        ClaimedChange::of(row, transaction).await
    }

    /// Claims one change, waiting for who works on it; `None` if there is none of this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lock_change(&self, id: Uuid) -> Result<Option<ClaimedChange>> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query_as!(
            rows::ChangeRow,
            "SELECT * FROM changes WHERE id = $1 FOR NO KEY UPDATE",
            id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        ClaimedChange::of(row, transaction).await
    }
}

impl ClaimedChange {
    async fn of(
        row: Option<rows::ChangeRow>,
        transaction: sqlx::Transaction<'static, sqlx::Postgres>,
    ) -> Result<Option<Self>> {
        let Some(row) = row else {
            transaction.rollback().await?;
            return Ok(None);
        };
        Ok(Some(Self {
            change: row.try_into()?,
            locked: LockedSettings::new(transaction, Vec::new()),
        }))
    }

    /// Notes what devices answered since the last look, and counts; pending since before `silent_since` is silent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn look(&mut self, silent_since: DateTime<Utc>) -> Result<Counts> {
        sqlx::query!(
            "UPDATE change_devices d SET state = a.state, message = a.message FROM change_answers a
             WHERE a.change_id = $1 AND a.state <> a.noted AND d.change_id = a.change_id AND d.place = a.place",
            self.change.id,
        )
        .execute(&mut *self.locked.transaction)
        .await?;
        rows::counts(&mut self.locked.transaction, self.change.id, Some(silent_since)).await
    }

    /// The next devices that wait for it, up to the place `last`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting(&mut self, last: Option<i32>, limit: i64) -> Result<Vec<WaitingDevice>> {
        let rows = sqlx::query!(
            "SELECT place, device_id, serial FROM change_devices
             WHERE change_id = $1 AND state = 'waiting' AND place <= coalesce($2::integer, 2147483647)
             ORDER BY place LIMIT $3",
            self.change.id,
            last,
            limit,
        )
        .fetch_all(&mut *self.locked.transaction)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(WaitingDevice {
                    place: row.place,
                    device_id: DeviceId(row.device_id),
                    serial: parse(&row.serial)?,
                })
            })
            .collect()
    }

    /// The next devices with something to put back.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn undoable(&mut self, limit: i64) -> Result<Vec<Undoable>> {
        let rows = sqlx::query!(
            r#"SELECT place, device_id, serial, before AS "before!", after AS "after!" FROM change_devices
               WHERE change_id = $1 AND state NOT IN ('waiting', 'invalid', 'gone', 'undone', 'kept')
                 AND before IS NOT NULL AND after IS NOT NULL
               ORDER BY place LIMIT $2"#,
            self.change.id,
            limit,
        )
        .fetch_all(&mut *self.locked.transaction)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Undoable {
                    place: row.place,
                    device_id: DeviceId(row.device_id),
                    serial: parse(&row.serial)?,
                    before: rows::document(row.before),
                    after: rows::document(row.after),
                })
            })
            .collect()
    }

    /// Writes what is set on locked devices where that changes nothing of what they should run: no new versions.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_overrides(&mut self, overrides: &[NewOverrides], at: DateTime<Utc>) -> Result<()> {
        let ids: Vec<i64> = overrides.iter().map(|new| new.device_id.0).collect();
        let documents: Vec<Json<&Document>> = overrides.iter().map(|new| Json(&new.overrides)).collect();
        let origins: Vec<Json<&BTreeMap<String, String>>> =
            overrides.iter().map(|new| Json(&new.origins)).collect();
        sqlx::query!(
            "UPDATE device_settings s SET overrides = n.overrides, origins = n.origins, updated_at = $4
             FROM unnest($1::bigint[], $2::jsonb[], $3::jsonb[]) AS n (device_id, overrides, origins)
             WHERE s.device_id = n.device_id",
            &ids,
            &documents as &[Json<&Document>],
            &origins as &[Json<&BTreeMap<String, String>>],
            at,
        )
        .execute(&mut *self.locked.transaction)
        .await?;
        Ok(())
    }

    /// Notes what became of devices that waited.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_given(&mut self, given: &[Given], at: DateTime<Utc>) -> Result<()> {
        let places: Vec<i32> = given.iter().map(|device| device.place).collect();
        let states: Vec<&str> = given.iter().map(|device| device.outcome.as_str()).collect();
        let messages: Vec<Option<&str>> = given.iter().map(|device| device.message.as_deref()).collect();
        let versions: Vec<Option<i64>> = given.iter().map(|device| device.version).collect();
        // Postgres has no arrays of rows of different lengths.
        let keys: Vec<serde_json::Value> = given.iter().map(|device| device.keys.clone().into()).collect();
        let part = |document: &Document| serde_json::Value::Object(document.clone());
        let before: Vec<Option<serde_json::Value>> = given
            .iter()
            .map(|device| device.overrides.as_ref().map(|(before, _)| part(before)))
            .collect();
        let after: Vec<Option<serde_json::Value>> = given
            .iter()
            .map(|device| device.overrides.as_ref().map(|(_, after)| part(after)))
            .collect();
        sqlx::query!(
            "UPDATE change_devices d
             SET state = g.state, message = g.message, version = g.version,
                 keys = ARRAY(SELECT jsonb_array_elements_text(g.keys)), before = g.before, after = g.after,
                 changed_at = CASE WHEN g.before IS NOT NULL THEN $9::timestamptz END
             FROM unnest($2::integer[], $3::text[], $4::text[], $5::bigint[], $6::jsonb[], $7::jsonb[], $8::jsonb[])
                  AS g (place, state, message, version, keys, before, after)
             WHERE d.change_id = $1 AND d.place = g.place",
            self.change.id,
            &places,
            &states as &[&str],
            &messages as &[Option<&str>],
            &versions as &[Option<i64>],
            &keys,
            &before as &[Option<serde_json::Value>],
            &after as &[Option<serde_json::Value>],
            at,
        )
        .execute(&mut *self.locked.transaction)
        .await?;
        Ok(())
    }

    /// Notes what was put back.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_taken(&mut self, taken: &[Taken], at: DateTime<Utc>) -> Result<()> {
        let places: Vec<i32> = taken.iter().map(|device| device.place).collect();
        let states: Vec<&str> = taken.iter().map(|device| device.outcome.as_str()).collect();
        let messages: Vec<Option<&str>> = taken.iter().map(|device| device.message.as_deref()).collect();
        sqlx::query!(
            "UPDATE change_devices d SET state = t.state, message = t.message, changed_at = $5
             FROM unnest($2::integer[], $3::text[], $4::text[]) AS t (place, state, message)
             WHERE d.change_id = $1 AND d.place = t.place",
            self.change.id,
            &places,
            &states as &[&str],
            &messages as &[Option<&str>],
            at,
        )
        .execute(&mut *self.locked.transaction)
        .await?;
        Ok(())
    }

    /// Writes the change's state, pace, last look and reason as they are in [`Self::change`], and when there is
    /// something to do again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn save(&mut self, due_at: Option<DateTime<Utc>>) -> Result<()> {
        let change = &self.change;
        sqlx::query!(
            "UPDATE changes SET state = $2, stage = $3, next_at = $4, looked_at = $5, reason = $6, finished_at = $7,
                                undo_actor = $8, due_at = $9
             WHERE id = $1",
            change.id,
            change.state.as_str(),
            change.state.stage().map(Stage::as_str),
            change.next_at,
            change.looked_at,
            change.reason,
            change.finished_at,
            change.undo_actor,
            due_at,
        )
        .execute(&mut *self.locked.transaction)
        .await?;
        Ok(())
    }

    /// Adds an entry that stands and falls with what was done.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&mut self, entry: &NewEntry) -> Result<()> {
        audit::write(&mut self.locked.transaction, entry).await
    }

    /// Turns to another state; `at` is its end if it is one.
    pub fn turn(&mut self, state: State, at: DateTime<Utc>) {
        self.change.state = state;
        self.change.finished_at = (!state.is_open()).then_some(at);
    }

    /// Makes it last.
    ///
    /// # Errors
    /// When the database fails; then nothing was done, unless the answer alone was lost.
    pub async fn commit(self) -> Result<()> {
        self.locked.commit().await
    }
}
