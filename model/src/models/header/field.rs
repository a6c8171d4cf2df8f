//! One setting as a field of a C struct: which type holds every value that its schema takes.

use serde_json::Value;

use super::literal::{double, int, sized, string};
use crate::settings::schema::keywords::{MIN_FIRMWARE, READ_ONLY, UNIT};

/// The longest text that is kept in the struct itself, in characters; a longer one is pointed at.
const MAX_CHARACTERS: u64 = 255;

/// One setting.
#[derive(Debug)]
pub(super) struct Field<'a> {
    pub(super) key: &'a str,
    schema: &'a Value,
    pub(super) kind: Kind<'a>,
}

/// How its values are held.
#[derive(Debug, PartialEq)]
pub(super) enum Kind<'a> {
    Boolean,
    Integer(Integer),
    Number,
    /// One of some texts: an enumeration.
    Choice(Vec<&'a str>),
    /// Text of at most so many characters.
    Characters(u64),
    /// Text of any length.
    Text,
    /// Everything else, as JSON text.
    Json,
}

/// A whole number's type and limits.
#[derive(Debug, PartialEq)]
pub(super) struct Integer {
    kind: IntegerKind,
    low: Option<i128>,
    high: Option<i128>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum IntegerKind {
    I32,
    U32,
    I64,
    U64,
}

impl IntegerKind {
    fn range(self) -> (i128, i128) {
        match self {
            Self::I32 => (i32::MIN.into(), i32::MAX.into()),
            Self::U32 => (0, u32::MAX.into()),
            Self::I64 => (i64::MIN.into(), i64::MAX.into()),
            Self::U64 => (0, u64::MAX.into()),
        }
    }

    fn holds(self, value: i128) -> bool {
        let (low, high) = self.range();
        (low..=high).contains(&value)
    }

    fn literal(self, value: i128) -> Option<String> {
        self.holds(value).then(|| match self {
            Self::I32 => int(value),
            Self::U32 => sized("UINT32_C", value),
            Self::I64 => sized("INT64_C", value),
            Self::U64 => sized("UINT64_C", value),
        })
    }
}

impl<'a> Field<'a> {
    pub(super) fn of(key: &'a str, schema: &'a Value) -> Self {
        let kind = match schema.get("type").and_then(Value::as_str) {
            Some("boolean") => Kind::Boolean,
            Some("integer") => Kind::Integer(integer(schema)),
            Some("number") => Kind::Number,
            Some("string") => text(schema),
            _ => Kind::Json,
        };
        Self { key, schema, kind }
    }

    fn text(&self, keyword: &str) -> Option<&'a str> {
        self.schema.get(keyword).and_then(Value::as_str)
    }

    pub(super) fn unit(&self) -> Option<&'a str> {
        self.text(UNIT)
    }

    pub(super) fn min_firmware(&self) -> Option<&'a str> {
        self.text(MIN_FIRMWARE)
    }

    /// What people read above it.
    pub(super) fn remark(&self) -> String {
        let mut remark = self.key.to_owned();
        for (before, text) in [(": ", self.text("title")), (". ", self.text("description"))] {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                remark.push_str(before);
                remark.push_str(text);
            }
        }
        if self.schema.get(READ_ONLY) == Some(&Value::Bool(true)) {
            remark.push_str(" (read-only)");
        }
        if let Some(firmware) = self.min_firmware() {
            remark.push_str(" (firmware ");
            remark.push_str(firmware);
            remark.push_str(" or newer)");
        }
        remark
    }

    /// The limits that a value keeps: the kind of macro, and its literal.
    pub(super) fn limits(&self) -> Vec<(&'static str, String)> {
        let mut limits = Vec::new();
        match &self.kind {
            Kind::Integer(Integer { kind, low, high }) => {
                for (name, limit) in [("MIN", low), ("MAX", high)] {
                    limits.extend(
                        limit
                            .and_then(|value| kind.literal(value))
                            .map(|literal| (name, literal)),
                    );
                }
            }
            Kind::Number => {
                for (name, keyword) in [("MIN", "minimum"), ("MAX", "maximum")] {
                    let limit = self.schema.get(keyword).and_then(Value::as_f64);
                    limits.extend(limit.map(|value| (name, double(value))));
                }
            }
            Kind::Characters(_) | Kind::Text => {
                let most = self.schema.get("maxLength").and_then(Value::as_u64);
                let most = most.filter(|most| *most <= u64::from(u32::MAX));
                limits.extend(most.map(|most| ("MAX_LENGTH", sized("UINT32_C", most.into()))));
            }
            Kind::Boolean | Kind::Choice(_) | Kind::Json => {}
        }
        limits
    }

    /// The default as a literal of the field's type; `constants` are those of its enumeration.
    pub(super) fn default_literal(&self, constants: &[String]) -> Option<String> {
        let default = self.schema.get("default")?;
        match &self.kind {
            Kind::Boolean => default.as_bool().map(|value| value.to_string()),
            Kind::Integer(Integer { kind, .. }) => kind.literal(whole(default)?),
            Kind::Number => default.as_f64().map(double),
            Kind::Choice(texts) => {
                let chosen = texts.iter().position(|text| default == text)?;
                constants.get(chosen).cloned()
            }
            Kind::Characters(_) | Kind::Text => default.as_str().map(string),
            Kind::Json => Some(string(&default.to_string())),
        }
    }
}

impl Kind<'_> {
    /// A declaration of a field that is no enumeration, without its semicolon.
    pub(super) fn declare(&self, name: &str) -> String {
        match self {
            Self::Boolean => format!("bool {name}"),
            Self::Integer(Integer { kind, .. }) => {
                let kind = match kind {
                    IntegerKind::I32 => "int32_t",
                    IntegerKind::U32 => "uint32_t",
                    IntegerKind::I64 => "int64_t",
                    IntegerKind::U64 => "uint64_t",
                };
                format!("{kind} {name}")
            }
            Self::Number => format!("double {name}"),
            // Four bytes for a character of UTF-8, and one for the end.
            Self::Characters(most) => format!("char {name}[{}]", most.saturating_mul(4).saturating_add(1)),
            Self::Choice(_) | Self::Text | Self::Json => format!("const char *{name}"),
        }
    }
}

fn text(schema: &Value) -> Kind<'_> {
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        // What is no text can't be chosen.
        let texts: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
        if !texts.is_empty() {
            return Kind::Choice(texts);
        }
    }
    match schema.get("maxLength").and_then(Value::as_u64) {
        Some(most) if most <= MAX_CHARACTERS => Kind::Characters(most),
        _ => Kind::Text,
    }
}

fn integer(schema: &Value) -> Integer {
    let limit = |keyword: &str, round: fn(f64) -> f64| {
        schema
            .get(keyword)
            .and_then(|value| whole(value).or_else(|| whole(&round(value.as_f64()?).into())))
    };
    let choices: Vec<i128> = match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
        (Some(only), _) => whole(only).into_iter().collect(),
        (None, Some(choices)) => choices.iter().filter_map(whole).collect(),
        (None, None) => Vec::new(),
    };
    let above = limit("exclusiveMinimum", f64::floor).map(|limit| limit.saturating_add(1));
    let below = limit("exclusiveMaximum", f64::ceil).map(|limit| limit.saturating_sub(1));
    let lows = [limit("minimum", f64::ceil), above, choices.iter().min().copied()];
    let highs = [limit("maximum", f64::floor), below, choices.iter().max().copied()];
    let (low, high) = (
        lows.into_iter().flatten().max(),
        highs.into_iter().flatten().min(),
    );
    let kind = match (low, high) {
        (Some(low), Some(high)) => {
            let kinds = [
                IntegerKind::I32,
                IntegerKind::U32,
                IntegerKind::I64,
                IntegerKind::U64,
            ];
            let fitting = kinds.into_iter().find(|kind| kind.holds(low) && kind.holds(high));
            fitting.unwrap_or(IntegerKind::I64)
        }
        _ => IntegerKind::I64,
    };
    Integer { kind, low, high }
}

/// A whole number, also one written 60.0.
fn whole(value: &Value) -> Option<i128> {
    if let Some(value) = value.as_i64() {
        return Some(value.into());
    }
    if let Some(value) = value.as_u64() {
        return Some(value.into());
    }
    let value = value.as_f64()?;
    (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i128)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_smallest_type_that_holds_the_range() {
        for (schema, declaration, limits) in [
            (
                json!({"minimum": 10, "maximum": 3600}),
                "int32_t x",
                vec![("MIN", "10"), ("MAX", "3600")],
            ),
            (
                json!({"minimum": 0, "maximum": 4_294_967_295_u32}),
                "uint32_t x",
                vec![("MIN", "UINT32_C(0)"), ("MAX", "UINT32_C(4294967295)")],
            ),
            (
                json!({"minimum": -1, "maximum": 4_294_967_295_u32}),
                "int64_t x",
                vec![("MIN", "(-INT64_C(1))"), ("MAX", "INT64_C(4294967295)")],
            ),
            (json!({"minimum": 5}), "int64_t x", vec![("MIN", "INT64_C(5)")]),
            (
                json!({"exclusiveMinimum": 0.5, "exclusiveMaximum": 9}),
                "int32_t x",
                vec![("MIN", "1"), ("MAX", "8")],
            ),
            (
                json!({"minimum": 0.5, "maximum": 9.5}),
                "int32_t x",
                vec![("MIN", "1"), ("MAX", "9")],
            ),
            (
                json!({"enum": [5, 1, 3]}),
                "int32_t x",
                vec![("MIN", "1"), ("MAX", "5")],
            ),
            (
                json!({"const": u64::MAX}),
                "uint64_t x",
                vec![
                    ("MIN", "UINT64_C(18446744073709551615)"),
                    ("MAX", "UINT64_C(18446744073709551615)"),
                ],
            ),
            (json!({"maximum": 1e300}), "int64_t x", vec![]),
            (json!({}), "int64_t x", vec![]),
        ] {
            let mut schema = schema;
            schema["type"] = "integer".into();
            let field = Field::of("x", &schema);
            assert_eq!(field.kind.declare("x"), declaration, "{schema}");
            let found = field.limits();
            let found: Vec<(&str, &str)> = found
                .iter()
                .map(|(name, limit)| (*name, limit.as_str()))
                .collect();
            assert_eq!(found, limits, "{schema}");
        }
    }

    #[test]
    fn texts_are_kept_in_place_where_their_length_is_known() {
        for (schema, declaration) in [
            (json!({"type": "string", "maxLength": 40}), "char x[161]"),
            (json!({"type": "string", "maxLength": 256}), "const char *x"),
            (json!({"type": "string"}), "const char *x"),
            (json!({"type": "number"}), "double x"),
            (json!({"type": ["integer", "null"]}), "const char *x"),
        ] {
            assert_eq!(Field::of("x", &schema).kind.declare("x"), declaration, "{schema}");
        }
    }
}
