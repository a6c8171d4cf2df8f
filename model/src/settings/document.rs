//! JSON objects from outside, read strictly: bounded, and with nothing in them that two readers could
//! understand differently.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A settings document, or a part of one: setting key to value.
pub type Document = Map<String, Value>;

/// How large a JSON text from outside may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the text.
    pub bytes: usize,
    /// Nested objects and lists, the outermost included.
    pub depth: usize,
}

impl Default for Limits {
    /// 32 KiB, 8 deep.
    fn default() -> Self {
        Self {
            bytes: 32 * 1024,
            depth: 8,
        }
    }
}

impl Limits {
    /// The limits of an acknowledgement, which holds a whole document one level down, and its errors.
    pub fn of_ack(self) -> Self {
        Self {
            bytes: self.bytes.saturating_mul(2),
            depth: self.depth.saturating_add(1),
        }
    }
}

/// Why a text is not an acceptable JSON object: what follows "it is".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Longer than [`Limits::bytes`].
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Deeper than [`Limits::depth`].
    #[error("nested more than {limit} levels deep")]
    TooDeep {
        /// The limit in levels.
        limit: usize,
    },
    /// JSON, but no object.
    #[error("not a JSON object")]
    NotAnObject,
    /// RFC 8259 section 4 leaves open which of two equal names holds, so neither does.
    #[error("ambiguous: the key \"{key}\" stands there twice")]
    DuplicateKey {
        /// The name.
        key: String,
    },
    /// U+0000, which Postgres can't keep in a text.
    #[error("not storable: a text contains the character U+0000")]
    Nul,
    /// Not JSON at all.
    #[error("not valid JSON: {message}")]
    Syntax {
        /// What the reader stumbled over, with line and column.
        message: String,
    },
}

/// Reads one JSON object.
///
/// # Errors
/// See [`Malformed`].
pub fn parse(text: &[u8], limits: Limits) -> Result<Document, Malformed> {
    if text.len() > limits.bytes {
        return Err(Malformed::TooLarge { limit: limits.bytes });
    }
    let fault = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let strict = Strict {
        levels_left: limits.depth,
        limit: limits.depth,
        fault: &fault,
    };
    let read = strict
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    match read {
        Ok(Value::Object(document)) => Ok(document),
        Ok(_) => Err(Malformed::NotAnObject),
        Err(error) => Err(fault.take().unwrap_or_else(|| Malformed::Syntax {
            message: error.to_string(),
        })),
    }
}

/// Whether two values mean the same to a device: numbers compare as numbers, so 60 equals 60.0.
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => same_number(one, other),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        _ => one == other,
    }
}

fn same_number(one: &Number, other: &Number) -> bool {
    // Whole numbers compare exactly; only a fraction on either side makes it a comparison of doubles.
    if !one.is_f64() && !other.is_f64() {
        return one == other;
    }
    one.as_f64() == other.as_f64()
}

/// Builds a [`Value`] and notes in `fault` what serde's error could only say in words.
#[derive(Clone, Copy)]
struct Strict<'a> {
    levels_left: usize,
    limit: usize,
    fault: &'a Cell<Option<Malformed>>,
}

impl Strict<'_> {
    fn fail<E: serde::de::Error>(self, fault: Malformed) -> E {
        let error = E::custom(&fault);
        self.fault.set(Some(fault));
        error
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.levels_left.checked_sub(1) {
            Some(levels_left) => Ok(Self { levels_left, ..self }),
            None => Err(self.fail(Malformed::TooDeep { limit: self.limit })),
        }
    }

    fn text<E: serde::de::Error>(self, text: String) -> Result<String, E> {
        if text.contains('\0') {
            Err(self.fail(Malformed::Nul))
        } else {
            Ok(text)
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.text(text.to_owned()).map(Value::String)
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
        self.text(text).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut document = Document::new();
        while let Some(key) = entries.next_key::<String>()? {
            let key = self.text::<A::Error>(key)?;
            if document.contains_key(&key) {
                return Err(self.fail(Malformed::DuplicateKey { key }));
            }
            let value = entries.next_value_seed(inner)?;
            document.insert(key, value);
        }
        Ok(Value::Object(document))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Document, Malformed> {
        parse(text.as_bytes(), Limits { bytes: 64, depth: 3 })
    }

    #[test]
    fn reads_what_json_says() {
        let document = read(r#"{"a":[1,-2,2.5,"x",true,null],"b":{"c":"\u00e9"}}"#).unwrap();
        assert_eq!(
            Value::Object(document),
            json!({"a": [1, -2, 2.5, "x", true, null], "b": {"c": "é"}})
        );
    }

    #[test]
    fn each_fault_has_its_own_name() {
        for (text, fault) in [
            ("[]", Malformed::NotAnObject),
            ("null", Malformed::NotAnObject),
            (r#"{"a":1,"a":2}"#, Malformed::DuplicateKey { key: "a".into() }),
            (
                r#"{"x":{"a":1,"\u0061":2}}"#,
                Malformed::DuplicateKey { key: "a".into() },
            ),
            (r#"{"a":[[[1]]]}"#, Malformed::TooDeep { limit: 3 }),
            (r#"{"a":{"b":{"c":{}}}}"#, Malformed::TooDeep { limit: 3 }),
            (r#"{"a":"\u0000"}"#, Malformed::Nul),
            (r#"{"\u0000":1}"#, Malformed::Nul),
        ] {
            assert_eq!(read(text), Err(fault), "{text}");
        }
        assert!(read(r#"{"a":[[1]]}"#).is_ok());
        assert_eq!(
            read(&format!("{{{}}}", " ".repeat(63))),
            Err(Malformed::TooLarge { limit: 64 })
        );
        for text in [
            "",
            "{",
            "{} x",
            "{\"a\":1e999}",
            "{'a':1}",
            "{\"a\":NaN}",
            "\u{feff}{}",
        ] {
            assert!(
                matches!(read(text), Err(Malformed::Syntax { .. })),
                "{text}: {:?}",
                read(text)
            );
        }
        assert!(matches!(
            parse(b"{\"a\":\"\xff\"}", Limits::default()),
            Err(Malformed::Syntax { .. })
        ));
    }

    #[test]
    fn numbers_compare_as_numbers() {
        assert!(same(&json!(60), &json!(60.0)));
        assert!(same(&json!({"a": [1.0]}), &json!({"a": [1]})));
        assert!(!same(&json!(60), &json!("60")));
        assert!(!same(&json!(0), &json!(false)));
        assert!(!same(
            &json!(9_007_199_254_740_993_i64),
            &json!(9_007_199_254_740_992_i64)
        ));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": null})));
    }
}
