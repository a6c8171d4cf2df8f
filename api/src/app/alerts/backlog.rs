//! What a device sends while it is looked at: compared afterwards with what was found.

use chrono::{DateTime, Utc};

use super::watch::SeenSample;

/// What a device may send while it is looked at, before it is looked at once more instead.
const MAX_BACKLOG: usize = 64;

/// What a device sent while it was looked at.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Of the watch whose numbers the samples have.
    generation: u64,
    pub(super) samples: Vec<SeenSample>,
    pub(super) newest: Option<DateTime<Utc>>,
    /// The earliest sample that found no room.
    pub(super) missed: Option<DateTime<Utc>>,
}

impl Backlog {
    pub(super) fn of(generation: u64) -> Self {
        Self {
            generation,
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, generation: u64, samples: Vec<SeenSample>, newest: Option<DateTime<Utc>>) {
        self.newest = self.newest.max(newest);
        for sample in samples {
            if generation == self.generation && self.samples.len() < MAX_BACKLOG {
                self.samples.push(sample);
            } else {
                self.miss(sample.at);
            }
        }
    }

    fn miss(&mut self, at: DateTime<Utc>) {
        self.missed = Some(self.missed.map_or(at, |missed| missed.min(at)));
    }

    /// The same for a watch that may number metrics otherwise.
    pub(super) fn read_by(mut self, generation: u64) -> Self {
        if self.generation != generation {
            for sample in std::mem::take(&mut self.samples) {
                self.miss(sample.at);
            }
        }
        self
    }
}
