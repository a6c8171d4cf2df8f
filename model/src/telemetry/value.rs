//! Metric names and the values they take.

use std::{borrow::Cow, str::FromStr};

use serde::{Serialize, Serializer};

use crate::name::is_name;

/// Whether `name` may name a metric: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
///
/// `at` is the sample's time and names no metric.
pub fn is_metric_name(name: &str) -> bool {
    is_name(name) && name != "at"
}

/// What a metric's values are: one type per metric of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Numbers.
    Number,
    /// Booleans.
    Boolean,
    /// Texts.
    String,
}

/// The text names no type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one of number, boolean, string")]
pub struct InvalidKind;

impl Kind {
    /// Its name in a model and in the database: that of JSON Schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::String => "string",
        }
    }

    /// One value of it, in a sentence.
    pub fn article(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::String => "a text",
        }
    }
}

impl FromStr for Kind {
    type Err = InvalidKind;

    fn from_str(text: &str) -> Result<Self, InvalidKind> {
        [Self::Number, Self::Boolean, Self::String]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(InvalidKind)
    }
}

/// The value of one sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// A finite number. JSON integers beyond 2^53 lose their last digits, as in JavaScript.
    Number(f64),
    /// A boolean.
    Flag(bool),
    /// A short text without NUL.
    Text(Cow<'a, str>),
}

impl Value<'_> {
    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Number(_) => Kind::Number,
            Self::Flag(_) => Kind::Boolean,
            Self::Text(_) => Kind::String,
        }
    }

    /// The value with a text of its own.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Number(number) => Value::Number(number),
            Self::Flag(flag) => Value::Flag(flag),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
        }
    }
}

/// Below this every whole `f64` is exactly an integer (2^53).
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Serialize for Value<'_> {
    /// As the device wrote it: `40`, not `40.0`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
            Self::Number(number) if number.fract() == 0.0 && number.abs() < EXACT => {
                serializer.serialize_i64(*number as i64)
            }
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}
