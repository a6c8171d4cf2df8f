//! Keeps the roll-ups of telemetry: moves the watermark once a minute, sweeps what it passed in bounded steps, and
//! computes again what came late. Of several servers on one database one is at work at a time, whichever comes first.

use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use setpoint_store::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::partitions;
use crate::app::App;

/// Notes of late samples worked off in one transaction.
const LATE_STEP: i64 = 500;

/// For how long notes are worked off before the watermark has its turn again.
const LATE_TURN: Duration = Duration::from_secs(10);

/// Steps of the sweep: the first one after a start, and between what they grow and shrink by the time they take.
const FIRST_WIDTH: TimeDelta = TimeDelta::minutes(10);
const SHORTEST_WIDTH: TimeDelta = TimeDelta::minutes(1);
const LONGEST_WIDTH: TimeDelta = TimeDelta::days(1);

/// A step that took less is followed by a wider one, one that took more by a shorter one.
const QUICK: Duration = Duration::from_millis(500);
const SLOW: Duration = Duration::from_secs(5);

/// Looks until `stop`, `every` so often; the roll-ups stay `lag` behind the clock.
pub async fn run(app: App, every: Duration, lag: Duration, stop: CancellationToken) {
    let lag = TimeDelta::from_std(lag).unwrap_or(TimeDelta::zero());
    let mut width = FIRST_WIDTH;
    let looks = async {
        loop {
            match look(&app, lag, &mut width).await {
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
async fn look(app: &App, lag: TimeDelta, width: &mut TimeDelta) -> Result<bool, Error> {
    let now = app.clock.now();
    let until = minute(now - lag);
    let (marks, _) = app.store.rollup_marks().await?;
    if marks.announced < until {
        app.store.announce_rollups(until).await?;
        app.store.summarize_telemetry(until).await?;
    }
    loop {
        let begun = Instant::now();
        let swept = app.store.sweep_rollups(*width).await?;
        *width = next_width(*width, begun.elapsed());
        if swept.is_none_or(|sweep| !sweep.more) {
            break;
        }
    }
    let metrics = app.ingest.metrics();
    let (begun, mut more) = (Instant::now(), false);
    while let Some(settled @ 1..) = app.store.settle_late_telemetry(LATE_STEP).await? {
        metrics.late_settled.inc_by(settled);
        more = begun.elapsed() > LATE_TURN;
        if more {
            break;
        }
    }
    let (marks, late) = app.store.rollup_marks().await?;
    metrics.rollup_lag.set((now - marks.rolled).num_seconds());
    metrics.late_waiting.set(late);
    metrics.rollup_rounds.inc();
    Ok(more)
}

fn next_width(width: TimeDelta, took: Duration) -> TimeDelta {
    let next = if took < QUICK {
        width * 2
    } else if took > SLOW {
        minute_of(width / 2)
    } else {
        width
    };
    next.clamp(SHORTEST_WIDTH, LONGEST_WIDTH)
}

/// Whole minutes of it.
fn minute_of(width: TimeDelta) -> TimeDelta {
    TimeDelta::minutes(width.num_minutes())
}

fn minute(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(TimeDelta::minutes(1)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_the_time_they_take() {
        let minutes = TimeDelta::minutes;
        for (width, took, next) in [
            (10, Duration::from_millis(1), 20),
            (10, Duration::from_secs(1), 10),
            (15, Duration::from_secs(6), 7),
            (1, Duration::from_secs(60), 1),
            (1_000, Duration::ZERO, 1_440),
        ] {
            assert_eq!(next_width(minutes(width), took), minutes(next), "{width}");
        }
    }
}
