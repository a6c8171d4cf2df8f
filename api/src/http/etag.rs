//! `ETag`, `If-Match` and `If-None-Match` (RFC 9110 sections 8.8.3 and 13.1): mostly a version in quotes.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts},
};

use super::Problem;
use crate::app::{Error, Precondition};

/// The precondition of a request that changes something: which versions it may change.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Header, names("If-Match"))]
pub(in crate::http) struct IfMatch(
    /// Only if this is the current version: `"3"`
    #[param(value_type = Option<String>)]
    pub Precondition,
);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(precondition(&parts.headers)?))
    }
}

/// The `ETag` header of a version.
pub(in crate::http) fn of(version: i64) -> Result<(HeaderName, HeaderValue), Error> {
    let tag = HeaderValue::from_str(&format!("\"{version}\"")).map_err(Error::internal)?;
    Ok((header::ETAG, tag))
}

/// What `If-Match` asks for. Comparison is strong, so a weak tag (`W/"42"`) matches nothing, nor does a tag that is
/// none of ours.
///
/// # Errors
/// [`Error::Malformed`] for anything but `*` or a list of entity tags.
fn precondition(headers: &HeaderMap) -> Result<Precondition, Error> {
    let mut versions = Vec::new();
    let mut asked = false;
    for value in headers.get_all(header::IF_MATCH) {
        asked = true;
        let value = value.to_str().map_err(|_| malformed())?.trim();
        if value == "*" {
            return Ok(Precondition::None);
        }
        for tag in value.split(',').map(str::trim) {
            let (weak, quoted) = match tag.strip_prefix("W/") {
                Some(quoted) => (true, quoted),
                None => (false, tag),
            };
            let inner = quoted
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'))
                .ok_or_else(malformed)?;
            if inner.contains('"') {
                return Err(malformed());
            }
            if !weak {
                versions.extend(inner.parse::<i64>().ok());
            }
        }
    }
    Ok(if asked {
        Precondition::Version(versions)
    } else {
        Precondition::None
    })
}

/// Whether `If-None-Match` (RFC 9110 section 13.1.2) names `tag`, or anything there is. Comparison is weak.
pub(super) fn none_match(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).into_iter();
    let mut tags = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|named| named.trim().trim_start_matches("W/"));
    tags.any(|named| named == tag || named == "*")
}

fn malformed() -> Error {
    Error::Malformed {
        message: "If-Match must be `*` or versions in quotes, such as `\"42\"`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(values: &[&'static str]) -> Option<Precondition> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_static(value));
        }
        precondition(&headers).ok()
    }

    #[test]
    fn if_none_match_is_any_or_a_list_of_tags() {
        for (value, same) in [
            ("*", true),
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("\"b\"", false),
            ("a", false),
        ] {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(value))]);
            assert_eq!(none_match(&headers, "\"a\""), same, "{value}");
        }
        assert!(!none_match(&HeaderMap::new(), "\"a\""));
    }

    #[test]
    fn if_match_is_any_or_a_list_of_versions() {
        for (values, expected) in [
            (&[][..], Some(Precondition::None)),
            (&["*"], Some(Precondition::None)),
            (&["\"42\""], Some(Precondition::Version(vec![42]))),
            (&["\"41\", \"42\""], Some(Precondition::Version(vec![41, 42]))),
            (&["\"41\"", "\"42\""], Some(Precondition::Version(vec![41, 42]))),
            (&["W/\"42\""], Some(Precondition::Version(vec![]))),
            (&["\"abc\""], Some(Precondition::Version(vec![]))),
            (&["42"], None),
            (&["\"42"], None),
            (&["\"4\"2\""], None),
            (&[""], None),
        ] {
            assert_eq!(asked(values), expected, "{values:?}");
        }
    }
}
