//! The payload of `devices/{serial}/telemetry`: one object, or an array of them.
//!
//! This is the hot path, so samples are read in one pass, straight into a flat list, with names and texts
//! borrowed from the payload. Only when that pass meets something that `serde_json` can't step over (`1e999`,
//! half a surrogate pair) is the payload read again, value by value, so that the rest of it is kept.

use std::{borrow::Cow, fmt};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Value, is_metric_name};

/// How many problems of one payload are told one by one; the rest are counted.
const MAX_PROBLEMS: usize = 100;

/// How much of a wrong key is repeated in a message, in characters.
const MAX_SHOWN_KEY: usize = 64;

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
}

/// What is wrong with one object or one of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which object of the array, from 0; `None` when the payload is a single object.
    pub item: Option<usize>,
    /// The key, cut to 64 characters; `None` when it is about the whole object.
    pub key: Option<String>,
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
    /// What can't be stored and why; at most 100.
    pub problems: Vec<Problem>,
    /// Problems beyond those in the list.
    pub more_problems: usize,
}

impl Parsed<'_> {
    /// One sentence on all problems, or `None` when there are none.
    pub fn complaint(&self) -> Option<String> {
        let first = self.problems.first()?;
        let others = self.problems.len() - 1 + self.more_problems;
        Some(match others {
            0 => first.to_string(),
            1 => format!("{first}; and 1 more problem"),
            _ => format!("{first}; and {others} more problems"),
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

/// Reads a payload: what can be stored, and what is wrong with the rest.
///
/// # Errors
/// When the payload as a whole can't be read: see [`Malformed`].
pub fn parse<'a>(payload: &'a [u8], limits: &Limits, window: Window) -> Result<Parsed<'a>, Malformed> {
    match Reader::read(payload, limits, window, false) {
        Err(Malformed::Json(_)) => Reader::read(payload, limits, window, true),
        result => result,
    }
}

/// The state of one pass.
struct Reader<'a, 'p> {
    limits: &'p Limits,
    window: Window,
    /// Whether to read value by value, so that an unreadable one can be stepped over.
    careful: bool,
    parsed: Parsed<'a>,
    verdict: Option<Malformed>,
}

impl<'a, 'p> Reader<'a, 'p> {
    fn read(
        payload: &'a [u8],
        limits: &'p Limits,
        window: Window,
        careful: bool,
    ) -> Result<Parsed<'a>, Malformed> {
        let mut reader = Self {
            limits,
            window,
            careful,
            parsed: Parsed::default(),
            verdict: None,
        };
        let mut json = serde_json::Deserializer::from_slice(payload);
        let result = json
            .deserialize_any(PayloadVisitor(&mut reader))
            .and_then(|()| json.end());
        match (reader.verdict, result) {
            (Some(verdict), _) => Err(verdict),
            (None, Ok(())) => Ok(reader.parsed),
            (None, Err(error)) if error.is_data() => Err(Malformed::Shape),
            (None, Err(error)) => Err(Malformed::Json(error.to_string())),
        }
    }

    fn problem(&mut self, item: Option<usize>, key: Option<&str>, message: impl Into<Cow<'static, str>>) {
        if self.parsed.problems.len() == MAX_PROBLEMS {
            self.parsed.more_problems += 1;
            return;
        }
        let key = key.map(|key| key.chars().take(MAX_SHOWN_KEY).collect());
        self.parsed.problems.push(Problem {
            item,
            key,
            message: message.into(),
        });
    }

    /// Reads the keys of one object into samples, and sets their time when the object is through.
    fn object<A: MapAccess<'a>>(&mut self, item: Option<usize>, mut map: A) -> Result<(), A::Error> {
        let first = self.parsed.samples.len();
        let mut time = Time::Missing;
        let mut keys = 0_usize;
        while let Some(Key(key)) = map.next_key_seed(KeySeed)? {
            let value = map.next_value_seed(ScalarSeed {
                careful: self.careful,
            })?;
            if key == "at" {
                time = match (time, value) {
                    (Time::Missing, Scalar::Text(text)) => self.time(&text),
                    (Time::Missing, _) => Time::Wrong("must be a text in RFC 3339: \"2026-01-01T12:00:00Z\""),
                    _ => Time::Wrong("is there twice"),
                };
                continue;
            }
            keys += 1;
            if keys > self.limits.metrics {
                continue;
            }
            match self.sample(&key, value) {
                Ok(value) => self.parsed.samples.push(Sample {
                    metric: key,
                    value,
                    at: Stamp::Arrival(0),
                }),
                Err(message) => self.problem(item, Some(&key), message),
            }
        }
        self.finish_object(item, first, keys, time);
        Ok(())
    }

    fn finish_object(&mut self, item: Option<usize>, first: usize, keys: usize, time: Time) {
        if keys > self.limits.metrics {
            self.parsed.samples.truncate(first);
            return self.problem(item, None, format!("more than {} metrics", self.limits.metrics));
        }
        let stamp = match time {
            Time::Wrong(message) => {
                self.parsed.samples.truncate(first);
                return self.problem(item, Some("at"), message);
            }
            _ if keys == 0 => return self.problem(item, None, "has no metric"),
            Time::Known(at) => Stamp::Device(at),
            Time::Missing | Time::Future => {
                let offset = self.parsed.untimed;
                self.parsed.untimed += 1;
                self.parsed.skewed += usize::from(matches!(time, Time::Future));
                Stamp::Arrival(offset)
            }
        };
        self.drop_repeated(item, first);
        for sample in self.parsed.samples.iter_mut().skip(first) {
            sample.at = stamp;
        }
    }

    /// A key that stands twice in one object has no value that anyone could trust: neither is kept.
    fn drop_repeated(&mut self, item: Option<usize>, first: usize) {
        let (_, fresh) = self.parsed.samples.split_at(first);
        let mut repeated: Vec<String> = Vec::new();
        for (index, sample) in fresh.iter().enumerate() {
            let again = fresh
                .iter()
                .skip(index + 1)
                .any(|other| other.metric == sample.metric);
            if again && !repeated.iter().any(|name| *name == sample.metric) {
                repeated.push(sample.metric.to_string());
            }
        }
        if repeated.is_empty() {
            return;
        }
        let mut kept = self.parsed.samples.split_off(first);
        kept.retain(|sample| !repeated.iter().any(|name| *name == sample.metric));
        self.parsed.samples.append(&mut kept);
        for name in repeated {
            self.problem(item, Some(&name), "is there twice");
        }
    }

    fn sample(&self, key: &str, value: Scalar<'a>) -> Result<Value<'a>, Cow<'static, str>> {
        if !is_metric_name(key) {
            return Err(
                "a metric name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit".into(),
            );
        }
        match value {
            Scalar::Number(number) if number.is_finite() => Ok(Value::Number(number)),
            Scalar::Number(_) => Err("is not a finite number".into()),
            Scalar::Flag(flag) => Ok(Value::Flag(flag)),
            Scalar::Text(text) if text.len() > self.limits.text => {
                Err(format!("a text has at most {} bytes", self.limits.text).into())
            }
            Scalar::Text(text) if text.contains('\0') => Err("a text has no NUL character".into()),
            Scalar::Text(text) => Ok(Value::Text(text)),
            Scalar::Null => Err("null is not a value".into()),
            Scalar::Nested => Err("must be a number, a boolean or a text".into()),
            Scalar::Unreadable(message) => Err(message.into()),
        }
    }

    fn time(&self, text: &str) -> Time {
        let Ok(at) = DateTime::parse_from_rfc3339(text) else {
            return Time::Wrong("must be a time in RFC 3339: \"2026-01-01T12:00:00Z\"");
        };
        // Postgres keeps microseconds.
        let at = at.with_timezone(&Utc).trunc_subsecs(6);
        if at < self.window.oldest {
            Time::Wrong("is older than telemetry is kept")
        } else if at > self.window.newest {
            Time::Future
        } else {
            Time::Known(at)
        }
    }
}

/// What the `at` of an object came to.
#[derive(Clone, Copy)]
enum Time {
    Missing,
    Known(DateTime<Utc>),
    Future,
    Wrong(&'static str),
}

struct PayloadVisitor<'r, 'a, 'p>(&'r mut Reader<'a, 'p>);

impl<'a> Visitor<'a> for PayloadVisitor<'_, 'a, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array of objects")
    }

    fn visit_map<A: MapAccess<'a>>(self, map: A) -> Result<(), A::Error> {
        self.0.object(None, map)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut item = 0;
        while seq
            .next_element_seed(ItemSeed { reader: self.0, item })?
            .is_some()
        {
            if item == self.0.limits.items {
                self.0.verdict = Some(Malformed::TooMany(item));
                return Err(serde::de::Error::custom("too many items"));
            }
            item += 1;
        }
        Ok(())
    }
}

/// One element of the array: an object, or a problem.
struct ItemSeed<'r, 'a, 'p> {
    reader: &'r mut Reader<'a, 'p>,
    item: usize,
}

impl<'a> DeserializeSeed<'a> for ItemSeed<'_, 'a, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        if !self.reader.careful {
            return deserializer.deserialize_any(self);
        }
        let raw = <&'a RawValue as serde::Deserialize>::deserialize(deserializer)?;
        let item = self.item;
        let mut json = serde_json::Deserializer::from_str(raw.get());
        let reader = self.reader;
        let (samples, untimed) = (reader.parsed.samples.len(), reader.parsed.untimed);
        if let Err(error) = json.deserialize_any(ItemSeed { reader, item }) {
            reader.parsed.samples.truncate(samples);
            reader.parsed.untimed = untimed;
            reader.problem(Some(item), None, reason(&error));
        }
        Ok(())
    }
}

impl<'a> Visitor<'a> for ItemSeed<'_, 'a, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of metrics")
    }

    fn visit_map<A: MapAccess<'a>>(self, map: A) -> Result<(), A::Error> {
        self.reader.object(Some(self.item), map)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.other()
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.other()
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.other()
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.other()
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.other()
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.other()
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.other()
    }
}

impl ItemSeed<'_, '_, '_> {
    fn other<E>(self) -> Result<(), E> {
        self.reader
            .problem(Some(self.item), None, "must be an object of metrics");
        Ok(())
    }
}

/// A key, borrowed from the payload unless it has escapes.
struct Key<'a>(Cow<'a, str>);

struct KeySeed;

impl<'a> DeserializeSeed<'a> for KeySeed {
    type Value = Key<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Key<'a>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for KeySeed {
    type Value = Key<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'a str) -> Result<Key<'a>, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_str<E>(self, key: &str) -> Result<Key<'a>, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}

/// Any JSON value, as far as it matters here.
enum Scalar<'a> {
    Number(f64),
    Flag(bool),
    Text(Cow<'a, str>),
    Null,
    Nested,
    Unreadable(String),
}

struct ScalarSeed {
    careful: bool,
}

impl<'a> DeserializeSeed<'a> for ScalarSeed {
    type Value = Scalar<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Scalar<'a>, D::Error> {
        if !self.careful {
            return deserializer.deserialize_any(self);
        }
        let raw = <&'a RawValue as serde::Deserialize>::deserialize(deserializer)?;
        let mut json = serde_json::Deserializer::from_str(raw.get());
        Ok(json
            .deserialize_any(self)
            .unwrap_or_else(|error| Scalar::Unreadable(reason(&error))))
    }
}

impl<'a> Visitor<'a> for ScalarSeed {
    type Value = Scalar<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Flag(flag))
    }

    #[expect(clippy::cast_precision_loss, reason = "documented: numbers are doubles")]
    fn visit_i64<E>(self, number: i64) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "documented: numbers are doubles")]
    fn visit_u64<E>(self, number: u64) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Scalar<'a>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Scalar<'a>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }
}

/// What `serde_json` says, without a position that would be counted from somewhere inside the payload.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ")
        .map_or(text.clone(), |(reason, _)| reason.to_owned())
}
