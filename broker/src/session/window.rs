//! Messages from a client that the server has not acknowledged yet, in order of arrival [MQTT-4.6.0-2].

use std::{collections::VecDeque, num::NonZeroU16};

use tokio::time::Instant;

use crate::backend::Outcome;

/// How a message wants to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// QoS 0: not at all, but it counts as work in hand.
    None,
    /// QoS 1: PUBACK.
    Ack(NonZeroU16),
    /// QoS 2: PUBREC.
    Received(NonZeroU16),
}

/// What there is to say about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The server's verdict.
    Outcome(Outcome),
    /// The topic rules refused it.
    Denied,
    /// The server dropped it unanswered: the session ends, the client keeps it.
    Lost,
}

/// A message that is answered, at the front of the window.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) kind: Kind,
    pub(crate) answer: Answer,
    pub(crate) since: Instant,
}

/// The window of one connection.
#[derive(Debug, Default)]
pub(crate) struct Window {
    first: u64,
    slots: VecDeque<Slot>,
}

#[derive(Debug)]
struct Slot {
    kind: Kind,
    since: Instant,
    answer: Option<Answer>,
}

impl Window {
    /// How many messages are in it.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many of them want a PUBACK.
    pub(crate) fn awaiting_ack(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| matches!(slot.kind, Kind::Ack(_)))
            .count()
    }

    /// Takes a message in; the number is for [`Self::answer`].
    pub(crate) fn push(&mut self, kind: Kind, answer: Option<Answer>) -> u64 {
        self.slots.push_back(Slot {
            kind,
            since: Instant::now(),
            answer,
        });
        self.first + u64::try_from(self.slots.len()).unwrap_or(u64::MAX) - 1
    }

    /// Answers a message; whether that lets [`Self::pop`] go on.
    pub(crate) fn answer(&mut self, slot: u64, answer: Answer) -> bool {
        let Some(index) = slot.checked_sub(self.first).and_then(|i| usize::try_from(i).ok()) else {
            return false;
        };
        if let Some(slot) = self.slots.get_mut(index) {
            slot.answer = Some(answer);
        }
        index == 0
    }

    /// Takes out the oldest message if it is answered.
    pub(crate) fn pop(&mut self) -> Option<Answered> {
        self.slots.front()?.answer.as_ref()?;
        let slot = self.slots.pop_front()?;
        self.first += 1;
        if self.slots.is_empty() {
            self.slots = VecDeque::new();
        }
        Some(Answered {
            kind: slot.kind,
            answer: slot.answer?,
            since: slot.since,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_in_the_order_of_arrival() {
        let mut window = Window::default();
        let id = |n| Kind::Ack(NonZeroU16::new(n).unwrap());
        let slots: Vec<u64> = (1..=3).map(|n| window.push(id(n), None)).collect();
        assert!(!window.answer(slots[2], Answer::Denied));
        assert!(window.pop().is_none());
        assert!(window.answer(slots[0], Answer::Outcome(Outcome::Accepted)));
        assert_eq!(window.pop().unwrap().kind, id(1));
        assert!(window.pop().is_none());
        assert!(window.answer(slots[1], Answer::Lost));
        assert_eq!(window.pop().unwrap().answer, Answer::Lost);
        assert_eq!(window.pop().unwrap().kind, id(3));
        assert_eq!((window.len(), window.awaiting_ack()), (0, 0));
        // A late answer, and one for a slot to come, harm nothing.
        assert!(!window.answer(slots[0], Answer::Lost));
        assert!(!window.answer(99, Answer::Lost) && window.pop().is_none());
    }
}
