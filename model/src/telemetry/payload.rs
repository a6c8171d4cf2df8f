//! What a telemetry payload holds, and what can be wrong with it.

use std::{borrow::Cow, fmt};

use chrono::{DateTime, TimeDelta, Utc};

use super::Value;

/// The most that one payload may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Objects in the array.
    pub items: usize,
    /// Metrics in one object.
    pub metrics: usize,
    /// Bytes of a text value.
    pub text: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            items: 1_000,
            metrics: 64,
            text: 256,
        }
    }
}

/// Which `at` is believed.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Older samples would be dropped by retention at once, so they are refused.
    pub oldest: DateTime<Utc>,
    /// A later `at` comes from a clock that is wrong: stored at its arrival.
    pub newest: DateTime<Utc>,
}

/// When a sample was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// The device says so; whole microseconds.
    Device(DateTime<Utc>),
    /// At its arrival, so many microseconds after the first such object of its payload: objects without a
    /// time of their own stay apart and in order.
    Arrival(u32),
}

impl Stamp {
    /// The time, for a payload whose first object without a time is stored at `arrival`.
    pub fn resolve(self, arrival: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Device(at) => at,
            Self::Arrival(offset) => arrival + TimeDelta::microseconds(i64::from(offset)),
        }
    }
}

/// One value of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// A valid metric name ([`is_metric_name`]).
    pub metric: Cow<'a, str>,
    /// Its value.
    pub value: Value<'a>,
    /// When it was taken.
    pub at: Stamp,
    /// Which object of the array it stood in, from 0; `None` when the payload is a single object.
    pub item: Option<usize>,
}

/// Which rule was broken: a short stable word for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing of the payload can be read.
    Malformed,
    /// An item of the array that is no object of metrics.
    Shape,
    /// A name that no metric may have, or one that stands twice.
    Name,
    /// A value that is no finite number, boolean or short text.
    Value,
    /// A time that is none, or older than telemetry is kept.
    Time,
    /// Another type than the metric's.
    Type,
    /// More items or metrics than there may be.
    TooMany,
    /// The database refused it.
    Database,
}

impl Reason {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Shape => "shape",
            Self::Name => "name",
            Self::Value => "value",
            Self::Time => "time",
            Self::Type => "type",
            Self::TooMany => "too_many",
            Self::Database => "database",
        }
    }
}

/// What is wrong with one object or one of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which object of the array, from 0; `None` when the payload is a single object.
    pub item: Option<usize>,
    /// The key, cut to 64 characters; `None` when it is about the whole object.
    pub key: Option<String>,
    /// The rule that it breaks.
    pub reason: Reason,
    /// What is wrong, for people.
    pub message: Cow<'static, str>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(item) = self.item {
            write!(f, "item {item}: ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "`{key}`: ")?;
        }
        f.write_str(&self.message)
    }
}

/// What a payload holds: the good samples, and what is wrong with the others.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed<'a> {
    /// The samples to store.
    pub samples: Vec<Sample<'a>>,
    /// Objects stored at their arrival: without `at`, or with one in the future.
    pub untimed: u32,
    /// Objects whose `at` was too far in the future.
    pub skewed: usize,
    /// What can't be stored, and why.
    pub problems: Problems,
}

/// All problems of one payload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    listed: Vec<Problem>,
    more: usize,
    counts: Vec<(Reason, usize)>,
}

/// How many problems of one payload are told one by one; the rest are counted.
const MAX_LISTED: usize = 100;

impl Problems {
    /// Adds a problem, to the list or to the count of the others.
    pub fn push(&mut self, problem: Problem) {
        match self
            .counts
            .iter_mut()
            .find(|(reason, _)| *reason == problem.reason)
        {
            Some((_, count)) => *count += 1,
            None => self.counts.push((problem.reason, 1)),
        }
        if self.listed.len() < MAX_LISTED {
            self.listed.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// The first hundred.
    pub fn listed(&self) -> &[Problem] {
        &self.listed
    }

    /// How many there are in all.
    pub fn count(&self) -> usize {
        self.listed.len() + self.more
    }

    /// How many there are of each kind.
    pub fn by_reason(&self) -> &[(Reason, usize)] {
        &self.counts
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// One sentence on all of them, or `None` when there are none.
    pub fn sentence(&self) -> Option<String> {
        let first = self.listed.first()?;
        Some(match self.count() - 1 {
            0 => first.to_string(),
            1 => format!("{first}; and 1 more problem"),
            others => format!("{first}; and {others} more problems"),
        })
    }
}

/// Why nothing of a payload can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON at all, or cut short.
    #[error("not JSON: {0}")]
    Json(String),
    /// JSON, but of another shape.
    #[error("expected an object of metrics, or an array of them")]
    Shape,
    /// An array longer than the limit.
    #[error("more than {0} items")]
    TooMany(usize),
}

impl Malformed {
    /// Which rule it breaks.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Json(_) | Self::Shape => Reason::Malformed,
            Self::TooMany(_) => Reason::TooMany,
        }
    }
}
