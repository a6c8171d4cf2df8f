//! Which part of a range is read from which table.

use chrono::{DateTime, TimeDelta, Utc};

use super::Marks;

/// A table that a part of a range is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// The samples.
    Samples,
    /// Roll-ups by minute.
    Minutes,
    /// Roll-ups by hour.
    Hours,
}

/// A part of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) level: Level,
    pub(super) from: DateTime<Utc>,
    pub(super) to: DateTime<Utc>,
}

/// A range of time: from, and the first time that is too late.
pub(super) type Span = (DateTime<Utc>, DateTime<Utc>);

impl Level {
    /// The coarsest one that buckets of `seconds` are made of. Buckets begin at multiples of their width since a midnight,
    /// so no minute or hour lies in two of them.
    pub(super) fn of_bucket(seconds: u32) -> Self {
        if seconds.is_multiple_of(3_600) {
            Self::Hours
        } else if seconds.is_multiple_of(60) {
            Self::Minutes
        } else {
            Self::Samples
        }
    }

    /// The width of a row and from when to when there are rows; `None` for samples.
    fn rows(self, marks: &Marks) -> Option<(TimeDelta, Span, Self)> {
        match self {
            Self::Samples => None,
            Self::Minutes => Some((
                TimeDelta::minutes(1),
                (marks.minutes_from, marks.rolled),
                Self::Samples,
            )),
            Self::Hours => Some((
                TimeDelta::hours(1),
                (marks.hours_from, marks.rolled),
                Self::Minutes,
            )),
        }
    }
}

/// The pieces of a range in order of time, together all of it, none coarser than `coarsest`. `late` are the hours (in
/// order) of which roll-ups wait to be computed again: there samples are read.
pub(super) fn pieces(
    (from, to): Span,
    coarsest: Level,
    marks: &Marks,
    late: impl IntoIterator<Item = Span>,
) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut next = from;
    for (since, until) in late {
        let (since, until) = (since.max(next), until.min(to));
        // Dropped samples don't come back: what is known of them stands in the roll-ups.
        if since >= until || until <= marks.raw_from {
            continue;
        }
        cover(&mut pieces, (next, since), coarsest, marks);
        push(&mut pieces, (since, until), Level::Samples);
        next = until;
    }
    cover(&mut pieces, (next, to), coarsest, marks);
    pieces
}

/// Whole rows of `level` in the middle, something finer at both ends.
fn cover(pieces: &mut Vec<Piece>, (from, to): Span, level: Level, marks: &Marks) {
    let Some((width, (first, last), finer)) = level.rows(marks) else {
        push(pieces, (from, to), level);
        return;
    };
    let (begin, end) = (ceiling(from.max(first), width), floor(to.min(last), width));
    if begin < end {
        cover(pieces, (from, begin), finer, marks);
        push(pieces, (begin, end), level);
        cover(pieces, (end, to), finer, marks);
    } else {
        cover(pieces, (from, to), finer, marks);
    }
}

fn push(pieces: &mut Vec<Piece>, (from, to): Span, level: Level) {
    if from >= to {
        return;
    }
    match pieces.last_mut() {
        Some(last) if last.level == level && last.to == from => last.to = to,
        _ => pieces.push(Piece { level, from, to }),
    }
}

/// Microseconds from 1970 to Monday, 2001-01-01, where buckets of every width begin.
const ORIGIN: i64 = 978_307_200 * 1_000_000;

/// The beginning of the bucket of this width.
pub(super) fn floor(at: DateTime<Utc>, width: TimeDelta) -> DateTime<Utc> {
    let width = width.num_microseconds().unwrap_or(1).max(1);
    let micros = at.timestamp_micros();
    DateTime::from_timestamp_micros(micros - (micros - ORIGIN).rem_euclid(width)).unwrap_or(at)
}

fn ceiling(at: DateTime<Utc>, width: TimeDelta) -> DateTime<Utc> {
    let floor = floor(at, width);
    if floor == at { at } else { floor + width }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn second(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + second, 0).unwrap()
    }

    fn marks(rolled: i64) -> Marks {
        let beginning = second(-1_000_000);
        Marks {
            announced: second(rolled),
            rolled: second(rolled),
            raw_from: beginning,
            minutes_from: beginning,
            hours_from: beginning,
        }
    }

    fn told(pieces: &[Piece]) -> Vec<(Level, i64, i64)> {
        let told = pieces.iter();
        told.map(|piece| {
            let of = |at: DateTime<Utc>| (at - second(0)).num_seconds();
            (piece.level, of(piece.from), of(piece.to))
        })
        .collect()
    }

    #[test]
    fn the_middle_is_coarse_and_the_ends_are_fine() {
        use Level::{Hours, Minutes, Samples};
        let span = (second(3_000 + 30), second(5 * 3_600 + 90));
        assert_eq!(
            told(&pieces(span, Hours, &marks(4 * 3_600 + 120), [])),
            [
                (Samples, 3_030, 3_060),
                (Minutes, 3_060, 3_600),
                (Hours, 3_600, 4 * 3_600),
                (Minutes, 4 * 3_600, 4 * 3_600 + 120),
                (Samples, 4 * 3_600 + 120, 5 * 3_600 + 90),
            ]
        );
        let late = [(second(7_200), second(10_800))];
        assert_eq!(
            told(&pieces(span, Minutes, &marks(4 * 3_600), late)),
            [
                (Samples, 3_030, 3_060),
                (Minutes, 3_060, 7_200),
                (Samples, 7_200, 10_800),
                (Minutes, 10_800, 4 * 3_600),
                (Samples, 4 * 3_600, 5 * 3_600 + 90),
            ]
        );
        let dropped = Marks {
            raw_from: second(10_800),
            minutes_from: second(7_200),
            ..marks(4 * 3_600)
        };
        assert_eq!(
            told(&pieces(span, Hours, &dropped, late)),
            [
                (Samples, 3_030, 3_600),
                (Hours, 3_600, 4 * 3_600),
                (Samples, 4 * 3_600, 5 * 3_600 + 90),
            ]
        );
    }

    #[test]
    fn buckets_are_made_of_the_coarsest_that_divides_them() {
        for (seconds, level) in [
            (30, Level::Samples),
            (90, Level::Samples),
            (60, Level::Minutes),
            (5_400, Level::Minutes),
            (3_600, Level::Hours),
            (7 * 86_400, Level::Hours),
        ] {
            assert_eq!(Level::of_bucket(seconds), level, "{seconds}");
        }
    }

    proptest! {
        /// Whatever the marks are, the pieces are the range, one after the other, and none reads rows that aren't there.
        #[test]
        fn pieces_are_the_range(
            from in 0_i64..20_000,
            length in 0_i64..50_000,
            rolled in 0_i64..1_200,
            minutes_from in -10_i64..800,
            hours_from in -2_i64..14,
            late in prop::collection::btree_set(0_i64..18, 0..5),
            coarsest in prop::sample::select(vec![Level::Samples, Level::Minutes, Level::Hours]),
        ) {
            let marks = Marks {
                minutes_from: second(minutes_from * 60),
                hours_from: second(hours_from * 3_600),
                ..marks(rolled * 60)
            };
            let late: Vec<_> = late.into_iter().map(|hour| (second(hour * 3_600), second((hour + 1) * 3_600))).collect();
            let pieces = pieces((second(from), second(from + length)), coarsest, &marks, late.clone());
            let mut next = second(from);
            for piece in &pieces {
                prop_assert_eq!(piece.from, next);
                prop_assert!(piece.from < piece.to);
                next = piece.to;
                if let Some((width, (first, last), _)) = piece.level.rows(&marks) {
                    prop_assert!(first <= piece.from && piece.to <= last);
                    prop_assert_eq!(floor(piece.from, width), piece.from);
                    prop_assert_eq!(floor(piece.to, width), piece.to);
                    prop_assert!(late.iter().all(|(since, until)| *until <= piece.from || piece.to <= *since));
                    prop_assert!(coarsest == Level::Hours || piece.level == coarsest);
                }
            }
            prop_assert_eq!(next, second(from + length));
        }
    }
}
