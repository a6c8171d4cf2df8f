//! What stands in buckets without samples.

use std::{fmt, str::FromStr};

use super::Value;

/// What stands in a bucket of a metric that has samples in the range, but none in this bucket.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Fill {
    /// The bucket is left out.
    #[default]
    None,
    /// Nothing: the bucket is there, without a value.
    Null,
    /// The value of the bucket before that has one; nothing before the first.
    Previous,
    /// A number on the straight line between the buckets around it; nothing outside of the first and the last, and
    /// none between values that are no numbers.
    Linear,
    /// This number.
    Number(f64),
}

/// The text says nothing of what to fill with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one of none, null, previous, linear, or a number")]
pub struct InvalidFill;

impl FromStr for Fill {
    type Err = InvalidFill;

    fn from_str(text: &str) -> Result<Self, InvalidFill> {
        Ok(match text {
            "none" => Self::None,
            "null" => Self::Null,
            "previous" => Self::Previous,
            "linear" => Self::Linear,
            number => match number.parse::<f64>() {
                // `f64` also reads `nan` and `inf`.
                Ok(number) if number.is_finite() => Self::Number(number),
                _ => return Err(InvalidFill),
            },
        })
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Null => f.write_str("null"),
            Self::Previous => f.write_str("previous"),
            Self::Linear => f.write_str("linear"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl Fill {
    /// Fills one metric's buckets in place, oldest first.
    pub fn apply(self, buckets: &mut [Option<Value<'static>>]) {
        match self {
            Self::None | Self::Null => {}
            Self::Number(number) => {
                for bucket in buckets {
                    bucket.get_or_insert(Value::Number(number));
                }
            }
            Self::Previous => {
                let mut last: Option<Value<'static>> = None;
                for bucket in buckets {
                    match bucket {
                        Some(value) => last = Some(value.clone()),
                        None => bucket.clone_from(&last),
                    }
                }
            }
            Self::Linear => interpolate(buckets),
        }
    }
}

fn interpolate(buckets: &mut [Option<Value<'static>>]) {
    // What is not filled yet, behind the last number.
    let mut rest = buckets;
    let mut before: Option<f64> = None;
    while let Some(gap) = rest.iter().position(Option::is_some) {
        let (empty, found) = rest.split_at_mut(gap);
        let Some((value, behind)) = found.split_first_mut() else {
            return;
        };
        let after = match value {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        };
        if let (Some(before), Some(after)) = (before, after) {
            let steps = as_f64(empty.len().saturating_add(1));
            for (n, bucket) in empty.iter_mut().enumerate() {
                let part = as_f64(n.saturating_add(1)) / steps;
                // Not `before + (after - before) * part`: the difference of two finite numbers may be none.
                *bucket = Some(Value::Number(before * (1.0 - part) + after * part));
            }
        }
        before = after;
        rest = behind;
    }
}

#[expect(clippy::cast_precision_loss, reason = "as many buckets never fit into memory")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(of: &[Option<f64>]) -> Vec<Option<Value<'static>>> {
        of.iter().map(|number| number.map(Value::Number)).collect()
    }

    fn filled(fill: &str, of: &[Option<f64>]) -> Vec<Option<f64>> {
        let mut buckets = numbers(of);
        fill.parse::<Fill>().unwrap().apply(&mut buckets);
        let number = |value: Option<Value<'static>>| match value {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        };
        buckets.into_iter().map(number).collect()
    }

    #[test]
    fn each_fills_its_own_way() {
        let gappy = [None, Some(1.0), None, None, Some(4.0), None];
        assert_eq!(filled("none", &gappy), gappy);
        assert_eq!(filled("null", &gappy), gappy);
        let [one, four] = [Some(1.0), Some(4.0)];
        assert_eq!(filled("previous", &gappy), [None, one, one, one, four, four]);
        let between = [None, one, Some(2.0), Some(3.0), four, None];
        assert_eq!(filled("linear", &gappy), between);
        let half = Some(-0.5);
        assert_eq!(filled("-0.5", &gappy), [half, one, half, half, four, half]);
    }

    #[test]
    fn a_line_leads_from_number_to_number_only() {
        let mut buckets = vec![
            Some(Value::Number(1.0)),
            None,
            Some(Value::Flag(true)),
            None,
            Some(Value::Number(3.0)),
        ];
        let before = buckets.clone();
        Fill::Linear.apply(&mut buckets);
        assert_eq!(buckets, before);
    }

    #[test]
    fn what_is_no_fill_is_refused() {
        for wrong in ["", "zero", "nan", "inf", "-infinity", "1e999", " 1", "Null"] {
            assert_eq!(wrong.parse::<Fill>(), Err(InvalidFill), "{wrong}");
        }
        for right in ["none", "null", "previous", "linear", "0", "-1.5"] {
            assert_eq!(right.parse::<Fill>().unwrap().to_string(), right);
        }
    }

    proptest! {
        #[test]
        fn what_is_there_stays_and_a_line_keeps_between_its_ends(
            buckets in prop::collection::vec(prop::option::of(-1e9..1e9), 0..40),
        ) {
            for fill in ["null", "previous", "linear", "7"] {
                let done = filled(fill, &buckets);
                prop_assert_eq!(done.len(), buckets.len());
                for (before, after) in buckets.iter().zip(&done) {
                    prop_assert!(before.is_none() || before == after);
                }
            }
            let known: Vec<usize> = (0..buckets.len()).filter(|n| buckets[*n].is_some()).collect();
            let line = filled("linear", &buckets);
            for (n, value) in line.iter().enumerate() {
                let inside = known.first().is_some_and(|first| *first <= n) && known.last() >= Some(&n);
                prop_assert_eq!(value.is_some(), inside);
            }
            for ends in known.windows(2) {
                let (low, high) = (line[ends[0]].unwrap(), line[ends[1]].unwrap());
                for value in &line[ends[0]..=ends[1]] {
                    let value = value.unwrap();
                    prop_assert!(low.min(high) - 1e-6 <= value && value <= low.max(high) + 1e-6);
                }
            }
        }
    }
}
