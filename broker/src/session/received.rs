//! QoS 2 messages from a client, from PUBLISH to PUBREL [MQTT-4.3.3].

use std::{num::NonZeroU16, sync::Arc};

use super::live::Live;

/// The packet ids of QoS 2 messages that were received and not yet released. It outlives the connection, so that a
/// message sent again over the next one is not taken twice.
#[derive(Debug, Default)]
pub(crate) struct Received(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    id: NonZeroU16,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The server still works on it, for the connection with this number; the slot of a later connection that sent
    /// it again is answered with the same outcome.
    Pending {
        connection: u64,
        again: Option<(Arc<Live>, u64)>,
    },
    /// PUBREC is due or sent.
    Done,
}

/// What a QoS 2 PUBLISH is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// New: to be taken.
    New,
    /// Taken before: PUBREC again.
    Again,
    /// An earlier connection's, still being worked on.
    Pending,
    /// Sent twice over one connection while being worked on: nothing to say.
    Repeated,
}

impl Received {
    /// How many are not yet released.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Notes a PUBLISH that came over `connection`.
    pub(crate) fn arrive(&mut self, id: NonZeroU16, connection: u64) -> Arrival {
        match self
            .0
            .iter()
            .find(|entry| entry.id == id)
            .map(|entry| &entry.stage)
        {
            None => {
                self.0.push(Entry {
                    id,
                    stage: Stage::Pending {
                        connection,
                        again: None,
                    },
                });
                Arrival::New
            }
            Some(Stage::Done) => Arrival::Again,
            Some(Stage::Pending {
                connection: first,
                again,
            }) => {
                let repeated =
                    *first == connection || again.as_ref().is_some_and(|(live, _)| live.number == connection);
                if repeated {
                    Arrival::Repeated
                } else {
                    Arrival::Pending
                }
            }
        }
    }

    /// Answers `slot` of `live` too once the message is dealt with.
    pub(crate) fn answer_also(&mut self, id: NonZeroU16, live: Arc<Live>, slot: u64) {
        for entry in self.0.iter_mut().filter(|entry| entry.id == id) {
            if let Stage::Pending { again, .. } = &mut entry.stage {
                *again = Some((live.clone(), slot));
            }
        }
    }

    /// The server is done with it. `keep` it until PUBREL, or forget it: PUBREC with an error ends it
    /// [MQTT-4.3.3-9], and a message not taken will be sent again. Yields the other slot to answer.
    pub(crate) fn finish(&mut self, id: NonZeroU16, keep: bool) -> Option<(Arc<Live>, u64)> {
        let index = self.0.iter().position(|entry| entry.id == id)?;
        let stage = if keep {
            std::mem::replace(&mut self.0.get_mut(index)?.stage, Stage::Done)
        } else {
            self.0.swap_remove(index).stage
        };
        match stage {
            Stage::Pending { again, .. } => again,
            Stage::Done => None,
        }
    }

    /// PUBREL: whether the id was known.
    pub(crate) fn release(&mut self, id: NonZeroU16) -> bool {
        match self
            .0
            .iter()
            .position(|entry| entry.id == id && matches!(entry.stage, Stage::Done))
        {
            Some(index) => {
                self.0.swap_remove(index);
                if self.0.is_empty() {
                    self.0 = Vec::new();
                }
                true
            }
            None => false,
        }
    }
}
