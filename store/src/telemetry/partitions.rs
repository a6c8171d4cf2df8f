//! Partitions by UTC day: made ahead, dropped by age.

use chrono::{Days, NaiveDate};
use sqlx::{AssertSqlSafe, PgPool};

use crate::{Result, Store};

/// What the partition of everything before the installation is called.
const PAST: &str = "telemetry_past";

/// One partition of the telemetry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The table's name.
    pub name: String,
    /// The UTC day it holds; `None` for the one that holds all days before the installation.
    pub day: Option<NaiveDate>,
}

impl Store {
    /// The partitions, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn telemetry_partitions(&self) -> Result<Vec<Partition>> {
        let names = sqlx::query_scalar!(
            r#"SELECT c.relname::text AS "name!" FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'telemetry'::regclass AND NOT i.inhdetachpending"#
        )
        .fetch_all(&self.pool)
        .await?;
        let mut partitions: Vec<Partition> = names
            .into_iter()
            .map(|name| Partition {
                day: day_of(&name),
                name,
            })
            .collect();
        partitions.sort_by_key(|partition| partition.day);
        Ok(partitions)
    }

    /// Makes the partition of each day from behind the newest there is up to and including `until`, so that no
    /// gap is left after a time of standstill. Returns how many were made.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn make_telemetry_partitions(&self, today: NaiveDate, until: NaiveDate) -> Result<usize> {
        let partitions = self.telemetry_partitions().await?;
        let newest = partitions.iter().filter_map(|partition| partition.day).max();
        let first = newest.map_or(today, |newest| newest + Days::new(1));
        let mut made = 0;
        for day in first.iter_days().take_while(|day| *day <= until) {
            sqlx::query!("SELECT telemetry_make_partition($1)", day)
                .execute(&self.pool)
                .await?;
            made += 1;
        }
        Ok(made)
    }

    /// Drops the partitions of days before `keep_from`; ingest and readers go on meanwhile. Returns how many.
    ///
    /// # Errors
    /// When the database fails; what was dropped until then stays dropped.
    pub async fn drop_telemetry_partitions(&self, keep_from: NaiveDate) -> Result<usize> {
        finish_detaching(&self.pool, "telemetry").await?;
        let partitions = self.telemetry_partitions().await?;
        let mut dropped = 0;
        for name in partitions
            .iter()
            .filter(|p| p.day.is_some_and(|day| day < keep_from))
            .map(|p| &p.name)
        {
            detach_and_drop(&self.pool, "telemetry", name).await?;
            dropped += 1;
        }
        Ok(dropped)
    }

    /// Deletes what is older than `keep_from` from the partition of everything before the installation, at most
    /// `limit` rows. Returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire_past_telemetry(&self, keep_from: NaiveDate, limit: i64) -> Result<u64> {
        let deleted = sqlx::query!(
            "DELETE FROM telemetry_past WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM telemetry_past WHERE at < ($1::date)::timestamp AT TIME ZONE 'UTC' LIMIT $2))",
            keep_from,
            limit,
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}

/// Drops one partition. It waits for those who use it, and blocks nobody.
pub(super) async fn detach_and_drop(pool: &PgPool, parent: &str, name: &str) -> Result<()> {
    let detach = format!("ALTER TABLE {parent} DETACH PARTITION \"{name}\" CONCURRENTLY");
    sqlx::query(AssertSqlSafe(detach)).execute(pool).await?;
    sqlx::query(AssertSqlSafe(format!("DROP TABLE \"{name}\"")))
        .execute(pool)
        .await?;
    Ok(())
}

/// Completes what a crash or time-out left between DETACH and DROP of a partition of `parent`.
pub(super) async fn finish_detaching(pool: &PgPool, parent: &str) -> Result<()> {
    let pending = sqlx::query_scalar!(
        r#"SELECT c.relname::text AS "name!" FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
           WHERE i.inhparent = to_regclass($1) AND i.inhdetachpending"#,
        parent,
    )
    .fetch_all(pool)
    .await?;
    for name in pending {
        let finish = format!("ALTER TABLE {parent} DETACH PARTITION \"{name}\" FINALIZE");
        sqlx::query(AssertSqlSafe(finish)).execute(pool).await?;
    }
    let orphans = sqlx::query_scalar!(
        r#"SELECT c.relname::text AS "name!" FROM pg_class c
           WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass($1))
             AND c.relkind = 'r' AND c.relname ~ ('^' || $1 || '_[0-9]{6,8}$') AND NOT c.relispartition"#,
        parent,
    )
    .fetch_all(pool)
    .await?;
    for name in orphans {
        sqlx::query(AssertSqlSafe(format!("DROP TABLE \"{name}\"")))
            .execute(pool)
            .await?;
    }
    Ok(())
}

fn day_of(name: &str) -> Option<NaiveDate> {
    if name == PAST {
        return None;
    }
    NaiveDate::parse_from_str(name.strip_prefix("telemetry_")?, "%Y%m%d").ok()
}
