//! How long a year of one-minute data of one device takes at hourly buckets, in a table with many devices.
//!
//! `BENCH_DATABASE_URL=postgres://.. cargo bench -p setpoint-store --bench history [-- DEVICES]`: a database of its own, made
//! by the caller; each device is 525,600 rows (190 of them are 100 million, some 12 GB). One that is filled already is used as it is.
//! Without it, the tests' throwaway server and two devices.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark ends at the first fault and prints"
)]

use std::time::{Duration, Instant};

use chrono::{DateTime, Days, TimeDelta, Utc};
use setpoint_model::{Clock, DeviceId, SystemClock, telemetry::Aggregate};
use setpoint_store::{PoolOptions, Store, telemetry::History, testing};
use sqlx::{AssertSqlSafe, PgPool};

const DAYS: i64 = 365;

#[tokio::main]
async fn main() {
    let wanted: i64 = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(2);
    let throwaway;
    let (store, pool) = match std::env::var("BENCH_DATABASE_URL") {
        Ok(url) => {
            let options = PoolOptions {
                statement_timeout: Duration::ZERO,
                ..PoolOptions::default()
            };
            let store = Store::open(&url.parse().unwrap(), &options).await.unwrap();
            (store, PgPool::connect(&url).await.unwrap())
        }
        Err(_) => {
            throwaway = testing::database().await;
            (throwaway.store(), throwaway.pool().clone())
        }
    };
    let midnight = SystemClock
        .now()
        .date_naive()
        .and_time(chrono::NaiveTime::MIN)
        .and_utc();
    if count(&pool, "SELECT count(*) FROM devices").await == 0 {
        fill(&pool, wanted, midnight).await;
    }
    let devices: Vec<i64> = sqlx::query_scalar("SELECT id FROM devices ORDER BY id")
        .fetch_all(&pool)
        .await
        .unwrap();
    let rows = count(
        &pool,
        "SELECT sum(reltuples)::bigint FROM pg_class WHERE relname ~ '^telemetry_[0-9]{8}$'",
    )
    .await;
    println!("about {rows} samples, {} devices", devices.len());
    for (bucket, days) in [("1h", DAYS), ("1d", DAYS), ("1h", 30)] {
        let mut times: Vec<Duration> = Vec::new();
        let mut buckets = 0;
        for device in devices.iter().take(50) {
            let history = History {
                device_id: DeviceId(*device),
                metrics: None,
                // Neither end on a whole hour, as people ask.
                from: midnight - TimeDelta::days(days) + TimeDelta::seconds(1_234),
                to: midnight - TimeDelta::seconds(567),
                after: None,
                limit: 10_000,
            };
            let begun = Instant::now();
            let read = store
                .telemetry_buckets(&history, bucket.parse().unwrap(), Aggregate::Avg)
                .await
                .unwrap();
            times.push(begun.elapsed());
            buckets = read.len();
        }
        times.sort();
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        let slowest = times.last().copied().unwrap_or_default();
        println!("{days} days in buckets of {bucket} ({buckets}): p50 {middle:.1?}, slowest {slowest:.1?}");
    }
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar::<_, Option<i64>>(sql)
        .fetch_one(pool)
        .await
        .unwrap()
        .unwrap_or(0)
}

/// A year of minutes of each device, in order of time, with its roll-ups by hour.
async fn fill(pool: &PgPool, devices: i64, midnight: DateTime<Utc>) {
    let run = async |sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap();
    };
    let day = |back: i64| midnight.date_naive() - Days::new(u64::try_from(back).unwrap());
    run(
        "DROP TABLE telemetry_past; DROP TABLE telemetry_minutes_past; DROP TABLE telemetry_hours_past"
            .to_owned(),
    )
    .await;
    run(format!(
        "INSERT INTO devices (serial, model) SELECT 'D' || i, 'home' FROM generate_series(1, {devices}) i;
         INSERT INTO metrics (name) VALUES ('temperature');
         INSERT INTO device_metrics (device_id, metric_id) SELECT d.id, m.id FROM devices d, metrics m"
    ))
    .await;
    for back in (1..=DAYS).rev() {
        let day = day(back);
        run(format!(
            "SELECT telemetry_make_partition('{day}'), telemetry_make_rollup_partitions('{day}');
             INSERT INTO telemetry (device_id, metric_id, at, number)
             SELECT d.id, m.id, t, 20 + 5 * random()
             FROM generate_series('{day}T00:00Z'::timestamptz, '{day}T23:59Z', '1 minute') t, devices d, metrics m ORDER BY t"
        ))
        .await;
    }
    run(
        "INSERT INTO telemetry_hours (device_id, metric_id, at, last_at, samples, numbers, min, max, sum, last_number)
         SELECT device_id, metric_id, date_bin('1 hour', at, '2001-01-01T00:00:00Z') AS hour, max(at), count(*), count(*),
                min(number), max(number), sum(number), min(number)
         FROM telemetry GROUP BY 1, 2, 3 ORDER BY hour"
            .to_owned(),
    )
    .await;
    run("VACUUM ANALYZE".to_owned()).await;
}
