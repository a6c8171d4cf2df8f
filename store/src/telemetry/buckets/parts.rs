//! Parts of buckets, as each table tells them, and how they are put together.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use setpoint_model::{
    DeviceId,
    telemetry::{Aggregate, Value},
};
use sqlx::FromRow;

use super::{super::pieces::Level, BucketPosition};

/// A part of a bucket, as one table tells it.
#[derive(Debug, FromRow)]
pub(super) struct Part {
    bucket: DateTime<Utc>,
    metric_id: i32,
    device_id: Option<i64>,
    samples: i64,
    numbers: i64,
    sum: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
}

/// The newest of a part of a bucket.
#[derive(Debug, FromRow)]
pub(super) struct LastPart {
    bucket: DateTime<Utc>,
    metric_id: i32,
    device_id: Option<i64>,
    last_at: DateTime<Utc>,
    number: Option<f64>,
    flag: Option<bool>,
    text: Option<String>,
}

/// What is known of a bucket so far.
#[derive(Debug, Default)]
pub(super) struct Whole {
    samples: i64,
    numbers: i64,
    sum: f64,
    min: Option<f64>,
    max: Option<f64>,
    last: Option<(DateTime<Utc>, Value<'static>)>,
}

pub(super) type Wholes = BTreeMap<BucketPosition, Whole>;

/// The statement for numbers of one table. Binds: devices, metrics, from, to, width, whether by device, limit, whether
/// texts alone (which `$numeric` leaves out) make no bucket.
macro_rules! numbers {
    ($table:literal, $numeric:literal, $columns:literal) => {
        concat!(
            "SELECT date_bin($5, at, '2001-01-01T00:00:00Z') AS bucket, metric_id,
                    CASE WHEN $6 THEN device_id END AS device_id, ",
            $columns,
            " FROM ",
            $table,
            " WHERE device_id = ANY($1) AND metric_id = ANY($2) AND at >= $3 AND at < $4
               AND (NOT $8 OR ",
            $numeric,
            ") GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT $7"
        )
    };
}

/// The statement for the newest of one table, with the same binds.
macro_rules! last {
    ($table:literal, $columns:literal) => {
        concat!(
            "SELECT DISTINCT ON (bucket, metric_id, device_id) * FROM (
                 SELECT date_bin($5, at, '2001-01-01T00:00:00Z') AS bucket, metric_id,
                        CASE WHEN $6 THEN device_id END AS device_id, ",
            $columns,
            " FROM ",
            $table,
            " WHERE device_id = ANY($1) AND metric_id = ANY($2) AND at >= $3 AND at < $4) AS t
             ORDER BY bucket, metric_id, device_id, last_at DESC LIMIT $7"
        )
    };
}

macro_rules! rolled_numbers {
    ($table:literal) => {
        numbers!(
            $table,
            "numbers > 0",
            "sum(samples)::bigint AS samples, sum(numbers)::bigint AS numbers, sum(sum) AS sum, min(min) AS min,
             max(max) AS max"
        )
    };
}

macro_rules! rolled_last {
    ($table:literal) => {
        last!(
            $table,
            "last_at, last_number AS number, last_flag AS flag, last_text AS text"
        )
    };
}

impl Level {
    pub(super) fn numbers(self) -> &'static str {
        match self {
            // Bounded, as in the roll-ups: a sum of doubles that overflows is an error.
            Self::Samples => numbers!(
                "telemetry",
                "text IS NULL",
                "count(*) AS samples, count(number) + count(flag) AS numbers,
                 sum(least(greatest(coalesce(number, flag::int), -1e290), 1e290))
                        FILTER (WHERE text IS NULL) AS sum,
                 min(coalesce(number, flag::int)) AS min, max(coalesce(number, flag::int)) AS max"
            ),
            Self::Minutes => rolled_numbers!("telemetry_minutes"),
            Self::Hours => rolled_numbers!("telemetry_hours"),
        }
    }

    pub(super) fn last(self) -> &'static str {
        match self {
            Self::Samples => last!("telemetry", "at AS last_at, number, flag, text"),
            Self::Minutes => rolled_last!("telemetry_minutes"),
            Self::Hours => rolled_last!("telemetry_hours"),
        }
    }
}

fn position(at: DateTime<Utc>, metric_id: i32, device_id: Option<i64>) -> BucketPosition {
    BucketPosition {
        at,
        metric_id,
        device_id: device_id.map(DeviceId),
    }
}

impl Part {
    pub(super) fn add(self, wholes: &mut Wholes) -> DateTime<Utc> {
        let whole = wholes
            .entry(position(self.bucket, self.metric_id, self.device_id))
            .or_default();
        whole.samples += self.samples;
        whole.numbers += self.numbers;
        whole.sum += self.sum.unwrap_or(0.0);
        let either = |a: Option<f64>, b: Option<f64>, choose: fn(f64, f64) -> f64| match (a, b) {
            (Some(a), Some(b)) => Some(choose(a, b)),
            (a, b) => a.or(b),
        };
        whole.min = either(whole.min, self.min, f64::min);
        whole.max = either(whole.max, self.max, f64::max);
        self.bucket
    }
}

impl LastPart {
    pub(super) fn add(self, wholes: &mut Wholes) -> DateTime<Utc> {
        let value = match (self.number, self.flag, self.text) {
            (Some(number), _, _) => Some(Value::Number(number)),
            (None, Some(flag), _) => Some(Value::Flag(flag)),
            (None, None, text) => text.map(|text| Value::Text(text.into())),
        };
        let whole = wholes
            .entry(position(self.bucket, self.metric_id, self.device_id))
            .or_default();
        // At the same time in two devices: either is the newest.
        if whole.last.as_ref().is_none_or(|(at, _)| *at < self.last_at) {
            whole.last = value.map(|value| (self.last_at, value));
        }
        self.bucket
    }
}

impl Whole {
    pub(super) fn value(self, aggregate: Aggregate) -> Option<Value<'static>> {
        #[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 are out of reach")]
        let (samples, numbers) = (self.samples as f64, self.numbers as f64);
        let some = self.numbers > 0;
        let number = match aggregate {
            Aggregate::Avg => some.then_some(self.sum / numbers),
            Aggregate::Min => self.min,
            Aggregate::Max => self.max,
            Aggregate::Sum => some.then_some(self.sum),
            Aggregate::Count => Some(samples),
            Aggregate::Last => return self.last.map(|(_, value)| value),
        };
        number.map(Value::Number)
    }
}
