//! How long what comes in gathers before it is written.

use std::time::Duration;

/// While little comes: what is written is there for a reader at once, or nearly so.
const BRIEFLY: Duration = Duration::from_millis(50);

/// In a storm, which is the same rows in fewer statements and commits.
const LONG: Duration = Duration::from_millis(500);

/// Rows of one write that make it a storm: two thousand a second.
const MANY: usize = 100;

/// The pace of one writer: quick while little comes, in larger batches while much does.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    written: usize,
}

impl Gathering {
    /// How long to wait before the next write.
    pub(super) fn pause(&self) -> Duration {
        if self.written < MANY { BRIEFLY } else { LONG }
    }

    /// That many rows were written.
    pub(super) fn wrote(&mut self, rows: usize) {
        self.written = rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_gathers_for_longer_until_it_is_over() {
        let mut gathering = Gathering::default();
        assert_eq!(gathering.pause(), BRIEFLY);
        gathering.wrote(MANY);
        assert_eq!(gathering.pause(), LONG);
        gathering.wrote(MANY - 1);
        assert_eq!(gathering.pause(), BRIEFLY);
    }
}
