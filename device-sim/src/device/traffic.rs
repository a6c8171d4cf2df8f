//! What a device publishes, from the wish to its PUBACK.

use std::{collections::VecDeque, time::Duration};

use serde_json::Value;
use setpoint_model::Channel;
use tokio::{sync::oneshot, time::Instant};

use super::PublishError;

/// Publishes that wait for room in the connection.
const WAITING: usize = 64;

/// What a publish is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// To acknowledge a settings version.
    Acknowledgement { version: u64 },
    /// A sample.
    Telemetry { sample: Value },
    /// The result of a command, or the state of a firmware.
    Report,
    /// Whatever the handle was given.
    Ordered {
        done: oneshot::Sender<Result<(), PublishError>>,
    },
}

impl Purpose {
    /// Tells whoever waits for it how it went.
    pub(super) fn settle(self, outcome: Result<(), PublishError>) {
        if let Self::Ordered { done } = self {
            // Whoever ordered it may have stopped waiting.
            let _ = done.send(outcome);
        }
    }
}

/// A publish on one of the device's own topics.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) channel: Channel,
    pub(super) at_least_once: bool,
    pub(super) payload: Vec<u8>,
    pub(super) purpose: Purpose,
}

/// All publishes under way, in three stages. The last two are bounded by the connection.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Not yet given to the connection.
    waiting: VecDeque<Outgoing>,
    /// Given to the connection, packet id not yet known; in the order of the requests.
    submitted: VecDeque<(Purpose, Instant)>,
    /// Written at QoS 1, PUBACK outstanding.
    in_flight: Vec<(u16, Purpose, Instant)>,
}

impl Traffic {
    /// Takes a publish, and returns what there is no room for. When the server takes nothing for long,
    /// telemetry and orders are turned away, and a report costs the oldest thing that waits: the newest
    /// state matters most.
    pub(super) fn queue(&mut self, outgoing: Outgoing) -> Option<Outgoing> {
        if self.waiting.len() < WAITING {
            self.waiting.push_back(outgoing);
            return None;
        }
        match outgoing.purpose {
            Purpose::Telemetry { .. } | Purpose::Ordered { .. } => Some(outgoing),
            Purpose::Acknowledgement { .. } | Purpose::Report => {
                self.waiting.push_back(outgoing);
                self.waiting.pop_front()
            }
        }
    }

    /// Hands on what waits, until `submit` says that there is no more room.
    pub(super) fn submit(&mut self, mut submit: impl FnMut(&Outgoing) -> bool) {
        while self.waiting.front().is_some_and(&mut submit) {
            if let Some(outgoing) = self.waiting.pop_front() {
                self.submitted.push_back((outgoing.purpose, Instant::now()));
            }
        }
    }

    /// A publish was written with this packet id (0 at QoS 0): returns the sample, if it was one.
    ///
    /// rumqttc takes requests in order, so the oldest submitted is the one that was written. A packet id
    /// that is in flight already is a repetition after a reconnect.
    pub(super) fn written(&mut self, id: u16) -> Option<Value> {
        if id != 0 && self.in_flight.iter().any(|(known, ..)| *known == id) {
            return None;
        }
        let (purpose, at) = self.submitted.pop_front()?;
        let sample = match &purpose {
            Purpose::Telemetry { sample } => Some(sample.clone()),
            _ => None,
        };
        if id == 0 {
            purpose.settle(Ok(()));
        } else {
            self.in_flight.push((id, purpose, at));
        }
        sample
    }

    /// PUBACK: what it was for, and how long it took.
    pub(super) fn acknowledged(&mut self, id: u16) -> Option<(Purpose, Duration)> {
        let index = self.in_flight.iter().position(|(known, ..)| *known == id)?;
        let (_, purpose, at) = self.in_flight.swap_remove(index);
        Some((purpose, at.elapsed()))
    }

    /// The session is gone for good, and all that was under way with it.
    pub(super) fn forget(&mut self) {
        let submitted = self.submitted.drain(..).map(|(purpose, _)| purpose);
        let in_flight = self.in_flight.drain(..).map(|(_, purpose, _)| purpose);
        for purpose in submitted.chain(in_flight) {
            purpose.settle(Err(PublishError::Unknown));
        }
        for outgoing in self.waiting.drain(..) {
            outgoing.purpose.settle(Err(PublishError::NotSent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(purpose: Purpose) -> Outgoing {
        Outgoing {
            channel: Channel::Telemetry,
            at_least_once: true,
            payload: Vec::new(),
            purpose,
        }
    }

    fn sample(number: usize) -> Outgoing {
        outgoing(Purpose::Telemetry {
            sample: number.into(),
        })
    }

    #[test]
    fn a_full_queue_turns_samples_away_but_takes_reports() {
        let mut traffic = Traffic::default();
        for number in 0..WAITING {
            assert!(traffic.queue(sample(number)).is_none());
        }
        let turned_away = traffic.queue(sample(WAITING)).unwrap();
        assert!(matches!(turned_away.purpose, Purpose::Telemetry { sample } if sample == WAITING));
        let turned_away = traffic.queue(outgoing(Purpose::Report)).unwrap();
        assert!(matches!(turned_away.purpose, Purpose::Telemetry { sample } if sample == 0));
        assert_eq!(traffic.waiting.len(), WAITING);
    }

    #[test]
    fn packet_ids_find_their_purpose_and_repetitions_count_once() {
        let mut traffic = Traffic::default();
        for version in [1, 2] {
            traffic.queue(outgoing(Purpose::Acknowledgement { version }));
        }
        traffic.queue(sample(3));
        let mut room = 2;
        traffic.submit(|_| {
            room -= 1;
            room >= 0
        });
        assert_eq!((traffic.waiting.len(), traffic.submitted.len()), (1, 2));
        for id in [11, 12, 11] {
            assert_eq!(traffic.written(id), None);
        }
        let of = |acknowledged: Option<(Purpose, Duration)>| match acknowledged {
            Some((Purpose::Acknowledgement { version }, _)) => Some(version),
            _ => None,
        };
        assert_eq!(of(traffic.acknowledged(12)), Some(2));
        assert_eq!(of(traffic.acknowledged(12)), None);
        assert_eq!(of(traffic.acknowledged(11)), Some(1));
        traffic.submit(|_| true);
        assert_eq!(traffic.written(0), Some(3.into()));
        assert!(traffic.in_flight.is_empty());
    }

    #[test]
    fn a_lost_session_settles_everything() {
        let mut traffic = Traffic::default();
        let mut outcomes = Vec::new();
        for _ in 0..3 {
            let (done, outcome) = oneshot::channel();
            traffic.queue(outgoing(Purpose::Ordered { done }));
            outcomes.push(outcome);
        }
        let mut room = 2;
        traffic.submit(|_| {
            room -= 1;
            room >= 0
        });
        traffic.written(5);
        traffic.forget();
        let outcomes: Vec<_> = outcomes
            .iter_mut()
            .map(|outcome| outcome.try_recv().unwrap())
            .collect();
        let unknown = Err(PublishError::Unknown);
        assert_eq!(outcomes, [unknown, unknown, Err(PublishError::NotSent)]);
    }
}
