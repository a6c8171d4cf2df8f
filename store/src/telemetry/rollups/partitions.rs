//! Partitions of the roll-ups, by UTC month: made ahead, dropped by age.

use chrono::{DateTime, Months, NaiveDate, NaiveTime, Utc};

use super::super::partitions::{detach_and_drop, finish_detaching};
use crate::{Result, Store};

/// One of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollup {
    /// By minute.
    Minutes,
    /// By hour.
    Hours,
}

impl Rollup {
    /// The table's name.
    pub(in super::super) fn table(self) -> &'static str {
        match self {
            Self::Minutes => "telemetry_minutes",
            Self::Hours => "telemetry_hours",
        }
    }
}

impl Store {
    /// Makes the partitions of both roll-ups from the month behind the newest there is, or else this month, up to that of
    /// `until`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn make_rollup_partitions(&self, until: NaiveDate) -> Result<()> {
        let newest = self
            .rollup_months(Rollup::Hours)
            .await?
            .into_iter()
            .map(|(_, month)| month)
            .max();
        let first = newest.map_or(until, |newest| newest + Months::new(1));
        let months = std::iter::successors(Some(first), |month| Some(*month + Months::new(1)));
        for month in months.take_while(|month| *month <= until) {
            sqlx::query!("SELECT telemetry_make_rollup_partitions($1)", month)
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    /// Drops the partitions of a roll-up whose months end before `keep_from`; readers go on meanwhile. Returns how many.
    ///
    /// # Errors
    /// When the database fails; what was dropped until then stays dropped.
    pub async fn drop_rollup_partitions(&self, rollup: Rollup, keep_from: NaiveDate) -> Result<usize> {
        let parent = rollup.table();
        finish_detaching(&self.pool, parent).await?;
        let months = self.rollup_months(rollup).await?;
        let old = |month: NaiveDate| month + Months::new(1) <= keep_from;
        let old: Vec<_> = months.into_iter().filter(|(_, month)| old(*month)).collect();
        let Some(until) = old.iter().map(|(_, month)| *month + Months::new(1)).max() else {
            return Ok(0);
        };
        // First readers are told to take what is below.
        self.rollup_starts(rollup, midnight(until)).await?;
        for (name, _) in &old {
            detach_and_drop(&self.pool, parent, name).await?;
        }
        Ok(old.len())
    }

    /// Deletes what is older than `keep_from` from a roll-up's partition of everything before the installation, at most
    /// `limit` rows. Returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire_past_rollups(&self, rollup: Rollup, keep_from: NaiveDate, limit: i64) -> Result<u64> {
        let keep_from = midnight(keep_from);
        let past = format!("{}_past", rollup.table());
        let some = format!("SELECT EXISTS (SELECT FROM {past} WHERE at < $1)");
        let some: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(some))
            .bind(keep_from)
            .fetch_one(&self.pool)
            .await?;
        if !some {
            return Ok(0);
        }
        self.rollup_starts(rollup, keep_from).await?;
        let delete = format!(
            "DELETE FROM {past} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {past} WHERE at < $1 LIMIT $2))"
        );
        let deleted = sqlx::query(sqlx::AssertSqlSafe(delete))
            .bind(keep_from)
            .bind(limit)
            .execute(&self.pool)
            .await?;
        Ok(deleted.rows_affected())
    }

    /// Tells readers and reconcilers that samples before this are dropped.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn telemetry_starts(&self, at: NaiveDate) -> Result<()> {
        sqlx::query!(
            "UPDATE telemetry_rollup SET raw_from = greatest(raw_from, $1) WHERE raw_from < $1",
            midnight(at)
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn rollup_starts(&self, rollup: Rollup, at: DateTime<Utc>) -> Result<()> {
        let minutes = (rollup == Rollup::Minutes).then_some(at);
        let hours = (rollup == Rollup::Hours).then_some(at);
        sqlx::query!(
            "UPDATE telemetry_rollup SET minutes_from = greatest(minutes_from, $1), hours_from = greatest(hours_from, $2)",
            minutes,
            hours,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The tables of a roll-up where these days may be.
    pub(in super::super) async fn rollup_tables(
        &self,
        rollup: Rollup,
        from: NaiveDate,
        to: NaiveDate,
    ) -> Result<Vec<String>> {
        let months = self.rollup_months(rollup).await?.into_iter();
        let months = months.filter(|(_, month)| *month < to && *month + Months::new(1) > from);
        let past = format!("{}_past", rollup.table());
        Ok(months.map(|(name, _)| name).chain([past]).collect())
    }

    /// The monthly partitions of a roll-up, with the first day of each.
    async fn rollup_months(&self, rollup: Rollup) -> Result<Vec<(String, NaiveDate)>> {
        let parent = rollup.table();
        let names = sqlx::query_scalar!(
            r#"SELECT c.relname::text AS "name!" FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = to_regclass($1) AND NOT i.inhdetachpending"#,
            parent,
        )
        .fetch_all(&self.pool)
        .await?;
        let months = names.into_iter().filter_map(|name| {
            let month = name.strip_prefix(parent)?.strip_prefix('_')?;
            let month = NaiveDate::parse_from_str(&format!("{month}01"), "%Y%m%d").ok()?;
            Some((name, month))
        });
        Ok(months.collect())
    }
}

fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}
