//! Minutes of series, put together slice by slice of time before they are written.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::Result;

/// A device, a metric and a minute.
pub(super) type Series = (i64, i32, DateTime<Utc>);

/// What is known of a series' minute.
#[derive(Debug)]
pub(super) struct Minute {
    pub(super) device_id: i64,
    pub(super) metric_id: i32,
    pub(super) minute: DateTime<Utc>,
    pub(super) last_at: DateTime<Utc>,
    pub(super) samples: i64,
    pub(super) numbers: i64,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) sum: Option<f64>,
}

/// Adds what a later slice tells of a minute.
pub(super) fn add(minutes: &mut BTreeMap<Series, Minute>, part: Minute) {
    let series = (part.device_id, part.metric_id, part.minute);
    let Some(whole) = minutes.get_mut(&series) else {
        minutes.insert(series, part);
        return;
    };
    let either = |a: Option<f64>, b: Option<f64>, choose: fn(f64, f64) -> f64| match (a, b) {
        (Some(a), Some(b)) => Some(choose(a, b)),
        (a, b) => a.or(b),
    };
    whole.last_at = whole.last_at.max(part.last_at);
    whole.samples += part.samples;
    whole.numbers += part.numbers;
    whole.min = either(whole.min, part.min, f64::min);
    whole.max = either(whole.max, part.max, f64::max);
    whole.sum = either(whole.sum, part.sum, |a, b| a + b);
}

/// Writes minutes that are read; the newest of each is looked up, and where it was deleted meanwhile so was the rest.
pub(super) async fn write_minutes(
    connection: &mut PgConnection,
    minutes: &[Minute],
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<()> {
    fn column<T>(minutes: &[Minute], of: impl Fn(&Minute) -> T) -> Vec<T> {
        minutes.iter().map(of).collect()
    }
    let devices = column(minutes, |minute| minute.device_id);
    let metrics = column(minutes, |minute| minute.metric_id);
    let at = column(minutes, |minute| minute.minute);
    let last_at = column(minutes, |minute| minute.last_at);
    let samples = column(minutes, |minute| minute.samples);
    let numbers = column(minutes, |minute| minute.numbers);
    let (min, max) = (
        column(minutes, |minute| minute.min),
        column(minutes, |minute| minute.max),
    );
    let sum = column(minutes, |minute| minute.sum);
    upsert!(
        "telemetry_minutes",
        ["SELECT b.device_id, b.metric_id, b.minute, b.last_at, b.samples, b.numbers, b.min, b.max, b.sum,
                t.number, t.flag, t.text
         FROM unnest($1::bigint[], $2::integer[], $3::timestamptz[], $4::timestamptz[], $5::bigint[], $6::bigint[],
                     $7::float8[], $8::float8[], $9::float8[])
              AS b (device_id, metric_id, minute, last_at, samples, numbers, min, max, sum)
         CROSS JOIN LATERAL (
             SELECT t.number, t.flag, t.text FROM telemetry t
             WHERE t.device_id = b.device_id AND t.metric_id = b.metric_id AND t.at = b.last_at
               AND t.at >= $10 AND t.at < $11
             OFFSET 0) t"],
        &devices,
        &metrics,
        &at,
        &last_at,
        &samples,
        &numbers,
        &min as &[Option<f64>],
        &max as &[Option<f64>],
        &sum as &[Option<f64>],
        from,
        to,
    )
    .execute(connection)
    .await?;
    Ok(())
}
