//! Selectors: which devices a group or a bulk change means, by their tags.
//!
//! ```text
//! selector = and { "or" and }
//! and      = not { "and" not }
//! not      = "not" not | "(" selector ")" | "*" | term
//! term     = tag                                       the device has this tag
//!          | tag ( "=" | "!=" ) value
//!          | tag [ "not" ] "in" "(" value { "," value } ")"
//! ```
//!
//! `site=oslo and floor in (1,2)`; `*` is every device. `!=` and `not in` are the plain opposites of `=` and `in`, so
//! they also select devices without the tag. A value that reads as a number or as `true` or `false` means that as well as
//! the text (`floor=2` selects `2` and `"2"`); in quotes, double or single, a value is the text alone. Keywords are read
//! in any case, and a tag or value that is one stands in quotes.

mod parse;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Number, Value};

use crate::{
    device::{TagValue, Tags},
    lexer::quoted,
};

/// The longest selector, in bytes, as written and in its canonical form.
pub const MAX_LENGTH: usize = 2_000;

/// The deepest nesting of parentheses and `not`.
pub const MAX_DEPTH: usize = 16;

/// An expression over a device's tags. [`fmt::Display`] gives its canonical form, which reads back as the same selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector(Expression);

/// What a selector is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expression {
    /// Every device.
    Any,
    /// The device has this tag.
    Has(String),
    /// The tag has one of these values, of which there is at least one.
    Is(String, Vec<TagLiteral>),
    /// The opposite.
    Not(Box<Expression>),
    /// All of them, of which there are at least two; none is itself an `And`.
    And(Vec<Expression>),
    /// One or more of them, of which there are at least two; none is itself an `Or`.
    Or(Vec<Expression>),
}

/// A value in a selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TagLiteral {
    /// This text.
    Text(String),
    /// A bare word that reads as a number or a boolean: that, or the text.
    Word(String),
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// More than [`MAX_LENGTH`].
    #[error("longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// More than [`MAX_DEPTH`].
    #[error("nested more than {MAX_DEPTH} levels deep at character {at}")]
    TooDeep {
        /// Where, in characters from 1.
        at: usize,
    },
    /// Something else should stand there.
    #[error("expected {expected} at character {at}, found {found}")]
    Unexpected {
        /// Where, in characters from 1.
        at: usize,
        /// What could stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A text without its closing quote.
    #[error("the quote at character {at} is never closed")]
    OpenQuote {
        /// Where it opens, in characters from 1.
        at: usize,
    },
    /// No device can have such a tag.
    #[error("at character {at}: a tag's name is 1 to 64 of A-Z a-z 0-9 . _ -")]
    Tag {
        /// Where, in characters from 1.
        at: usize,
    },
    /// No tag can have such a value.
    #[error("at character {at}: a tag's value is at most 200 characters, without U+0000")]
    Value {
        /// Where, in characters from 1.
        at: usize,
    },
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// See [`InvalidSelector`].
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        if text.len() > MAX_LENGTH {
            return Err(InvalidSelector::TooLong);
        }
        let selector = Self(parse::parse(text)?);
        // What is written down must be readable again.
        if selector.to_string().len() > MAX_LENGTH {
            return Err(InvalidSelector::TooLong);
        }
        Ok(selector)
    }

    /// Whether a device with these tags is selected.
    pub fn matches(&self, tags: &Tags) -> bool {
        self.0.matches(tags)
    }

    /// What it is made of, for those who ask a database instead.
    pub fn expression(&self) -> &Expression {
        &self.0
    }
}

impl Expression {
    fn matches(&self, tags: &Tags) -> bool {
        match self {
            Self::Any => true,
            Self::Has(tag) => tags.get(tag).is_some(),
            Self::Is(tag, values) => tags
                .get(tag)
                .is_some_and(|tag| values.iter().any(|value| value.matches(tag))),
            Self::Not(inner) => !inner.matches(tags),
            Self::And(all) => all.iter().all(|one| one.matches(tags)),
            Self::Or(any) => any.iter().any(|one| one.matches(tags)),
        }
    }
}

impl TagLiteral {
    fn matches(&self, tag: &TagValue) -> bool {
        let meant = |value: Value| match (&value, tag) {
            (Value::String(text), TagValue::Text(tag)) => text == tag,
            (Value::Bool(flag), TagValue::Flag(tag)) => flag == tag,
            (Value::Number(number), TagValue::Number(tag)) => equal(number, tag),
            _ => false,
        };
        self.values().into_iter().any(meant)
    }

    /// The values it may mean.
    pub fn values(&self) -> Vec<Value> {
        match self {
            Self::Text(text) => vec![Value::from(text.as_str())],
            Self::Word(word) => vec![Value::from(word.as_str())]
                .into_iter()
                .chain(scalar(word))
                .collect(),
        }
    }
}

/// The number or boolean that a bare word reads as.
fn scalar(word: &str) -> Option<Value> {
    match serde_json::from_str(word) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => Some(value),
        _ => None,
    }
}

/// Whether two numbers are the same, exactly, as Postgres compares them too.
fn equal(one: &Number, other: &Number) -> bool {
    let whole = |number: &Number| {
        let signed = number.as_i64().map(i128::from);
        signed.or_else(|| number.as_u64().map(i128::from))
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast beyond the type's range stays outside of 64 bits"
    )]
    let exact = |float: f64| (float.fract() == 0.0).then_some(float as i128);
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => one == other,
        (Some(whole), None) => other.as_f64().and_then(exact) == Some(whole),
        (None, Some(whole)) => one.as_f64().and_then(exact) == Some(whole),
        (None, None) => one.as_f64() == other.as_f64(),
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        Self::parse(text)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], word: &str| {
            for (n, part) in parts.iter().enumerate() {
                if n > 0 {
                    write!(f, " {word} ")?;
                }
                part.tight(f, word == "and")?;
            }
            Ok(())
        };
        match self {
            Self::Any => f.write_str("*"),
            Self::Has(tag) => f.write_str(&written(tag, false)),
            Self::Is(tag, values) => is(f, tag, values, false),
            Self::Not(inner) => match &**inner {
                Self::Is(tag, values) => is(f, tag, values, true),
                inner => {
                    f.write_str("not ")?;
                    inner.tight(f, true)
                }
            },
            Self::And(all) => joined(f, all, "and"),
            Self::Or(any) => joined(f, any, "or"),
        }
    }
}

impl Expression {
    /// Writes it in parentheses if it would fall apart beside `and` or `not`.
    fn tight(&self, f: &mut fmt::Formatter<'_>, beside_and: bool) -> fmt::Result {
        match self {
            Self::And(_) | Self::Or(_) if beside_and => write!(f, "({self})"),
            _ => write!(f, "{self}"),
        }
    }
}

fn is(f: &mut fmt::Formatter<'_>, tag: &str, values: &[TagLiteral], not: bool) -> fmt::Result {
    let tag = written(tag, false);
    if let [value] = values {
        return write!(f, "{tag}{}{value}", if not { "!=" } else { "=" });
    }
    write!(f, "{tag} {}in (", if not { "not " } else { "" })?;
    for (n, value) in values.iter().enumerate() {
        write!(f, "{}{value}", if n > 0 { "," } else { "" })?;
    }
    f.write_str(")")
}

impl fmt::Display for TagLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Text(text) => f.write_str(&written(text, true)),
        }
    }
}

/// A tag or a text, in quotes where it would be read as something else.
fn written(text: &str, is_value: bool) -> String {
    let plain = !text.is_empty() && text.chars().all(parse::is_bare) && !parse::is_keyword(text);
    let is_scalar = is_value && scalar(text).is_some();
    if plain && !is_scalar {
        return text.to_owned();
    }
    quoted(text)
}
