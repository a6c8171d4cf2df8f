//! Slowing down whoever guesses.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The most keys remembered; beyond it those whose window is over are forgotten, and then all.
const MAX_KEYS: usize = 50_000;

/// What stands for a client: its address, or in IPv6 its network of 64 bits, of which a client has every address.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

/// Failures per key within a window. A key that had too many waits until its window is over.
#[derive(Debug)]
pub(super) struct Throttle<K> {
    window: Duration,
    failures: Mutex<HashMap<K, (u32, Instant)>>,
}

impl<K: Eq + Hash> Throttle<K> {
    /// A throttle that forgets failures after `window`.
    pub(super) fn new(window: Duration) -> Self {
        Self {
            window,
            failures: Mutex::default(),
        }
    }

    /// How long this key has to wait if `most` failures are borne; `None` if it may try.
    pub(super) fn wait(&self, key: &K, most: u32) -> Option<Duration> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, since) = failures.get(key)?;
        if *count < most {
            return None;
        }
        self.window
            .checked_sub(since.elapsed())
            .filter(|left| !left.is_zero())
    }

    /// Notes an attempt as failed. Called before the attempt is judged, so that many at once are counted too.
    pub(super) fn fail(&self, key: K) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_KEYS {
            let window = self.window;
            failures.retain(|_, (_, since)| since.elapsed() < window);
            if failures.len() >= MAX_KEYS {
                failures.clear();
            }
        }
        let (count, since) = failures.entry(key).or_insert_with(|| (0, Instant::now()));
        if since.elapsed() >= self.window {
            (*count, *since) = (0, Instant::now());
        }
        *count = count.saturating_add(1);
    }

    /// Takes one failure back: the attempt succeeded.
    pub(super) fn succeed(&self, key: &K) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((count, _)) = failures.get_mut(key) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_every_address_of_its_network() {
        for (address, expected) in [
            ("1.2.3.4", "1.2.3.4"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(network(address.parse().unwrap()).to_string(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_for_the_end_of_its_window() {
        let throttle = Throttle::new(Duration::from_secs(60));
        for _ in 0..3 {
            assert_eq!(throttle.wait(&"a", 3), None);
            throttle.fail("a");
        }
        assert_eq!(throttle.wait(&"a", 3), Some(Duration::from_secs(60)));
        assert_eq!(throttle.wait(&"b", 3), None);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(throttle.wait(&"a", 3), None);
        throttle.fail("a");
        assert_eq!(throttle.wait(&"a", 3), None, "the count began anew");
    }

    #[tokio::test(start_paused = true)]
    async fn what_succeeds_is_no_failure_and_memory_is_bounded() {
        let throttle = Throttle::new(Duration::from_secs(60));
        for key in 0..MAX_KEYS + 10 {
            throttle.fail(key);
        }
        assert!(throttle.failures.lock().unwrap().len() <= MAX_KEYS);
        throttle.fail(0);
        throttle.succeed(&0);
        assert_eq!(throttle.wait(&0, 2), None);
    }
}
