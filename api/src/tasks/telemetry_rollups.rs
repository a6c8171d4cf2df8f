//! Keeps the roll-ups of telemetry: moves the watermark once a minute, sweeps what it passed, and computes again what came
//! late. Of several servers on one database one is at work at a time, whichever comes first.
//!
//! Devices wait for commits that share processors and disk with this, so it goes in small steps and rests after each, the
//! longer the less it is behind: while it keeps up, it works a third of the time at most.

use std::{cmp::Ordering, time::Duration};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use setpoint_store::{
    Error,
    telemetry::{Step, Sweep},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::partitions;
use crate::app::App;

/// For how long notes are worked off before the watermark has its turn again.
const LATE_TURN: Duration = Duration::from_secs(10);

/// How wide the first step of a sweep is in time, and bounds of the others: they grow and shrink by the time they take. Each
/// looks through the whole index by time once, so very short ones would do nothing else.
const FIRST_WIDTH: TimeDelta = TimeDelta::seconds(5);
const SHORTEST_WIDTH: TimeDelta = TimeDelta::milliseconds(500);
const LONGEST_WIDTH: TimeDelta = TimeDelta::hours(1);

/// How many notes of late samples are worked off in one step: likewise.
const FIRST_NOTES: i64 = 100;
const FEWEST_NOTES: i64 = 10;
const MOST_NOTES: i64 = 500;

/// A step that took less is followed by a larger one, one that took more by a smaller one. Whatever else wants the
/// processors or the disk waits for no more than a step.
const QUICK: Duration = Duration::from_millis(30);
const SLOW: Duration = Duration::from_millis(100);

/// More than a sample takes: where samples took longer, most of the time went into looking through others, which came out of
/// order of time. Shorter steps would look through them all the more often.
const SAMPLE: Duration = Duration::from_micros(10);

/// After a step it rests this many times as long as the step took, as long as it is no more than a minute behind...
const PATIENCE: f64 = 2.0;
/// ...and less the further it is behind, down to this.
const LEAST_PATIENCE: f64 = 0.125;
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Looks until `stop`, `every` so often; the roll-ups stay `lag` behind the clock.
pub async fn run(app: App, every: Duration, lag: Duration, stop: CancellationToken) {
    let lag = TimeDelta::from_std(lag).unwrap_or(TimeDelta::zero());
    let mut notes = FIRST_NOTES;
    let looks = async {
        loop {
            match look(&app, lag, &mut notes).await {
                Ok(true) => continue,
                Ok(false) => {}
                // The clock was set forward by months: the partitions' own task will see it within the hour.
                Err(Error::Invalid { .. }) => {
                    if let Err(error) = partitions::make(&app).await {
                        waits(&error);
                    }
                }
                Err(error) => waits(&error),
            }
            tokio::time::sleep(every).await;
        }
    };
    stop.run_until_cancelled(looks).await;
}

fn waits(error: &Error) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "roll-ups of telemetry wait"
    );
}

/// One round: everything up to `lag` ago. Returns whether late samples are left for another round, which begins with the
/// watermark again.
async fn look(app: &App, lag: TimeDelta, notes: &mut i64) -> Result<bool, Error> {
    let now = app.clock.now();
    let until = minute(now - lag);
    let (marks, _) = app.store.rollup_marks().await?;
    if marks.announced < until {
        app.store.announce_rollups(until).await?;
        app.store.summarize_telemetry(until).await?;
    }
    let mut width = FIRST_WIDTH;
    while let Some(mut sweep) = app.store.begin_sweep().await? {
        let behind = until - sweep.from();
        let more = match drive(&mut sweep, &mut width, behind).await {
            Ok(()) => sweep.commit().await?.1,
            Err(error) => {
                sweep.abandon().await;
                return Err(error);
            }
        };
        if !more {
            break;
        }
    }
    let metrics = app.ingest.metrics();
    let (turn, mut more) = (Instant::now(), false);
    loop {
        let begun = Instant::now();
        let Some(settled @ 1..) = app.store.settle_late_telemetry(*notes).await? else {
            break;
        };
        metrics.late_settled.inc_by(settled);
        let took = begun.elapsed();
        *notes = next_notes(*notes, took);
        more = turn.elapsed() > LATE_TURN;
        if more {
            break;
        }
        tokio::time::sleep(took.min(LONGEST_REST)).await;
    }
    let (marks, late) = app.store.rollup_marks().await?;
    metrics.rollup_lag.set((now - marks.rolled).num_seconds());
    metrics.late_waiting.set(late);
    metrics.rollup_rounds.inc();
    Ok(more)
}

/// Takes a sweep to its end, step by step, with rests between them.
async fn drive(sweep: &mut Sweep, width: &mut TimeDelta, behind: TimeDelta) -> Result<(), Error> {
    loop {
        let begun = Instant::now();
        let step = sweep.step(*width).await?;
        let took = begun.elapsed();
        match step {
            Step::Read(samples, read) => *width = next_width(*width, read, samples, took),
            Step::Written => {}
            Step::Complete => return Ok(()),
        }
        tokio::time::sleep(rest(took, behind)).await;
    }
}

/// How long to rest after a step when the roll-ups are this far behind.
fn rest(took: Duration, behind: TimeDelta) -> Duration {
    let minutes = behind.num_seconds().max(60).div_euclid(60);
    let minutes = f64::from(i32::try_from(minutes).unwrap_or(i32::MAX));
    took.mul_f64((PATIENCE / minutes).max(LEAST_PATIENCE))
        .min(LONGEST_REST)
}

/// Whether the next step is to be larger or smaller than one that took so long.
fn next_size(took: Duration) -> Ordering {
    if took < QUICK {
        Ordering::Greater
    } else if took > SLOW {
        Ordering::Less
    } else {
        Ordering::Equal
    }
}

/// The width of the step after one that was `read` wide, shorter than `width` at the end of what there was to read.
fn next_width(width: TimeDelta, read: TimeDelta, samples: i64, took: Duration) -> TimeDelta {
    let worth = SAMPLE.saturating_mul(u32::try_from(samples).unwrap_or(u32::MAX));
    let next = match next_size(took) {
        Ordering::Greater => width * 2,
        // It took so long to find them, and would again.
        Ordering::Less if worth < took => width * 2,
        Ordering::Less => read / 2,
        Ordering::Equal => width,
    };
    next.clamp(SHORTEST_WIDTH, LONGEST_WIDTH)
}

fn next_notes(notes: i64, took: Duration) -> i64 {
    let next = match next_size(took) {
        Ordering::Greater => notes * 2,
        Ordering::Less => notes / 2,
        Ordering::Equal => notes,
    };
    next.clamp(FEWEST_NOTES, MOST_NOTES)
}

fn minute(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(TimeDelta::minutes(1)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn steps_follow_the_time_they_take() {
        let seconds = TimeDelta::seconds;
        for (width, read, samples, took, next) in [
            (10, 10, 100, millis(1), 20),
            (10, 10, 100, millis(50), 10),
            (15, 10, 100_000, millis(101), 5),
            (15, 10, 10_000, millis(101), 30),
            (3_000, 60, 0, millis(1), 3_600),
        ] {
            assert_eq!(
                next_width(seconds(width), seconds(read), samples, took),
                seconds(next),
                "{width} {samples}"
            );
        }
        let shortest = next_width(seconds(1), TimeDelta::milliseconds(700), 1_000_000, millis(5_000));
        assert_eq!(shortest, SHORTEST_WIDTH);
    }

    #[test]
    fn it_rests_less_the_further_it_is_behind_and_always_a_little() {
        for (took, behind, rests) in [
            (40, 0, 80),
            (40, 60, 80),
            (40, 120, 40),
            (40, 600, 8),
            (40, 864_000, 5),
            (60_000, 60, 1_000),
        ] {
            assert_eq!(
                rest(millis(took), TimeDelta::seconds(behind)),
                millis(rests),
                "{behind}"
            );
        }
    }
}
