//! Roll-ups beside the samples that they are made of.

use std::collections::BTreeSet;

use chrono::{Days, TimeDelta};
use proptest::prelude::*;
use setpoint_model::telemetry::{Aggregate, Value};

use super::{
    super::{BucketReading, Buckets, Rows},
    at, device, metrics,
    rollups::{at_midnight, buckets, sweep_by},
    today,
};
use crate::{Store, testing::database};

const AGGREGATES: [Aggregate; 6] = [
    Aggregate::Avg,
    Aggregate::Min,
    Aggregate::Max,
    Aggregate::Sum,
    Aggregate::Count,
    Aggregate::Last,
];

/// Every page of it.
async fn paged(store: &Store, wanted: &Buckets<'_>, limit: i64) -> Vec<BucketReading> {
    let (mut all, mut after) = (Vec::new(), wanted.after);
    loop {
        let page = Buckets {
            after,
            limit,
            ..wanted.clone()
        };
        let page = store.telemetry_in_buckets(&page).await.unwrap();
        let full = page.len() == usize::try_from(limit).unwrap();
        after = page.last().map(|reading| reading.position);
        all.extend(page);
        if !full {
            return all;
        }
    }
}

/// What happens to a database, in the order of the list.
#[derive(Debug, Clone)]
enum Step {
    /// Samples of device, metric (a number, a boolean, a text or of any type), second of the two days.
    Write(Vec<(usize, usize, i64, i64)>),
    /// The watermark moves on by so many minutes in steps of so many seconds, of at most so many minutes of series at once,
    /// and notes are worked off or not.
    Roll(i64, i64, usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let sample = (0..2_usize, 0..3_usize, -40_000..40_000_i64, -8..9_i64);
    prop_oneof![
        3 => prop::collection::vec(sample, 1..30).prop_map(Step::Write),
        2 => (1..400_i64, 7..6_000_i64, 1..9_usize, any::<bool>())
            .prop_map(|(minutes, width, most, settle)| Step::Roll(minutes, width, most, settle)),
    ]
}

#[derive(Debug, Clone)]
struct Question {
    from: i64,
    length: i64,
    bucket: &'static str,
    by_device: bool,
    limit: i64,
}

fn question() -> impl Strategy<Value = Question> {
    let bucket = prop::sample::select(vec!["45s", "1m", "7m", "1h", "90m", "3h", "1d"]);
    (
        -42_000..42_000_i64,
        0..60_000_i64,
        bucket,
        any::<bool>(),
        3..200_i64,
    )
        .prop_map(|(from, length, bucket, by_device, limit)| Question {
            from,
            length,
            bucket,
            by_device,
            limit,
        })
}

/// Numbers whose sums are exact, and a value's type by its metric.
fn value(metric: usize, of: i64) -> Value<'static> {
    match (metric, of.rem_euclid(3)) {
        (0, _) | (2, 0) => Value::Number(f64::from(i32::try_from(of).unwrap()) / 4.0),
        (1, _) | (2, 1) => Value::Flag(of > 0),
        _ => Value::Text(of.to_string().into()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Whatever was written when, and however far the roll-ups are: the answer is that of the samples, page by page too.
    #[test]
    fn roll_ups_answer_as_the_samples_do(
        steps in prop::collection::vec(step(), 1..12),
        questions in prop::collection::vec(question(), 4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome: Result<(), TestCaseError> = runtime.block_on(async {
            let database = database().await;
            at_midnight(&database).await;
            let store = database.store();
            store.make_telemetry_partitions(today(), today() + Days::new(1)).await.unwrap();
            let devices = [device(&database, "A").await, device(&database, "B").await];
            let mut ids = Vec::new();
            for device in devices {
                ids = metrics(&store, device, &["n", "on", "any"]).await;
            }
            let (mut watermark, mut written) = (0, BTreeSet::new());
            for step in &steps {
                match step {
                    Step::Write(samples) => {
                        let mut batch = Rows::default();
                        for (device, metric, second, of) in samples {
                            if written.insert((*device, *metric, *second)) {
                                let time = at(0) + TimeDelta::seconds(*second);
                                batch.push(devices[*device], ids[*metric], time, &value(*metric, *of));
                            }
                        }
                        store.append_telemetry(&batch).await.unwrap();
                    }
                    Step::Roll(minutes, width, most, settle) => {
                        watermark += minutes;
                        sweep_by(&store, watermark, TimeDelta::seconds(*width), *most).await;
                        if *settle {
                            store.settle_late_telemetry(1_000).await.unwrap();
                        }
                    }
                }
            }
            for question in &questions {
                for aggregate in AGGREGATES {
                    let wanted = Buckets {
                        by_device: question.by_device,
                        from: at(0) + TimeDelta::seconds(question.from),
                        to: at(0) + TimeDelta::seconds(question.from + question.length),
                        limit: 10_000,
                        ..buckets(&devices, question.bucket, aggregate)
                    };
                    // The newest of two devices at the same instant may be either's.
                    if aggregate == Aggregate::Last && !question.by_device {
                        continue;
                    }
                    let expected = store.telemetry_in_buckets_of_samples(&wanted).await.unwrap();
                    let pages = paged(&store, &wanted, question.limit).await;
                    prop_assert_eq!(&pages, &expected, "{} {:?}", aggregate, question);
                    let one = store.telemetry_in_buckets(&wanted).await.unwrap();
                    prop_assert_eq!(&one, &expected, "{} {:?}", aggregate, question);
                }
            }
            store.close().await;
            Ok(())
        });
        outcome?;
    }
}
