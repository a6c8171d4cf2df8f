//! The newest events, bounded in number and bytes, read by position.

use std::{collections::VecDeque, sync::Arc};

use super::Event;

/// An event with its position.
#[derive(Debug)]
pub struct Numbered {
    /// Rises with each event of this server; not every number is in every log.
    pub number: u64,
    /// The event.
    pub event: Event,
}

/// What was asked for is not in the log any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// The newest events of some types.
#[derive(Debug)]
pub(super) struct Log {
    entries: VecDeque<Arc<Numbered>>,
    max_entries: usize,
    bytes: usize,
    max_bytes: usize,
    /// The last number that had to make room, or was never kept.
    forgotten: u64,
}

impl Log {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            max_entries,
            bytes: 0,
            max_bytes,
            forgotten: 0,
        }
    }

    /// Adds the newest event. The oldest make room.
    pub(super) fn push(&mut self, entry: Arc<Numbered>) {
        self.bytes += entry.event.size();
        self.entries.push_back(entry);
        while self.entries.len() > self.max_entries || self.bytes > self.max_bytes {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= oldest.event.size();
            self.forgotten = oldest.number;
        }
    }

    /// Nothing was kept up to this number.
    pub(super) fn forget_until(&mut self, number: u64) {
        self.entries.clear();
        self.bytes = 0;
        self.forgotten = number;
    }

    /// Those behind `number` and up to `until`, oldest first.
    pub(super) fn after(
        &self,
        number: u64,
        until: u64,
    ) -> Result<impl Iterator<Item = &Arc<Numbered>> + use<'_>, Lost> {
        if number < self.forgotten {
            return Err(Lost);
        }
        let begin = self.entries.partition_point(|entry| entry.number <= number);
        let end = self.entries.partition_point(|entry| entry.number <= until);
        Ok(self.entries.range(begin.min(end)..end))
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;
    use setpoint_model::event::EventType;

    use super::*;

    fn entry(number: u64, data: &str) -> Arc<Numbered> {
        let event = Event {
            kind: EventType::Presence,
            serial: "A".parse().unwrap(),
            at: DateTime::UNIX_EPOCH,
            data: data.into(),
        };
        Arc::new(Numbered { number, event })
    }

    fn numbers(log: &Log, after: u64) -> Result<Vec<u64>, Lost> {
        log.after(after, u64::MAX)
            .map(|entries| entries.map(|entry| entry.number).collect())
    }

    #[test]
    fn the_oldest_make_room_and_who_needs_them_is_told() {
        let mut log = Log::new(3, 1 << 20);
        for number in [2, 4, 6, 8] {
            log.push(entry(number, "{}"));
        }
        assert_eq!(numbers(&log, 1), Err(Lost));
        assert_eq!(numbers(&log, 2), Ok(vec![4, 6, 8]));
        assert_eq!(numbers(&log, 5), Ok(vec![6, 8]));
        assert_eq!(numbers(&log, 8), Ok(vec![]));
    }

    #[test]
    fn it_is_bounded_in_bytes_too() {
        let mut log = Log::new(1_000, 10_000);
        for number in 1..=100 {
            log.push(entry(number, &"x".repeat(1_000)));
        }
        assert!(log.bytes <= 10_000 && !log.entries.is_empty());
        log.push(entry(101, &"x".repeat(20_000)));
        assert_eq!(numbers(&log, 100), Err(Lost), "larger than the log");
        assert_eq!(log.bytes, 0);
    }

    proptest! {
        #[test]
        fn what_is_not_lost_is_complete(kept in 1_usize..20, steps in prop::collection::vec(1_u64..4, 0..60), after in 0_u64..100) {
            let mut log = Log::new(kept, usize::MAX);
            let mut all = Vec::new();
            let mut number = 0;
            for step in steps {
                number += step;
                log.push(entry(number, "{}"));
                all.push(number);
            }
            let expected: Vec<u64> = all.iter().copied().filter(|n| *n > after).collect();
            match numbers(&log, after) {
                Ok(found) => prop_assert_eq!(found, expected),
                Err(Lost) => prop_assert!(expected.len() >= kept),
            }
        }
    }
}
