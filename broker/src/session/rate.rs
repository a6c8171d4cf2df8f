//! How fast one client may send.

use std::time::Duration;

use tokio::time::Instant;

/// Two token buckets, packets and bytes, each holding two seconds' worth. They may go into debt by one packet; while
/// they are, the connection is not read.
#[derive(Debug)]
pub(crate) struct Rate {
    packets: f64,
    bytes: f64,
    filled: Instant,
    /// Since when the client has been above its rate, with the buckets never full in between.
    slowed_since: Option<Instant>,
}

/// What a client may send per second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    pub(crate) packets: u32,
    pub(crate) bytes: u32,
}

/// How many seconds' worth a bucket holds.
const BURST: f64 = 2.0;

impl Rate {
    pub(crate) fn new(allowance: Allowance, now: Instant) -> Self {
        let Allowance { packets, bytes } = allowance;
        Self {
            packets: f64::from(packets) * BURST,
            bytes: f64::from(bytes) * BURST,
            filled: now,
            slowed_since: None,
        }
    }

    /// Counts one packet of `length` bytes; whether the client is to be slowed down from now on.
    pub(crate) fn take(&mut self, length: usize, allowance: Allowance, now: Instant) -> bool {
        self.fill(allowance, now);
        self.packets -= 1.0;
        self.bytes -= f64::from(u32::try_from(length).unwrap_or(u32::MAX));
        let slowed = self.packets < 0.0 || self.bytes < 0.0;
        if slowed && self.slowed_since.is_none() {
            self.slowed_since = Some(now);
            return true;
        }
        false
    }

    /// When the connection may be read again; `None` if it may be now.
    pub(crate) fn pause(&mut self, allowance: Allowance, now: Instant) -> Option<Instant> {
        if self.packets >= 0.0 && self.bytes >= 0.0 {
            return None;
        }
        self.fill(allowance, now);
        let missing =
            (-self.packets / f64::from(allowance.packets)).max(-self.bytes / f64::from(allowance.bytes));
        // Not to the last token: waking up for each packet costs more than it tells.
        (missing > 0.0).then(|| now + Duration::from_secs_f64(missing.max(0.02)))
    }

    /// For how long the client has been above its rate without a rest.
    pub(crate) fn slowed_for(&self, now: Instant) -> Duration {
        self.slowed_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn fill(&mut self, allowance: Allowance, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        let (packets, bytes) = (f64::from(allowance.packets), f64::from(allowance.bytes));
        self.packets = (self.packets + elapsed * packets).min(packets * BURST);
        self.bytes = (self.bytes + elapsed * bytes).min(bytes * BURST);
        if self.packets >= packets && self.bytes >= bytes {
            self.slowed_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance {
        packets: 10,
        bytes: 1_000,
    };

    #[test]
    fn a_burst_is_free_and_its_excess_is_waited_for() {
        let start = Instant::now();
        let mut rate = Rate::new(ALLOWANCE, start);
        for _ in 0..20 {
            assert!(!rate.take(10, ALLOWANCE, start));
            assert_eq!(rate.pause(ALLOWANCE, start), None);
        }
        assert!(rate.take(10, ALLOWANCE, start));
        let pause = rate.pause(ALLOWANCE, start).unwrap() - start;
        assert!(
            pause >= Duration::from_millis(99) && pause <= Duration::from_millis(101),
            "{pause:?}"
        );
        assert_eq!(rate.pause(ALLOWANCE, start + Duration::from_millis(101)), None);
    }

    #[test]
    fn bytes_count_as_well() {
        let start = Instant::now();
        let mut rate = Rate::new(ALLOWANCE, start);
        assert!(rate.take(3_000, ALLOWANCE, start));
        let pause = rate.pause(ALLOWANCE, start).unwrap() - start;
        assert!(
            pause >= Duration::from_millis(999) && pause <= Duration::from_millis(1_001),
            "{pause:?}"
        );
    }

    #[test]
    fn a_rest_is_forgiven_and_none_is_not() {
        let start = Instant::now();
        let mut rate = Rate::new(ALLOWANCE, start);
        for _ in 0..21 {
            rate.take(1, ALLOWANCE, start);
        }
        let later = start + Duration::from_secs(60);
        let mut steady = start;
        while steady < later {
            steady += Duration::from_millis(100);
            rate.take(1, ALLOWANCE, steady);
        }
        assert_eq!(rate.slowed_for(later), Duration::from_secs(60));
        rate.take(1, ALLOWANCE, later + Duration::from_secs(5));
        assert_eq!(rate.slowed_for(later + Duration::from_secs(5)), Duration::ZERO);
    }
}
