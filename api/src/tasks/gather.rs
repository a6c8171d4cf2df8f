//! How long what comes in gathers before it is written.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// While little comes: what is written is there for a reader at once, or nearly so.
const BRIEFLY: Duration = Duration::from_millis(50);

/// Within that time, what makes a storm: two thousand a second.
const MANY: usize = 100;

/// How many times as long a storm gathers at most: for a second. It is the same rows in fewer statements and commits,
/// and the processors are left to those who come in.
const STEPS: usize = 20;

/// What is written at once even in a storm, unless a queue holds less.
pub(super) const ENOUGH: usize = 20_000;

/// Waits for what is to be written together: briefly while little comes; in a storm until it is over, `enough` has
/// come, or a second went by. `waiting` says how much there is. Returns at once on `stop`.
pub(super) async fn gather(stop: &CancellationToken, enough: usize, waiting: impl Fn() -> usize) {
    let mut before = 0;
    for _ in 0..STEPS {
        if stop
            .run_until_cancelled(tokio::time::sleep(BRIEFLY))
            .await
            .is_none()
        {
            return;
        }
        let now = waiting();
        if now >= enough || now.saturating_sub(before) < MANY {
            return;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    /// How many brief whiles it gathers what comes like this, a number in each, of which `enough` are enough.
    async fn gathers(comes: &[usize], enough: usize) -> usize {
        let looks = Cell::new(0);
        gather(&CancellationToken::new(), enough, || {
            looks.set(looks.get() + 1);
            comes.iter().take(looks.get()).sum()
        })
        .await;
        looks.get()
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_gathers_until_it_is_over() {
        let storm = [MANY; 100];
        assert_eq!(gathers(&[MANY - 1, MANY], ENOUGH).await, 1);
        assert_eq!(gathers(&[MANY, MANY, 3], ENOUGH).await, 3);
        assert_eq!(gathers(&storm, ENOUGH).await, 20, "at most a second");
        assert_eq!(gathers(&storm, 5 * MANY).await, 5, "it is enough");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_nothing() {
        let (stop, began) = (CancellationToken::new(), Instant::now());
        stop.cancel();
        gather(&stop, ENOUGH, || MANY).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
