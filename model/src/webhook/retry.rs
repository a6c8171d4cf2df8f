//! When a delivery that failed is tried again.

use std::time::Duration;

/// Pauses that double from the first to the longest, up to a number of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The pause after the first attempt.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// Attempts in all.
    pub attempts: u32,
}

impl Retry {
    /// How long to wait after the `failed`th attempt (from 1) failed; `None` if that was the last.
    ///
    /// `jitter`, 0 to 1, spreads what failed together: the pause is between half and the whole of what the doubling
    /// gives. What the receiver asked for in `Retry-After` is waited for at least, but never longer than the longest
    /// pause.
    pub fn pause(self, failed: u32, jitter: f64, asked: Option<Duration>) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        let doublings = failed.saturating_sub(1).min(32);
        let whole = self
            .first
            .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        let whole = whole.min(self.longest);
        let half = whole / 2;
        let pause = half + half.mul_f64(jitter.clamp(0.0, 1.0));
        let asked = asked.unwrap_or_default().min(self.longest);
        Some(pause.max(asked))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RETRY: Retry = Retry {
        first: Duration::from_secs(5),
        longest: Duration::from_secs(3_600),
        attempts: 30,
    };

    #[test]
    fn pauses_double_up_to_the_longest() {
        let whole: Vec<u64> = (1..=11)
            .filter_map(|failed| RETRY.pause(failed, 1.0, None))
            .map(|pause| pause.as_secs())
            .collect();
        assert_eq!(whole, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600]);
        assert_eq!(RETRY.pause(1, 0.0, None), Some(Duration::from_millis(2_500)));
        assert_eq!(RETRY.pause(30, 1.0, None), None);
    }

    #[test]
    fn what_the_receiver_asks_for_is_waited_for_within_bounds() {
        let asked = |seconds| RETRY.pause(1, 1.0, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(1), Some(Duration::from_secs(5)));
        assert_eq!(asked(60), Some(Duration::from_secs(60)));
        assert_eq!(asked(1_000_000), Some(Duration::from_secs(3_600)));
    }

    proptest! {
        #[test]
        fn a_pause_is_between_half_and_the_whole_of_its_turn(
            first in 1_u64..100_000, longest in 1_u64..10_000_000, failed in 1_u32..100, jitter in 0.0..=1.0
        ) {
            let (first, longest) = (Duration::from_millis(first), Duration::from_millis(longest));
            let retry = Retry { first, longest, attempts: 50 };
            match retry.pause(failed, jitter, None) {
                None => prop_assert!(failed >= 50),
                Some(pause) => {
                    let whole = retry.pause(failed, 1.0, None).unwrap();
                    prop_assert!(pause <= whole && whole <= longest);
                    prop_assert!(pause >= whole / 2);
                    let next = retry.pause(failed + 1, 1.0, None);
                    prop_assert!(next.is_none_or(|next| next >= whole), "never shorter than before");
                }
            }
        }
    }
}
