//! The visitors through which `serde_json` hands the parts of a payload to the [`Reader`].

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Malformed, Reason, parse::Reader};

/// The whole payload: an object, or an array of them.
pub(super) struct PayloadVisitor<'r, 'a, 'p>(pub(super) &'r mut Reader<'a, 'p>);

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
            reader.problem(Some(item), None, Reason::Malformed, reason(&error));
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
        self.reader.problem(
            Some(self.item),
            None,
            Reason::Shape,
            "must be an object of metrics",
        );
        Ok(())
    }
}

/// A key, borrowed from the payload unless it has escapes.
pub(super) struct Key<'a>(pub(super) Cow<'a, str>);

/// Reads one key.
pub(super) struct KeySeed;

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
pub(super) enum Scalar<'a> {
    Number(f64),
    Flag(bool),
    Text(Cow<'a, str>),
    Null,
    Nested,
    Unreadable(String),
}

/// Reads one value; `careful` steps over what `serde_json` can't read.
pub(super) struct ScalarSeed {
    pub(super) careful: bool,
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
