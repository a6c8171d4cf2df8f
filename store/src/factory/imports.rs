//! Files of factory serials: staged line by line, then taken as a whole or not at all.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use setpoint_model::{credential::SecretHash, device::NewDevice};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{
    Result, Store,
    audit::{self, NewEntry},
    settings::parse,
};

/// Where an import stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportState {
    /// Its lines are still coming in.
    Receiving,
    /// Its lines are all there and are about to be checked against models and each other.
    Checking,
    /// It took effect; a dry run would have.
    Done,
    /// A line was wrong, and nothing was changed.
    Refused,
}

impl ImportState {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Checking => "checking",
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

/// The text is no state of an import.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("not a state of an import")]
pub struct UnknownState;

impl std::str::FromStr for ImportState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        [Self::Receiving, Self::Checking, Self::Done, Self::Refused]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(UnknownState)
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineError {
    /// The line of the file, from 1.
    pub line: i64,
    /// The column, or `line` for the line as a whole.
    pub field: String,
    /// What is wrong, in a short sentence.
    pub message: String,
}

/// An import as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// Its id; version 7.
    pub id: Uuid,
    /// Where it stands.
    pub state: ImportState,
    /// Whether it only looks.
    pub dry_run: bool,
    /// Who began it, as history names them.
    pub actor: String,
    /// The person behind it, if one is known.
    pub user_id: Option<Uuid>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it was done or refused.
    pub ended_at: Option<DateTime<Utc>>,
    /// Lines so far, the header not counted.
    pub lines: i64,
    /// Serials that were not known before.
    pub added: i64,
    /// Serials that were.
    pub replaced: i64,
    /// How many errors there are.
    pub error_count: i64,
    /// The first of them.
    pub errors: Vec<LineError>,
}

/// An import to be begun.
#[derive(Debug, Clone)]
pub struct NewImport {
    /// Its id.
    pub id: Uuid,
    /// Whether it only looks.
    pub dry_run: bool,
    /// Who begins it, from where and when.
    pub entry: NewEntry,
}

/// A line that can be read.
#[derive(Debug, Clone)]
pub struct ImportLine {
    /// The line of the file.
    pub line: i64,
    /// The serial, its model, name and tags.
    pub device: NewDevice,
    /// The hash of its secret, if it has one.
    pub secret: Option<SecretHash>,
}

impl Store {
    /// Begins an import.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_import(&self, new: &NewImport) -> Result<()> {
        sqlx::query!(
            "INSERT INTO factory_imports (id, dry_run, actor, user_id, address, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
            new.id,
            new.dry_run,
            new.entry.actor,
            new.entry.user_id,
            new.entry.address,
            new.entry.at,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Stages lines of an import; `counted` of the file were read since the last call, those with errors included.
    /// `false` if the import is gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn stage_import(
        &self,
        id: Uuid,
        lines: &[ImportLine],
        counted: i64,
        error_count: i64,
        errors: &[LineError],
    ) -> Result<bool> {
        let numbers: Vec<i64> = lines.iter().map(|line| line.line).collect();
        let serials: Vec<&str> = lines.iter().map(|line| line.device.serial.as_str()).collect();
        let models: Vec<&str> = lines
            .iter()
            .map(|line| line.device.description.model.as_str())
            .collect();
        let hashes: Vec<Option<Vec<u8>>> = lines
            .iter()
            .map(|line| line.secret.map(|hash| hash.as_bytes().to_vec()))
            .collect();
        let names: Vec<&str> = lines
            .iter()
            .map(|line| line.device.description.name.as_str())
            .collect();
        let tags: Vec<Value> = lines
            .iter()
            .map(|line| line.device.description.tags.to_json())
            .collect();
        let done = sqlx::query!(
            r#"WITH import AS (
                   UPDATE factory_imports SET lines = lines + $2, error_count = error_count + $3, errors = errors || $4
                   WHERE id = $1 AND state = 'receiving' RETURNING id),
               staged AS (
                   INSERT INTO factory_import_lines (import_id, line, serial, model, secret_hash, name, tags)
                   SELECT import.id, t.* FROM import,
                       unnest($5::bigint[], $6::text[], $7::text[], $8::bytea[], $9::text[], $10::jsonb[]) AS t)
               SELECT count(*) AS "count!" FROM import"#,
            id,
            counted,
            error_count,
            json!(errors),
            &numbers,
            &serials as &[&str],
            &models as &[&str],
            &hashes as &[Option<Vec<u8>>],
            &names as &[&str],
            &tags,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(done.count > 0)
    }

    /// All lines of an import are there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn import_received(&self, id: Uuid) -> Result<()> {
        sqlx::query!(
            "UPDATE factory_imports SET state = 'checking' WHERE id = $1 AND state = 'receiving'",
            id
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets an import whose lines won't all come.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drop_import(&self, id: Uuid) -> Result<()> {
        sqlx::query!(
            "DELETE FROM factory_imports WHERE id = $1 AND state = 'receiving'",
            id
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// An import.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn import(&self, id: Uuid) -> Result<Option<Import>> {
        let row = sqlx::query!(
            r#"SELECT id, state, dry_run, actor, user_id, created_at, ended_at, lines, added, replaced, error_count,
                      errors AS "errors: Json<Vec<LineError>>"
               FROM factory_imports WHERE id = $1"#,
            id
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            Ok(Import {
                id: row.id,
                state: parse(&row.state)?,
                dry_run: row.dry_run,
                actor: row.actor,
                user_id: row.user_id,
                created_at: row.created_at,
                ended_at: row.ended_at,
                lines: row.lines,
                added: row.added,
                replaced: row.replaced,
                error_count: row.error_count,
                errors: row.errors.0,
            })
        })
        .transpose()
    }

    /// Brings one import whose lines are all there to its end, in one transaction; its id, or `None` if none waits
    /// that nobody else is at. Of its errors the first `most` are kept.
    ///
    /// # Errors
    /// When the database fails; the import then waits on.
    pub async fn settle_import(
        &self,
        most: i64,
        action: &'static str,
        now: DateTime<Utc>,
    ) -> Result<Option<Uuid>> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query!(
            r#"SELECT id, dry_run, actor, user_id, address, error_count, errors AS "errors: Json<Vec<LineError>>"
               FROM factory_imports WHERE state = 'checking' ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED"#
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(None) };
        // A large file may take longer than one statement of a request.
        sqlx::query!("SELECT set_config('statement_timeout', '600000', true)")
            .fetch_one(&mut *transaction)
            .await?;
        let (found, mut errors) = check(&mut transaction, row.id, most).await?;
        let error_count = row.error_count + found;
        errors.extend(row.errors.0);
        errors.sort_by_key(|error| error.line);
        errors.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        let refused = error_count > 0;
        let (added, replaced) = match (refused, row.dry_run) {
            (true, _) => (0, 0),
            (false, true) => would(&mut transaction, row.id).await?,
            (false, false) => take(&mut transaction, row.id, now).await?,
        };
        let state = if refused {
            ImportState::Refused
        } else {
            ImportState::Done
        };
        sqlx::query!(
            "WITH staged AS (DELETE FROM factory_import_lines WHERE import_id = $1)
             UPDATE factory_imports
             SET state = $2, ended_at = $3, added = $4, replaced = $5, error_count = $6, errors = $7 WHERE id = $1",
            row.id,
            state.as_str(),
            now,
            added,
            replaced,
            error_count,
            json!(errors),
        )
        .execute(&mut *transaction)
        .await?;
        if !row.dry_run {
            let entry = NewEntry {
                at: now,
                actor: row.actor,
                user_id: row.user_id,
                action,
                object: format!("import:{}", row.id),
                address: row.address,
                refused,
                before: None,
                after: Some(json!({"added": added, "replaced": replaced, "errors": error_count})),
            };
            audit::write(&mut transaction, &entry).await?;
        }
        transaction.commit().await?;
        Ok(Some(row.id))
    }

    /// Removes imports that ended before `ended`, and those that nothing has come of since before `begun`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_old_imports(&self, ended: DateTime<Utc>, begun: DateTime<Utc>) -> Result<u64> {
        let done = sqlx::query!(
            "DELETE FROM factory_imports WHERE ended_at <= $1 OR (state = 'receiving' AND created_at <= $2)",
            ended,
            begun
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}

/// What only all lines together and the models can tell: how many errors, and the first of them.
async fn check(connection: &mut PgConnection, id: Uuid, most: i64) -> Result<(i64, Vec<LineError>)> {
    let rows = sqlx::query!(
        r#"WITH line AS (
               SELECT line, model, secret_hash, first_value(line) OVER (PARTITION BY serial ORDER BY line) AS first
               FROM factory_import_lines WHERE import_id = $1),
           wrong AS (
               SELECT line, 'model' AS field, 'there is no such model' AS message
               FROM line LEFT JOIN models m ON m.name = line.model WHERE m.name IS NULL
               UNION ALL
               SELECT line, 'secret', 'devices of this model must have one'
               FROM line JOIN models m ON m.name = line.model WHERE m.claim_secret AND secret_hash IS NULL
               UNION ALL
               SELECT line, 'serial', 'stands in line ' || first || ' already' FROM line WHERE line <> first)
           SELECT line AS "line!", field AS "field!", message AS "message!", count(*) OVER () AS "total!"
           FROM wrong ORDER BY line, field LIMIT $2"#,
        id,
        most,
    )
    .fetch_all(connection)
    .await?;
    let total = rows.first().map_or(0, |row| row.total);
    let errors = rows.into_iter().map(|row| LineError {
        line: row.line,
        field: row.field,
        message: row.message,
    });
    Ok((total, errors.collect()))
}

/// How many serials would be added, and how many replaced.
async fn would(connection: &mut PgConnection, id: Uuid) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE f.serial IS NULL) AS "added!", count(f.serial) AS "replaced!"
           FROM factory_import_lines l LEFT JOIN factory_serials f ON f.serial = l.serial WHERE l.import_id = $1"#,
        id
    )
    .fetch_one(connection)
    .await?;
    Ok((row.added, row.replaced))
}

/// Adds the serials, or replaces what was known of them; how many of each.
async fn take(connection: &mut PgConnection, id: Uuid, now: DateTime<Utc>) -> Result<(i64, i64)> {
    // Before the rows are there: what a statement writes, it can't read.
    let (added, replaced) = would(connection, id).await?;
    sqlx::query!(
        "INSERT INTO factory_serials (serial, model, secret_hash, name, tags, created_at)
         SELECT serial, model, secret_hash, name, tags, $2 FROM factory_import_lines WHERE import_id = $1 ORDER BY serial
         ON CONFLICT (serial) DO UPDATE SET model = excluded.model, secret_hash = excluded.secret_hash,
             name = excluded.name, tags = excluded.tags",
        id,
        now,
    )
    .execute(connection)
    .await?;
    Ok((added, replaced))
}
