//! Rows per second of the ways to write telemetry, each on a fresh day's worth of rows, beside a bare COPY of the
//! same rows into the same table in one statement.
//!
//! `BENCH_DATABASE_URL=postgres://.. cargo bench -p setpoint-store --bench telemetry [-- ROWS]`: a database of
//! its own, made by the caller, with the fsync of real life. Without it, the tests' throwaway server.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark ends at the first fault and prints"
)]

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use setpoint_model::{Clock, DeviceId, SystemClock, telemetry::Value};
use setpoint_store::{
    PoolOptions, Store,
    telemetry::{APPEND_TARGET, Rows},
    testing,
};
use sqlx::{PgPool, postgres::PgPoolCopyExt as _};

const BATCH: usize = 5_000;
const DEVICES: usize = 1_000;
const METRICS: usize = 5;

#[derive(Clone, Copy)]
enum Way {
    Append,
    Merge,
    Unnest,
}

#[tokio::main]
async fn main() {
    let rows: usize = std::env::args()
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(500_000);
    let throwaway;
    let (store, pool) = match std::env::var("BENCH_DATABASE_URL") {
        Ok(url) => {
            let store = Store::open(&url.parse().unwrap(), &PoolOptions::default())
                .await
                .unwrap();
            (store, PgPool::connect(&url).await.unwrap())
        }
        Err(_) => {
            throwaway = testing::database().await;
            (throwaway.store(), throwaway.pool().clone())
        }
    };
    let today = SystemClock.now().date_naive();
    store.make_telemetry_partitions(today, today).await.unwrap();
    let midnight = today.and_time(chrono::NaiveTime::MIN).and_utc();

    println!("{rows} rows, {DEVICES} devices x {METRICS} metrics, batches of {BATCH}");
    let mut bare = 0.0;
    for round in 1..=2 {
        println!("round {round}");
        bare = run(
            "bare COPY, one statement",
            None,
            &pool,
            async |first| {
                let all = batch(midnight, first, rows);
                let mut copy = pool.copy_in_raw(APPEND_TARGET).await.unwrap();
                copy.send(all.to_copy()).await.unwrap();
                copy.finish().await.unwrap();
            },
            rows,
        )
        .await;
        for (name, way) in [
            ("append (COPY)", Way::Append),
            ("merge (staged COPY)", Way::Merge),
            ("UNNEST", Way::Unnest),
        ] {
            for writers in [1, 2, 3] {
                let (store, pool) = (&store, &pool);
                run(
                    &format!("{name}, {writers} connections"),
                    Some(bare),
                    pool,
                    async |first| {
                        let share = rows / writers;
                        join_all((0..writers).map(|writer| async move {
                            for start in (0..share).step_by(BATCH) {
                                let from = first + writer * share + start;
                                let count = BATCH.min(share - start);
                                match way {
                                    Way::Append => drop(
                                        store
                                            .append_telemetry(&batch(midnight, from, count))
                                            .await
                                            .unwrap(),
                                    ),
                                    Way::Merge => drop(
                                        store
                                            .merge_telemetry(&batch(midnight, from, count))
                                            .await
                                            .unwrap(),
                                    ),
                                    Way::Unnest => unnest(pool, midnight, from, count).await,
                                }
                            }
                        }))
                        .await;
                    },
                    rows,
                )
                .await;
            }
        }
    }
    let _ = bare;
}

/// Empties the table, lets `write` fill it, and prints the rate; `bare` is what it is compared with.
async fn run(
    name: &str,
    bare: Option<f64>,
    pool: &PgPool,
    write: impl AsyncFnOnce(usize),
    rows: usize,
) -> f64 {
    sqlx::query("TRUNCATE telemetry").execute(pool).await.unwrap();
    sqlx::query("CHECKPOINT").execute(pool).await.unwrap();
    let begun = Instant::now();
    write(0).await;
    let rate = f64::from(u32::try_from(rows).unwrap()) / begun.elapsed().as_secs_f64();
    let share = bare.map_or(String::new(), |bare| {
        format!("  {:.0} % of bare COPY", 100.0 * rate / bare)
    });
    println!("  {name:<32} {rate:>9.0} rows/s{share}");
    rate
}

/// What the sample of this number is: devices take turns, a second passes per round.
fn sample(midnight: DateTime<Utc>, number: usize) -> (i64, i32, DateTime<Utc>, f64) {
    let device = i64::try_from(number / METRICS % DEVICES).unwrap();
    let metric = i32::try_from(number % METRICS).unwrap();
    let second = i64::try_from(number / METRICS / DEVICES).unwrap();
    (
        device,
        metric,
        midnight + TimeDelta::seconds(second),
        20.0 + f64::from(metric),
    )
}

fn batch(midnight: DateTime<Utc>, first: usize, count: usize) -> Rows {
    let mut rows = Rows::with_capacity(count);
    for number in first..first + count {
        let (device, metric, at, value) = sample(midnight, number);
        rows.push(DeviceId(device), metric, at, &Value::Number(value));
    }
    rows
}

async fn unnest(pool: &PgPool, midnight: DateTime<Utc>, first: usize, count: usize) {
    let samples: Vec<_> = (first..first + count)
        .map(|number| sample(midnight, number))
        .collect();
    sqlx::query(
        "INSERT INTO telemetry (device_id, metric_id, at, number)
         SELECT * FROM unnest($1::bigint[], $2::integer[], $3::timestamptz[], $4::double precision[])
         ON CONFLICT DO NOTHING",
    )
    .bind(samples.iter().map(|s| s.0).collect::<Vec<_>>())
    .bind(samples.iter().map(|s| s.1).collect::<Vec<_>>())
    .bind(samples.iter().map(|s| s.2).collect::<Vec<_>>())
    .bind(samples.iter().map(|s| s.3).collect::<Vec<_>>())
    .execute(pool)
    .await
    .unwrap();
}
