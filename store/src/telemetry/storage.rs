//! How much room telemetry takes, for people who look after a database.

use chrono::NaiveDate;

use super::{Marks, Rollup};
use crate::{Result, Store};

/// What telemetry takes, and how far its roll-ups are.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// The samples.
    pub samples: TableSize,
    /// The oldest and newest day that has a partition of its own.
    pub days: Option<(NaiveDate, NaiveDate)>,
    /// Roll-ups by minute.
    pub minutes: TableSize,
    /// Roll-ups by hour.
    pub hours: TableSize,
    /// Where the roll-ups are.
    pub marks: Marks,
    /// Notes of late samples that wait, counted up to 100,000.
    pub late: i64,
    /// Samples a second, in the last ten minutes that are rolled up.
    pub rate: f64,
}

/// The size of a partitioned table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableSize {
    /// How many partitions there are.
    pub partitions: i64,
    /// About how many rows there are, as Postgres's statistics say.
    pub rows: i64,
    /// Bytes of the table.
    pub table_bytes: i64,
    /// Bytes of its indexes.
    pub index_bytes: i64,
}

impl TableSize {
    /// Bytes per row, indexes included; `None` without rows.
    #[must_use]
    pub fn bytes_per_row(&self) -> Option<i64> {
        (self.table_bytes + self.index_bytes).checked_div(self.rows)
    }
}

impl Store {
    /// What telemetry takes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn telemetry_storage(&self) -> Result<Storage> {
        let (marks, late) = self.rollup_marks().await?;
        let days = self.telemetry_partitions().await?;
        let days = days.iter().filter_map(|partition| partition.day);
        Ok(Storage {
            samples: self.table_size("telemetry").await?,
            days: days.clone().min().zip(days.max()),
            minutes: self.table_size(Rollup::Minutes.table()).await?,
            hours: self.table_size(Rollup::Hours.table()).await?,
            marks,
            late,
            rate: self.telemetry_rate().await?,
        })
    }

    async fn table_size(&self, table: &str) -> Result<TableSize> {
        Ok(sqlx::query_as!(
            TableSize,
            r#"SELECT count(*) AS "partitions!", coalesce(sum(pg_table_size(p.relid)), 0)::bigint AS "table_bytes!",
                      coalesce(sum(pg_indexes_size(p.relid)), 0)::bigint AS "index_bytes!",
                      coalesce(sum(greatest(c.reltuples, s.n_live_tup, 0)), 0)::bigint AS "rows!"
               FROM pg_partition_tree(to_regclass($1)) p JOIN pg_class c ON c.oid = p.relid
               LEFT JOIN pg_stat_all_tables s ON s.relid = p.relid
               WHERE p.isleaf"#,
            table,
        )
        .fetch_one(&self.pool)
        .await?)
    }

    async fn telemetry_rate(&self) -> Result<f64> {
        Ok(sqlx::query_scalar!(
            r#"SELECT coalesce(sum(m.samples), 0)::double precision / 600 AS "rate!"
               FROM telemetry_minutes m CROSS JOIN telemetry_rollup r
               WHERE m.at >= r.rolled - interval '10 minutes' AND m.at < r.rolled"#
        )
        .fetch_one(&self.pool)
        .await?)
    }
}
