//! Reading samples back: the newest of each metric, and history as it came or in buckets ([`super::buckets`]).
//!
//! Each query of samples asks metric by metric (LATERAL), because only then is a metric's time range one walk along the
//! primary key, partition after partition, that ends as soon as the page is full.

use chrono::{DateTime, TimeDelta, Utc};
use setpoint_model::{
    DeviceId,
    telemetry::{Aggregate, Bucket, Value},
};
use sqlx::FromRow;

use super::{BucketPosition, Buckets};
use crate::{Result, Store};

/// How far back the newest sample of a metric is looked for before all partitions are.
const RECENT: TimeDelta = TimeDelta::days(2);

/// One value read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// When it was taken, or the beginning of its bucket.
    pub at: DateTime<Utc>,
    /// The metric's name.
    pub metric: String,
    /// Its id: with `at`, the reading's position in the history.
    pub metric_id: i32,
    /// The value.
    pub value: Value<'static>,
}

/// Where a page of history ended: the next one begins behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The last reading's time.
    pub at: DateTime<Utc>,
    /// The last reading's metric.
    pub metric_id: i32,
}

/// Which part of a device's history is wanted.
#[derive(Debug, Clone)]
pub struct History<'a> {
    /// The device.
    pub device_id: DeviceId,
    /// The metrics by name; `None` for all.
    pub metrics: Option<&'a [String]>,
    /// The earliest time.
    pub from: DateTime<Utc>,
    /// The first time that is too late.
    pub to: DateTime<Utc>,
    /// Where the page before ended.
    pub after: Option<Position>,
    /// The most readings wanted.
    pub limit: i64,
}

/// Which device's newest values are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Latest {
    /// The device.
    pub device_id: DeviceId,
    /// The present time.
    pub now: DateTime<Utc>,
}

#[derive(FromRow)]
struct Row {
    at: DateTime<Utc>,
    metric: String,
    metric_id: i32,
    number: Option<f64>,
    flag: Option<bool>,
    text: Option<String>,
}

impl Row {
    fn reading(self) -> Option<Reading> {
        let value = match (self.number, self.flag, self.text) {
            (Some(number), _, _) => Value::Number(number),
            (None, Some(flag), _) => Value::Flag(flag),
            (None, None, Some(text)) => Value::Text(text.into()),
            (None, None, None) => return None,
        };
        Some(Reading {
            at: self.at,
            metric: self.metric,
            metric_id: self.metric_id,
            value,
        })
    }
}

fn readings(rows: Vec<Row>) -> Vec<Reading> {
    rows.into_iter().filter_map(Row::reading).collect()
}

impl Store {
    /// Samples as they came, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn telemetry(&self, wanted: &History<'_>) -> Result<Vec<Reading>> {
        let (after, after_metric) = position(wanted);
        let from = after.map_or(wanted.from, |after| after.max(wanted.from));
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT t.at AS "at!", m.name AS metric, m.id AS metric_id, t.number, t.flag, t.text
               FROM device_metrics d JOIN metrics m ON m.id = d.metric_id
               CROSS JOIN LATERAL (
                   SELECT t.at, t.number, t.flag, t.text FROM telemetry t
                   WHERE t.device_id = $1 AND t.metric_id = d.metric_id AND t.at >= $3 AND t.at < $4
                     AND ($5::timestamptz IS NULL OR t.at > $5 OR d.metric_id > $6)
                   ORDER BY t.at LIMIT $7) t
               WHERE d.device_id = $1 AND ($2::text[] IS NULL OR m.name = ANY($2))
               ORDER BY t.at, m.id LIMIT $7"#,
            wanted.device_id.0,
            wanted.metrics,
            from,
            wanted.to,
            after,
            after_metric,
            wanted.limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(readings(rows))
    }

    /// History in buckets, oldest first; buckets without samples are left out. `avg`, `min`, `max` and `sum`
    /// take numbers and booleans (as 0 and 1).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn telemetry_buckets(
        &self,
        wanted: &History<'_>,
        bucket: Bucket,
        aggregate: Aggregate,
    ) -> Result<Vec<Reading>> {
        let after = wanted.after.map(|after| BucketPosition {
            at: after.at,
            metric_id: after.metric_id,
            device_id: None,
        });
        let buckets = Buckets {
            devices: &[wanted.device_id],
            by_device: false,
            metrics: wanted.metrics,
            from: wanted.from,
            to: wanted.to,
            bucket,
            aggregate,
            after,
            limit: wanted.limit,
        };
        let buckets = self.telemetry_in_buckets(&buckets).await?.into_iter();
        let readings = buckets.map(|bucket| Reading {
            at: bucket.position.at,
            metric: bucket.metric,
            metric_id: bucket.position.metric_id,
            value: bucket.value,
        });
        Ok(readings.collect())
    }

    /// The newest sample of each metric that a device has, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn latest_telemetry(&self, wanted: Latest) -> Result<Vec<Reading>> {
        // Nearly always all are recent; only metrics that fell silent are looked for in every partition.
        let (mut found, silent) = self.recent_telemetry(wanted).await?;
        if !silent.is_empty() {
            found.extend(self.last_telemetry(wanted, &silent).await?);
        }
        found.sort_by(|a, b| a.metric.cmp(&b.metric));
        Ok(found)
    }

    /// The newest sample of each metric that has a recent one, and the ids of the others.
    async fn recent_telemetry(&self, wanted: Latest) -> Result<(Vec<Reading>, Vec<i32>)> {
        let rows = sqlx::query!(
            r#"SELECT m.name, m.id, t.at AS "at?", t.number, t.flag, t.text
               FROM device_metrics d JOIN metrics m ON m.id = d.metric_id
               LEFT JOIN LATERAL (
                   SELECT t.at, t.number, t.flag, t.text FROM telemetry t
                   WHERE t.device_id = $1 AND t.metric_id = d.metric_id AND t.at >= $2
                   ORDER BY t.at DESC LIMIT 1) t ON true
               WHERE d.device_id = $1"#,
            wanted.device_id.0,
            wanted.now - RECENT,
        )
        .fetch_all(&self.pool)
        .await?;
        let (mut found, mut silent) = (Vec::new(), Vec::new());
        for row in rows {
            match row.at {
                Some(at) => found.push(Row {
                    at,
                    metric: row.name,
                    metric_id: row.id,
                    number: row.number,
                    flag: row.flag,
                    text: row.text,
                }),
                None => silent.push(row.id),
            }
        }
        Ok((readings(found), silent))
    }

    /// The newest sample of these metrics, however old: by the roll-ups of hours, which are few. Where those may not tell
    /// it, samples are looked at partition by partition.
    async fn last_telemetry(&self, wanted: Latest, metric_ids: &[i32]) -> Result<Vec<Reading>> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT h.last_at AS "at!", m.name AS metric, m.id AS metric_id, h.last_number AS number,
                      h.last_flag AS flag, h.last_text AS text
               FROM metrics m
               CROSS JOIN LATERAL (
                   SELECT h.last_at, h.last_number, h.last_flag, h.last_text FROM telemetry_hours h
                   WHERE h.device_id = $1 AND h.metric_id = m.id
                   ORDER BY h.at DESC LIMIT 1) h
               WHERE m.id = ANY($2)
                 AND (SELECT rolled FROM telemetry_rollup) >= $3::timestamptz + interval '1 hour'
                 AND NOT EXISTS (SELECT FROM telemetry_late l WHERE l.device_id = $1 AND l.metric_id = m.id)"#,
            wanted.device_id.0,
            metric_ids,
            wanted.now - RECENT,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut found = readings(rows);
        let unknown = metric_ids.iter().copied();
        let unknown: Vec<i32> = unknown
            .filter(|id| found.iter().all(|reading| reading.metric_id != *id))
            .collect();
        if !unknown.is_empty() {
            found.extend(self.last_of_samples(wanted.device_id, &unknown).await?);
        }
        Ok(found)
    }

    async fn last_of_samples(&self, device_id: DeviceId, metric_ids: &[i32]) -> Result<Vec<Reading>> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT t.at AS "at!", m.name AS metric, m.id AS metric_id, t.number, t.flag, t.text
               FROM metrics m
               CROSS JOIN LATERAL (
                   SELECT t.at, t.number, t.flag, t.text FROM telemetry t
                   WHERE t.device_id = $1 AND t.metric_id = m.id
                   ORDER BY t.at DESC LIMIT 1) t
               WHERE m.id = ANY($2)"#,
            device_id.0,
            metric_ids,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(readings(rows))
    }
}

fn position(wanted: &History<'_>) -> (Option<DateTime<Utc>>, Option<i32>) {
    (
        wanted.after.map(|after| after.at),
        wanted.after.map(|after| after.metric_id),
    )
}
