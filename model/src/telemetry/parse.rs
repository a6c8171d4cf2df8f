//! The payload of `devices/{serial}/telemetry`: one object, or an array of them.
//!
//! This is the hot path, so samples are read in one pass, straight into a flat list, with names and texts
//! borrowed from the payload. Only when that pass meets something that `serde_json` can't step over (`1e999`,
//! half a surrogate pair) is the payload read again, value by value, so that the rest of it is kept.

use std::borrow::Cow;

use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserializer, de::MapAccess};

use super::{
    Limits, Malformed, Parsed, Problem, Reason, Sample, Stamp, Value, Window, is_metric_name,
    visit::{Key, KeySeed, PayloadVisitor, Scalar, ScalarSeed},
};

/// How much of a wrong key is repeated in a message, in characters.
const MAX_SHOWN_KEY: usize = 64;

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
pub(super) struct Reader<'a, 'p> {
    pub(super) limits: &'p Limits,
    window: Window,
    /// Whether to read value by value, so that an unreadable one can be stepped over.
    pub(super) careful: bool,
    pub(super) parsed: Parsed<'a>,
    pub(super) verdict: Option<Malformed>,
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

    pub(super) fn problem(
        &mut self,
        item: Option<usize>,
        key: Option<&str>,
        reason: Reason,
        message: impl Into<Cow<'static, str>>,
    ) {
        let key = key.map(|key| key.chars().take(MAX_SHOWN_KEY).collect());
        self.parsed.problems.push(Problem {
            item,
            key,
            reason,
            message: message.into(),
        });
    }

    /// Reads the keys of one object into samples, and sets their time when the object is through.
    pub(super) fn object<A: MapAccess<'a>>(
        &mut self,
        item: Option<usize>,
        mut map: A,
    ) -> Result<(), A::Error> {
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
                    item,
                }),
                Err((reason, message)) => self.problem(item, Some(&key), reason, message),
            }
        }
        self.finish_object(item, first, keys, time);
        Ok(())
    }

    fn finish_object(&mut self, item: Option<usize>, first: usize, keys: usize, time: Time) {
        if keys > self.limits.metrics {
            self.parsed.samples.truncate(first);
            return self.problem(
                item,
                None,
                Reason::TooMany,
                format!("more than {} metrics", self.limits.metrics),
            );
        }
        let stamp = match time {
            Time::Wrong(message) => {
                self.parsed.samples.truncate(first);
                return self.problem(item, Some("at"), Reason::Time, message);
            }
            _ if keys == 0 => return self.problem(item, None, Reason::Shape, "has no metric"),
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
            self.problem(item, Some(&name), Reason::Name, "is there twice");
        }
    }

    fn sample(&self, key: &str, value: Scalar<'a>) -> Result<Value<'a>, (Reason, Cow<'static, str>)> {
        if !is_metric_name(key) {
            return Err((
                Reason::Name,
                "a metric name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit".into(),
            ));
        }
        let message: Cow<'static, str> = match value {
            Scalar::Number(number) if number.is_finite() => return Ok(Value::Number(number)),
            Scalar::Number(_) => "is not a finite number".into(),
            Scalar::Flag(flag) => return Ok(Value::Flag(flag)),
            Scalar::Text(text) if text.len() > self.limits.text => {
                format!("a text has at most {} bytes", self.limits.text).into()
            }
            Scalar::Text(text) if text.contains('\0') => "a text has no NUL character".into(),
            Scalar::Text(text) => return Ok(Value::Text(text)),
            Scalar::Null => "null is not a value".into(),
            Scalar::Nested => "must be a number, a boolean or a text".into(),
            Scalar::Unreadable(message) => message.into(),
        };
        Err((Reason::Value, message))
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
