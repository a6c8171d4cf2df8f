//! The rule that a value breaks, as a short plain sentence: `must be from 10 to 3600`.

use jsonschema::{
    JsonType, ValidationError,
    error::{TypeKind, ValidationErrorKind as Kind},
};
use serde_json::Value;

/// The longest sentence, in characters.
const MAX_SENTENCE: usize = 300;

/// Which of several broken rules to tell: the lowest.
pub(super) fn rank(kind: &Kind) -> u8 {
    match kind {
        Kind::Enum { .. } | Kind::Constant { .. } => 0,
        Kind::Type { .. } => 1,
        _ => 2,
    }
}

/// The rule in words, with the place inside the value if it is not the value itself.
pub(super) fn sentence(schema: &Value, error: &ValidationError<'_>) -> String {
    let rule = rule(schema, error);
    let place = error.instance_path().as_str();
    let sentence = if place.is_empty() {
        rule
    } else {
        format!("{place}: {rule}")
    };
    sentence.chars().take(MAX_SENTENCE).collect()
}

fn rule(schema: &Value, error: &ValidationError<'_>) -> String {
    // Where the broken keyword stands, so that a range is told whole: "from 10 to 3600".
    let beside = error
        .schema_path()
        .as_str()
        .rsplit_once('/')
        .and_then(|(parent, _)| schema.pointer(parent));
    let limit = |keyword: &str| beside.and_then(|schema| schema.get(keyword));
    match error.kind() {
        Kind::Type { kind } => format!("must be {}", kinds(kind)),
        Kind::Enum { options } => match options.as_ref() {
            Value::Array(options) => format!("must be one of {}", list(options)),
            other => format!("must be one of {other}"),
        },
        Kind::Constant { expected_value } => format!("must be {expected_value}"),
        Kind::Minimum { .. } | Kind::Maximum { .. } => match (limit("minimum"), limit("maximum")) {
            (Some(low), Some(high)) => format!("must be from {low} to {high}"),
            (Some(low), None) => format!("must be at least {low}"),
            (None, Some(high)) => format!("must be at most {high}"),
            (None, None) => "is out of range".to_owned(),
        },
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MinLength { .. } | Kind::MaxLength { .. } => {
            amount(limit("minLength"), limit("maxLength"), "character")
        }
        Kind::MinItems { .. } | Kind::MaxItems { .. } => amount(limit("minItems"), limit("maxItems"), "item"),
        Kind::MinProperties { .. } | Kind::MaxProperties { .. } => {
            amount(limit("minProperties"), limit("maxProperties"), "key")
        }
        Kind::UniqueItems => "must not repeat an item".to_owned(),
        Kind::Pattern { pattern } => format!("must match {pattern}"),
        Kind::Format { format } => format!("must be a valid {format}"),
        Kind::Required { property } => format!("must have {property}"),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            format!("must not have \"{}\"", unexpected.join("\", \""))
        }
        Kind::FalseSchema => "can't be set".to_owned(),
        _ => error.to_string(),
    }
}

fn kinds(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => name(*one).to_owned(),
        TypeKind::Multiple(several) => several.into_iter().map(name).collect::<Vec<_>>().join(" or "),
    }
}

fn name(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Null => "null",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Number => "a number",
        JsonType::String => "a text",
        JsonType::Array => "a list",
        JsonType::Object => "an object",
    }
}

fn list(values: &[Value]) -> String {
    values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")
}

fn amount(low: Option<&Value>, high: Option<&Value>, noun: &str) -> String {
    let plural = |count: &Value| if count.as_u64() == Some(1) { "" } else { "s" };
    match (low, high) {
        (Some(low), Some(high)) => format!("from {low} to {high} {noun}{}", plural(high)),
        (Some(low), None) => format!("at least {low} {noun}{}", plural(low)),
        (None, Some(high)) => format!("at most {high} {noun}{}", plural(high)),
        (None, None) => "has the wrong length".to_owned(),
    }
}
