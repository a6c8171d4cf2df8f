//! History in buckets, of one device or many, from roll-ups where they are and from the samples elsewhere.
//!
//! All of an answer is read in one snapshot, piece by piece in order of time ([`super::pieces`]), so that it is the same as
//! the samples alone would give, whatever the sweep does meanwhile. A bucket may lie in several pieces, which is why each
//! gives parts, and the parts are put together here.

mod parts;

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use setpoint_model::{
    DeviceId,
    telemetry::{Aggregate, Bucket, Value},
};
use sqlx::{PgConnection, Postgres, Transaction, postgres::types::PgInterval};

use self::parts::{LastPart, Part, Wholes};
use super::{
    pieces::{Level, Piece, Span, floor, pieces},
    rollups,
};
use crate::{Error, Result, Store};

/// Which history is wanted, and in which buckets.
#[derive(Debug, Clone)]
pub struct Buckets<'a> {
    /// The devices.
    pub devices: &'a [DeviceId],
    /// Whether each device has values of its own; otherwise there is one over all of them.
    pub by_device: bool,
    /// The metrics by name; `None` for all.
    pub metrics: Option<&'a [String]>,
    /// The earliest time.
    pub from: DateTime<Utc>,
    /// The first time that is too late.
    pub to: DateTime<Utc>,
    /// The buckets' width.
    pub bucket: Bucket,
    /// What becomes of the samples of a bucket.
    pub aggregate: Aggregate,
    /// Where the page before ended.
    pub after: Option<BucketPosition>,
    /// The most readings wanted.
    pub limit: i64,
}

/// Where a page of buckets ended: the next one begins behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BucketPosition {
    /// The last bucket's beginning.
    pub at: DateTime<Utc>,
    /// The last reading's metric.
    pub metric_id: i32,
    /// Its device, where each has values of its own.
    pub device_id: Option<DeviceId>,
}

/// The value of one bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct BucketReading {
    /// Bucket, metric and device.
    pub position: BucketPosition,
    /// The metric's name.
    pub metric: String,
    /// The value.
    pub value: Value<'static>,
}

impl Store {
    /// History in buckets, by bucket, metric and device; buckets without samples are left out. `avg`, `min`, `max` and
    /// `sum` take numbers and booleans (as 0 and 1); in sums and means a number beyond 1e290 counts as 1e290.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn telemetry_in_buckets(&self, wanted: &Buckets<'_>) -> Result<Vec<BucketReading>> {
        let mut snapshot = self.pool.begin_with(SNAPSHOT).await?;
        let read = read(&mut snapshot, wanted, true).await;
        let _ = snapshot.rollback().await;
        read
    }

    /// The same; `None` when a statement of it took longer than `budget`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn telemetry_in_buckets_within(
        &self,
        wanted: &Buckets<'_>,
        budget: Duration,
    ) -> Result<Option<Vec<BucketReading>>> {
        let mut snapshot = self.pool.begin_with(SNAPSHOT).await?;
        sqlx::query("SELECT set_config('statement_timeout', $1, true)")
            .bind(format!("{}ms", budget.as_millis().max(1)))
            .execute(&mut *snapshot)
            .await?;
        let read = read(&mut snapshot, wanted, true).await;
        let _ = snapshot.rollback().await;
        match read {
            // query_canceled
            Err(Error::Unavailable(sqlx::Error::Database(error)))
                if error.code().as_deref() == Some("57014") =>
            {
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// The same from the samples alone: what tests compare with.
    #[cfg(test)]
    pub(super) async fn telemetry_in_buckets_of_samples(
        &self,
        wanted: &Buckets<'_>,
    ) -> Result<Vec<BucketReading>> {
        let mut snapshot = self.pool.begin_with(SNAPSHOT).await?;
        let read = read(&mut snapshot, wanted, false).await;
        let _ = snapshot.rollback().await;
        read
    }
}

/// One snapshot for all statements, each planned for the range it has.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; \
                        SET LOCAL plan_cache_mode = force_custom_plan";

/// The most late hours that are read one by one; with more, all samples between them are less work than as many statements.
const MOST_LATE: usize = 50;

async fn read(
    snapshot: &mut Transaction<'_, Postgres>,
    wanted: &Buckets<'_>,
    rolled: bool,
) -> Result<Vec<BucketReading>> {
    let devices: Vec<i64> = wanted.devices.iter().map(|device| device.0).collect();
    let metrics = metrics(snapshot, &devices, wanted.metrics).await?;
    let ids: Vec<i32> = metrics.keys().copied().collect();
    let width = TimeDelta::seconds(i64::from(wanted.bucket.seconds()));
    // A page that goes on within a bucket needs all of that bucket.
    let from = wanted
        .after
        .map_or(wanted.from, |after| after.at.max(wanted.from));
    let span = (from, wanted.to);
    let limit = usize::try_from(wanted.limit).unwrap_or(0);
    if ids.is_empty() || limit == 0 || from >= wanted.to {
        return Ok(Vec::new());
    }
    let plan = plan(snapshot, &devices, &ids, wanted, span, rolled).await?;
    // A bucket holds at most this many readings; one may be begun before the page, and one be cut off at its end.
    let in_bucket = ids.len() * if wanted.by_device { devices.len() } else { 1 };
    let most = limit + 2 * in_bucket;
    let query = Query {
        devices: &devices,
        metrics: &ids,
        width,
        wanted,
        most: i64::try_from(most).unwrap_or(i64::MAX),
    };
    let mut wholes = Wholes::new();
    // First so many buckets as the page may need, then ever more: there may be gaps.
    let mut stride = i32::try_from(most / in_bucket.max(1)).unwrap_or(i32::MAX);
    for piece in plan {
        let mut next = piece.from;
        while next < piece.to {
            let to = width
                .checked_mul(stride)
                .and_then(|stride| floor(next, width).checked_add_signed(stride))
                .map_or(piece.to, |to| to.min(piece.to));
            stride = stride.saturating_mul(2);
            let cut = query
                .part(
                    snapshot,
                    Piece {
                        from: next,
                        to,
                        ..piece
                    },
                    &mut wholes,
                )
                .await?;
            next = to;
            if let Some(cut) = cut {
                wholes.retain(|position, _| position.at < cut);
            }
            let complete = cut.unwrap_or(floor(to, width));
            let ready = wholes.keys().filter(|position| position.at < complete);
            let ready = ready.filter(|position| wanted.after.is_none_or(|after| **position > after));
            if cut.is_some() || ready.count() >= limit {
                return Ok(readings(wholes, wanted, &metrics, limit));
            }
        }
    }
    Ok(readings(wholes, wanted, &metrics, limit))
}

/// The wanted metrics that these devices have, by id.
async fn metrics(
    snapshot: &mut PgConnection,
    devices: &[i64],
    names: Option<&[String]>,
) -> Result<BTreeMap<i32, String>> {
    let rows = sqlx::query!(
        "SELECT m.id, m.name FROM metrics m
         WHERE ($2::text[] IS NULL OR m.name = ANY($2))
           AND m.id IN (SELECT metric_id FROM device_metrics WHERE device_id = ANY($1))",
        devices,
        names,
    )
    .fetch_all(snapshot)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.name)).collect())
}

/// The pieces of the range.
async fn plan(
    snapshot: &mut PgConnection,
    devices: &[i64],
    metrics: &[i32],
    wanted: &Buckets<'_>,
    (from, to): Span,
    rolled: bool,
) -> Result<Vec<Piece>> {
    let level = match Level::of_bucket(wanted.bucket.seconds()) {
        level if rolled => level,
        _ => Level::Samples,
    };
    if level == Level::Samples {
        return Ok(vec![Piece { level, from, to }]);
    }
    let marks = rollups::marks(&mut *snapshot).await?;
    let late = sqlx::query_scalar!(
        r#"SELECT DISTINCT date_bin('1 hour', since, '2001-01-01T00:00:00Z') AS "hour!" FROM telemetry_late
           WHERE device_id = ANY($1) AND metric_id = ANY($2) AND since >= $3::timestamptz - interval '1 hour' AND since < $4
           ORDER BY 1"#,
        devices,
        metrics,
        from,
        to,
    )
    .fetch_all(snapshot)
    .await?;
    let late = late.into_iter().map(|hour| (hour, hour + TimeDelta::hours(1)));
    let mut late: Vec<Span> = late.filter(|(_, until)| *until > marks.raw_from).collect();
    if late.len() > MOST_LATE
        && let (Some((first, _)), Some((_, last))) = (late.first().copied(), late.last().copied())
    {
        late = vec![(first.max(marks.raw_from), last)];
    }
    Ok(pieces((from, to), level, &marks, late))
}

struct Query<'a> {
    devices: &'a [i64],
    metrics: &'a [i32],
    width: TimeDelta,
    wanted: &'a Buckets<'a>,
    /// The most parts that are read at once.
    most: i64,
}

impl Query<'_> {
    /// Reads a piece. Returns the bucket that it was cut off in, if there were too many parts.
    async fn part(
        &self,
        snapshot: &mut PgConnection,
        piece: Piece,
        wholes: &mut Wholes,
    ) -> Result<Option<DateTime<Utc>>> {
        let read = if self.wanted.aggregate == Aggregate::Last {
            let rows = self.bind(sqlx::query_as::<_, LastPart>(piece.level.last()), piece);
            let rows = rows.fetch_all(snapshot).await?;
            rows.into_iter().map(|row| row.add(wholes)).collect::<Vec<_>>()
        } else {
            let rows = self.bind(sqlx::query_as::<_, Part>(piece.level.numbers()), piece);
            let rows = rows.fetch_all(snapshot).await?;
            rows.into_iter().map(|row| row.add(wholes)).collect()
        };
        let cut_off = i64::try_from(read.len()).is_ok_and(|count| count >= self.most);
        Ok(read.last().copied().filter(|_| cut_off))
    }

    fn bind<'q, R>(
        &'q self,
        query: sqlx::query::QueryAs<'q, Postgres, R, sqlx::postgres::PgArguments>,
        piece: Piece,
    ) -> sqlx::query::QueryAs<'q, Postgres, R, sqlx::postgres::PgArguments> {
        let width = PgInterval {
            months: 0,
            days: 0,
            microseconds: self.width.num_microseconds().unwrap_or(i64::MAX),
        };
        query
            .bind(self.devices)
            .bind(self.metrics)
            .bind(piece.from)
            .bind(piece.to)
            .bind(width)
            .bind(self.wanted.by_device)
            .bind(self.most)
            .bind(!matches!(
                self.wanted.aggregate,
                Aggregate::Count | Aggregate::Last
            ))
    }
}

fn readings(
    wholes: Wholes,
    wanted: &Buckets<'_>,
    metrics: &BTreeMap<i32, String>,
    limit: usize,
) -> Vec<BucketReading> {
    let new = |position: &BucketPosition| wanted.after.is_none_or(|after| *position > after);
    let wholes = wholes.into_iter().filter(|(position, _)| new(position));
    let readings = wholes.filter_map(|(position, whole)| {
        Some(BucketReading {
            position,
            metric: metrics.get(&position.metric_id)?.clone(),
            value: whole.value(wanted.aggregate)?,
        })
    });
    readings.take(limit).collect()
}
