//! An axis whose marks are given, for the drawing library.

use chrono::{DateTime, Utc};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use super::ticks;
use crate::app::telemetry::Picture;

/// An axis that knows where its marks are.
pub(super) struct Axis {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) marks: Vec<ticks::Mark<f64>>,
}

impl Axis {
    /// The axis of time, in milliseconds.
    pub(super) fn of_time(picture: &Picture, marks: &[ticks::Mark<DateTime<Utc>>]) -> Self {
        Self {
            from: millis(picture.from),
            to: millis(picture.to).max(millis(picture.from) + 1.0),
            marks: marks
                .iter()
                .map(|(at, words)| (millis(*at), words.clone()))
                .collect(),
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (value - self.from) / (self.to - self.from);
        let place = f64::from(limit.0) + part * f64::from(limit.1.saturating_sub(limit.0));
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a place in the picture; what is beyond ends at its edge"
        )]
        let place = place.round() as i32;
        place
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.marks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let mark = self.marks.iter().find(|(at, _)| at.total_cmp(value).is_eq());
        mark.map_or_else(String::new, |(_, words)| words.clone())
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact for a quarter of a million years"
)]
pub(super) fn millis(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64
}
