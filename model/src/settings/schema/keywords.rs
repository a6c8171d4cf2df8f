//! What a setting's schema may be made of: the keywords of JSON Schema 2020-12 that a value can be judged and shown by,
//! and three of our own. A keyword that is not here is refused, since a mistyped one would silently allow everything.

use serde_json::Value;

use crate::settings::Document;

/// The unit of a setting's value: `"s"`.
pub const UNIT: &str = "unit";

/// The oldest firmware that knows a setting: `"1.4.0"`.
pub const MIN_FIRMWARE: &str = "x-min-firmware";

/// Whether only the model's default sets the value.
pub const READ_ONLY: &str = "readOnly";

/// The longest unit, in characters.
pub const MAX_UNIT: usize = 32;

/// The longest firmware version, in bytes.
pub const MAX_FIRMWARE: usize = 32;

/// The most patterns of one model: each may take a megabyte once it is compiled.
pub const MAX_PATTERNS: usize = 32;

/// The longest pattern, in bytes.
pub const MAX_PATTERN: usize = 256;

/// Keywords whose value is no schema (JSON Schema Validation sections 6, 7 and 9).
const PLAIN: &[&str] = &[
    "type",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minContains",
    "maxContains",
    "required",
    "dependentRequired",
    "minProperties",
    "maxProperties",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "$comment",
    UNIT,
];

/// Keywords that mean something for a setting as a whole alone.
const OUTERMOST: &[&str] = &[READ_ONLY, MIN_FIRMWARE];

/// Keywords whose value is a schema (JSON Schema Core section 10).
const ONE: &[&str] = &[
    "items",
    "contains",
    "additionalProperties",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
];

/// Keywords whose value is a list of schemas.
const LIST: &[&str] = &["prefixItems", "allOf", "anyOf", "oneOf"];

/// Keywords whose value is an object of schemas.
const NAMED: &[&str] = &["properties", "patternProperties", "dependentSchemas"];

/// The formats that are checked (JSON Schema Validation section 7.3).
const FORMATS: &[&str] = &[
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "idn-email",
    "idn-hostname",
    "ipv4",
    "ipv6",
    "iri",
    "iri-reference",
    "json-pointer",
    "regex",
    "relative-json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uri-template",
    "uuid",
];

/// Checks that the schema of one setting holds nothing else; how many patterns it has.
///
/// # Errors
/// A short sentence about the first thing that is wrong.
pub(super) fn check(schema: &Value) -> Result<usize, String> {
    let Value::Object(schema) = schema else {
        return Err("must be a JSON Schema: an object".to_owned());
    };
    let mut patterns = 0;
    level(schema, "", &mut patterns)?;
    Ok(patterns)
}

/// One schema, and those within it. The reader of the document has bounded how deep they are.
fn level(schema: &Document, place: &str, patterns: &mut usize) -> Result<(), String> {
    for (keyword, value) in schema {
        let here = || format!("{place}/{keyword}");
        match keyword.as_str() {
            "pattern" => count(value.as_str(), patterns)?,
            "patternProperties" => {
                for pattern in value.as_object().into_iter().flat_map(Document::keys) {
                    count(Some(pattern), patterns)?;
                }
            }
            "format" if !FORMATS.iter().any(|known| value == known) => {
                return Err(format!("{value} at {} is no format that is checked", here()));
            }
            UNIT => text(UNIT, value, MAX_UNIT)?,
            MIN_FIRMWARE => firmware(value)?,
            _ => {}
        }
        let name = keyword.as_str();
        if PLAIN.contains(&name) || (place.is_empty() && OUTERMOST.contains(&name)) {
            continue;
        }
        let inner: Vec<(String, &Value)> = match value {
            schema if ONE.contains(&name) => vec![(here(), schema)],
            Value::Array(schemas) if LIST.contains(&name) => {
                let each = schemas.iter().enumerate();
                each.map(|(n, schema)| (format!("{}/{n}", here()), schema))
                    .collect()
            }
            Value::Object(schemas) if NAMED.contains(&name) => {
                let each = schemas.iter();
                each.map(|(key, schema)| (format!("{}/{key}", here()), schema))
                    .collect()
            }
            // Its value is not even of the right kind, which the compiler of the schema tells best.
            _ if LIST.contains(&name) || NAMED.contains(&name) => Vec::new(),
            _ => return Err(refusal(name, place)),
        };
        for (place, schema) in inner {
            if let Value::Object(schema) = schema {
                level(schema, &place, patterns)?;
            }
        }
    }
    Ok(())
}

fn refusal(keyword: &str, place: &str) -> String {
    let at = if place.is_empty() {
        String::new()
    } else {
        format!(" at {place}")
    };
    match keyword {
        "$ref" | "$dynamicRef" | "$defs" | "definitions" | "$id" | "$anchor" | "$dynamicAnchor" => {
            format!("`{keyword}`{at} is not taken: write the schema out in full")
        }
        READ_ONLY | MIN_FIRMWARE => format!("`{keyword}`{at} holds for a setting as a whole alone"),
        _ => format!("unknown keyword `{keyword}`{at}"),
    }
}

fn count(pattern: Option<&str>, patterns: &mut usize) -> Result<(), String> {
    *patterns = patterns.saturating_add(1);
    match pattern {
        Some(pattern) if pattern.len() > MAX_PATTERN => {
            Err(format!("a pattern is longer than {MAX_PATTERN} bytes"))
        }
        _ => Ok(()),
    }
}

fn text(keyword: &str, value: &Value, most: usize) -> Result<(), String> {
    match value.as_str() {
        Some(text) if text.chars().count() <= most => Ok(()),
        _ => Err(format!("`{keyword}` must be a text of at most {most} characters")),
    }
}

/// Numbers with dots between, and what may follow a `-`: `1.4`, `2.0.0-rc.1`.
fn firmware(value: &Value) -> Result<(), String> {
    let well = |text: &str| {
        let (numbers, rest) = text.split_once('-').unwrap_or((text, "0"));
        let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let rest_well = !rest.is_empty()
            && rest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        text.len() <= MAX_FIRMWARE && numbers.split('.').all(number) && rest_well
    };
    match value.as_str() {
        Some(text) if well(text) => Ok(()),
        _ => Err(format!("`{MIN_FIRMWARE}` must be a version such as \"1.4.0\"")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_setting_needs_is_taken() {
        for schema in [
            json!({}),
            json!({"type": "integer", "minimum": 10, "maximum": 3600, "default": 60, "title": "Interval", "unit": "s",
                   "description": "How often", "readOnly": true, "x-min-firmware": "1.4.0"}),
            json!({"enum": ["a", "b"], "examples": ["a"], "deprecated": true, "$comment": "x"}),
            json!({"type": "array", "items": {"type": "string", "format": "date-time"}, "uniqueItems": true}),
            json!({"type": "object", "properties": {"from": {"type": "string", "unit": "h"}},
                   "additionalProperties": false}),
            json!({"anyOf": [{"const": 1}, true]}),
            // A property may be called like anything.
            json!({"properties": {"$ref": {"type": "string"}, "mininum": {}}}),
            // So may a value.
            json!({"default": {"mininum": 1}, "x-min-firmware": "2.0.0-rc.1"}),
        ] {
            assert_eq!(check(&schema), Ok(0), "{schema}");
        }
    }

    #[test]
    fn patterns_are_counted_wherever_they_stand() {
        let schema =
            json!({"pattern": "a", "items": {"patternProperties": {"b": {"pattern": "c"}, "d": {}}}});
        assert_eq!(check(&schema), Ok(4));
    }

    #[test]
    fn anything_else_is_named() {
        for (schema, wanted) in [
            (json!(true), "must be a JSON Schema: an object"),
            (json!({"mininum": 10}), "unknown keyword `mininum`"),
            (
                json!({"items": {"maxLen": 1}}),
                "unknown keyword `maxLen` at /items",
            ),
            (
                json!({"properties": {"a": {"b": 1}}}),
                "unknown keyword `b` at /properties/a",
            ),
            (
                json!({"anyOf": [{}, {"c": 1}]}),
                "unknown keyword `c` at /anyOf/1",
            ),
            (
                json!({"$ref": "https://example.com/s.json"}),
                "`$ref` is not taken: write the schema out in full",
            ),
            (
                json!({"items": {"$ref": "#"}}),
                "`$ref` at /items is not taken: write the schema out in full",
            ),
            (
                json!({"items": {"readOnly": true}}),
                "`readOnly` at /items holds for a setting as a whole alone",
            ),
            (
                json!({"format": "colour"}),
                "\"colour\" at /format is no format that is checked",
            ),
            (
                json!({"unit": 5}),
                "`unit` must be a text of at most 32 characters",
            ),
            (
                json!({"x-min-firmware": "latest"}),
                "`x-min-firmware` must be a version such as \"1.4.0\"",
            ),
            (
                json!({"x-min-firmware": 1.4}),
                "`x-min-firmware` must be a version such as \"1.4.0\"",
            ),
            (
                json!({"pattern": "x".repeat(257)}),
                "a pattern is longer than 256 bytes",
            ),
        ] {
            assert_eq!(check(&schema), Err(wanted.to_owned()), "{schema}");
        }
    }
}
