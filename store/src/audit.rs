//! The audit log: entries are added, mostly in the transaction of the change they tell of, and never changed.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::{Result, Store, settings::LockedSettings};

/// An entry to be added.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEntry {
    /// When.
    pub at: DateTime<Utc>,
    /// Who, as history names them: `user:anna`.
    pub actor: String,
    /// The person behind it, if one is known.
    pub user_id: Option<Uuid>,
    /// What was done, or tried.
    pub action: &'static str,
    /// To what: `device:HOME-1`; empty for the server as a whole.
    pub object: String,
    /// From which network address.
    pub address: Option<String>,
    /// Whether it was refused.
    pub refused: bool,
    /// How it was; never a secret.
    pub before: Option<Value>,
    /// How it is now; never a secret.
    pub after: Option<Value>,
}

impl NewEntry {
    /// The same with how it was.
    #[must_use]
    pub fn before(self, before: Value) -> Self {
        Self {
            before: Some(before),
            ..self
        }
    }

    /// The same with how it is now.
    #[must_use]
    pub fn after(self, after: Value) -> Self {
        Self {
            after: Some(after),
            ..self
        }
    }
}

/// An entry as it stands in the log.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Entry {
    /// Rises with each entry.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To what.
    pub object: String,
    /// From where.
    pub address: Option<String>,
    /// `done` or `refused`.
    pub outcome: String,
    /// How it was.
    pub before: Option<Value>,
    /// How it is now.
    pub after: Option<Value>,
}

/// Which entries; a field that is `None` asks for nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuditFilter {
    /// Exactly this actor.
    pub actor: Option<String>,
    /// Exactly this action.
    pub action: Option<String>,
    /// Exactly this object.
    pub object: Option<String>,
    /// From this address.
    pub address: Option<String>,
    /// `done` or `refused`.
    pub outcome: Option<String>,
    /// Not earlier.
    pub from: Option<DateTime<Utc>>,
    /// Earlier.
    pub to: Option<DateTime<Utc>>,
}

/// Adds an entry on the connection of the change it tells of.
pub(crate) async fn write(connection: &mut PgConnection, entry: &NewEntry) -> Result<()> {
    sqlx::query!(
        "INSERT INTO audit (at, actor, user_id, action, object, address, outcome, before, after)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        entry.at,
        entry.actor,
        entry.user_id,
        entry.action,
        entry.object,
        entry.address,
        if entry.refused { "refused" } else { "done" },
        entry.before,
        entry.after,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a change: if it was `done` it lasts, together with its entry, else all is let go. Whether it was.
pub(crate) async fn conclude(
    mut transaction: sqlx::Transaction<'_, Postgres>,
    done: bool,
    entry: &NewEntry,
) -> Result<bool> {
    if done {
        write(&mut transaction, entry).await?;
        transaction.commit().await?;
    } else {
        transaction.rollback().await?;
    }
    Ok(done)
}

impl Store {
    /// Adds entries that stand for themselves: sign-ins and refusals.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_audit(&self, entries: &[NewEntry]) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        for entry in entries {
            write(&mut transaction, entry).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// A page of the log, newest first: entries with ids below `before`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&self, filter: &AuditFilter, before: Option<i64>, limit: i64) -> Result<Vec<Entry>> {
        let mut query = QueryBuilder::<Postgres>::new(
            "SELECT id, at, actor, action, object, address, outcome, before, after FROM audit WHERE true",
        );
        let texts = [
            (" AND actor = ", &filter.actor),
            (" AND action = ", &filter.action),
            (" AND object = ", &filter.object),
            (" AND address = ", &filter.address),
            (" AND outcome = ", &filter.outcome),
        ];
        for (condition, text) in texts {
            if let Some(text) = text {
                query.push(condition).push_bind(text.clone());
            }
        }
        if let Some(from) = filter.from {
            query.push(" AND at >= ").push_bind(from);
        }
        if let Some(to) = filter.to {
            query.push(" AND at < ").push_bind(to);
        }
        if let Some(before) = before {
            query.push(" AND id < ").push_bind(before);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
        Ok(query.build_query_as().fetch_all(&self.pool).await?)
    }

    /// Removes at most `most` entries older than `horizon`; how many they were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire_audit(&self, horizon: DateTime<Utc>, most: i32) -> Result<i64> {
        let gone = sqlx::query_scalar!(r#"SELECT audit_expire($1, $2) AS "gone!""#, horizon, most)
            .fetch_one(&self.pool)
            .await?;
        Ok(gone)
    }
}

impl LockedSettings {
    /// Adds an entry that stands and falls with the change.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&mut self, entry: &NewEntry) -> Result<()> {
        write(&mut self.transaction, entry).await
    }
}
