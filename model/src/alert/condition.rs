//! What a rule waits for, as one text.
//!
//! ```text
//! condition  = subject [ "for" time ]
//! subject    = comparison { "and" comparison }
//!            | "no" ( "telemetry" | metric )            here the time is needed
//!            | "offline"
//!            | "settings" "pending"
//! comparison = metric ( ">" | ">=" | "<" | "<=" ) number [ "clear" number ]
//!            | metric ( "==" | "!=" ) ( number | "true" | "false" | text )
//! ```
//!
//! `temperature > 30 clear 28 and humidity >= 80 for 5m`. A text stands in quotes, double or single, and so does a
//! metric that would be read as something else (`no "telemetry" for 5m` is the metric of that name). With `clear` an
//! alert that fires goes on until the value is on the other side of that number (hysteresis).

mod parse;

use std::{fmt, str::FromStr};

use super::span::Span;
use crate::{lexer::quoted, telemetry::Value};

/// The longest condition, in bytes.
pub const MAX_LENGTH: usize = 1_000;

/// The most comparisons of one condition.
pub const MAX_COMPARISONS: usize = 8;

/// What must be the case, and for how long. [`fmt::Display`] gives its canonical form, which reads back the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What must be the case.
    pub subject: Subject,
    /// For how long.
    pub hold: Span,
}

/// What must be the case.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// All of these: at least one, at most [`MAX_COMPARISONS`]. A metric that the device never sent fulfils nothing.
    Metrics(Vec<Comparison>),
    /// The device sends nothing, or nothing of this metric.
    Silence(Option<String>),
    /// The device is not connected over MQTT.
    Offline,
    /// Some of the device's settings were not answered.
    SettingsPending,
}

/// A metric's newest value, compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The metric.
    pub metric: String,
    /// How.
    pub operator: Operator,
    /// With what; a number unless the operator is [`Operator::Equal`] or [`Operator::Unequal`].
    pub literal: Literal,
    /// While the alert fires this takes the place of `literal`.
    pub clear: Option<f64>,
}

/// A comparison's operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `==`
    Equal,
    /// `!=`
    Unequal,
}

/// What a value is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// A finite number.
    Number(f64),
    /// A boolean.
    Flag(bool),
    /// A text.
    Text(String),
}

/// Why a text is no condition. Places are in characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCondition {
    /// More than [`MAX_LENGTH`].
    #[error("longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// More than [`MAX_COMPARISONS`].
    #[error("more than {MAX_COMPARISONS} comparisons")]
    TooMany,
    /// Something else should stand there.
    #[error("expected {expected} at character {at}, found {found}")]
    Unexpected {
        /// Where.
        at: usize,
        /// What could stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A text without its closing quote.
    #[error("the quote at character {at} is never closed")]
    OpenQuote {
        /// Where it opens.
        at: usize,
    },
    /// No device can send such a metric.
    #[error(
        "at character {at}: a metric is 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit, and not `at`"
    )]
    Metric {
        /// Where it begins.
        at: usize,
    },
    /// The number after `clear` is on the wrong side.
    #[error("at character {at}: `clear` must be {side} {bound}, or the alert would never end")]
    Clear {
        /// Where the number stands.
        at: usize,
        /// On which side it must be.
        side: &'static str,
        /// Of this.
        bound: String,
    },
    /// No time.
    #[error("at character {at}: a time of whole s, m, h or d, up to 7d, such as `5m`")]
    Time {
        /// Where it should stand.
        at: usize,
    },
}

impl Condition {
    /// The metrics whose samples matter: those compared, or the one that should not be missing.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        let (compared, missing) = match &self.subject {
            Subject::Metrics(all) => (all.as_slice(), None),
            Subject::Silence(metric) => (&[][..], metric.as_deref()),
            Subject::Offline | Subject::SettingsPending => (&[][..], None),
        };
        compared
            .iter()
            .map(|comparison| comparison.metric.as_str())
            .chain(missing)
    }

    /// A word for what it is about: `metrics`, `silence`, `offline`, `settings`.
    pub fn kind(&self) -> &'static str {
        match self.subject {
            Subject::Metrics(_) => "metrics",
            Subject::Silence(_) => "silence",
            Subject::Offline => "offline",
            Subject::SettingsPending => "settings",
        }
    }
}

impl Subject {
    /// Whether all comparisons hold for the newest values; `false` for what is no comparison. `firing` says whether the
    /// alert does.
    pub fn holds<'v, 'd: 'v>(&self, value: impl Fn(&str) -> Option<&'v Value<'d>>, firing: bool) -> bool {
        match self {
            Self::Metrics(all) => all.iter().all(|comparison| {
                value(&comparison.metric).is_some_and(|value| comparison.holds(value, firing))
            }),
            Self::Silence(_) | Self::Offline | Self::SettingsPending => false,
        }
    }
}

impl Comparison {
    /// Whether it holds for a value. A value of another type fulfils nothing, not even `!=`.
    pub fn holds(&self, value: &Value<'_>, firing: bool) -> bool {
        match (value, &self.literal) {
            (Value::Number(value), Literal::Number(bound)) => {
                let bound = self.clear.filter(|_| firing).unwrap_or(*bound);
                match self.operator {
                    Operator::Above => *value > bound,
                    Operator::AtLeast => *value >= bound,
                    Operator::Below => *value < bound,
                    Operator::AtMost => *value <= bound,
                    #[expect(clippy::float_cmp, reason = "what was asked for")]
                    Operator::Equal => *value == bound,
                    #[expect(clippy::float_cmp, reason = "what was asked for")]
                    Operator::Unequal => *value != bound,
                }
            }
            (Value::Flag(value), Literal::Flag(wanted)) => self.operator.agrees(value == wanted),
            (Value::Text(value), Literal::Text(wanted)) => self.operator.agrees(value == wanted),
            _ => false,
        }
    }
}

impl Operator {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Equal => "==",
            Self::Unequal => "!=",
        }
    }

    /// Whether values are equal as it wants them to be.
    fn agrees(self, equal: bool) -> bool {
        match self {
            Self::Equal => equal,
            Self::Unequal => !equal,
            Self::Above | Self::AtLeast | Self::Below | Self::AtMost => false,
        }
    }

    fn is_ordered(self) -> bool {
        !matches!(self, Self::Equal | Self::Unequal)
    }
}

impl FromStr for Condition {
    type Err = InvalidCondition;

    fn from_str(text: &str) -> Result<Self, InvalidCondition> {
        if text.len() > MAX_LENGTH {
            return Err(InvalidCondition::TooLong);
        }
        let condition = parse::parse(text)?;
        // Quoting and spelling out may make it longer.
        if condition.to_string().len() > MAX_LENGTH {
            return Err(InvalidCondition::TooLong);
        }
        Ok(condition)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Metrics(all) => {
                for (n, comparison) in all.iter().enumerate() {
                    write!(f, "{}{comparison}", if n > 0 { " and " } else { "" })?;
                }
            }
            Subject::Silence(None) => f.write_str("no telemetry")?,
            Subject::Silence(Some(metric)) => write!(f, "no {}", metric_name(metric))?,
            Subject::Offline => f.write_str("offline")?,
            Subject::SettingsPending => f.write_str("settings pending")?,
        }
        if self.hold == Span::ZERO {
            return Ok(());
        }
        write!(f, " for {}", self.hold)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metric = metric_name(&self.metric);
        write!(f, "{metric} {} {}", self.operator.as_str(), self.literal)?;
        match self.clear {
            Some(clear) => write!(f, " clear {}", Literal::Number(clear)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Up to here whole numbers are written without an exponent or a point.
        const PLAIN: f64 = 1e15;
        match self {
            Self::Number(number) if number.fract() == 0.0 && number.abs() < PLAIN => write!(f, "{number:.0}"),
            Self::Number(number) => write!(f, "{number:?}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Text(text) => f.write_str(&quoted(text)),
        }
    }
}

/// A metric's name, in quotes where it would be read as something else.
fn metric_name(name: &str) -> String {
    if parse::is_keyword(name) {
        quoted(name)
    } else {
        name.to_owned()
    }
}
