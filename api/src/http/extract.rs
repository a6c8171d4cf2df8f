//! Extractors whose refusals are problems: every handler uses these instead of axum's own.

use axum::{
    extract::{
        FromRequest, FromRequestParts, Request,
        rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::Problem;
use crate::app;

/// A JSON body, both ways.
///
/// Malformed JSON is 400, a wrong or missing field 422 under `errors`, too much 413. The content type is not looked
/// at: every body here is JSON, and `curl -d` names another type unless told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Payload(bytes) = Payload::from_request(request, state).await?;
        Self::read(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned> Json<T> {
    /// Reads a body.
    ///
    /// # Errors
    /// 400 or 422, as for the extractor.
    pub(super) fn read(bytes: &[u8]) -> Result<T, Problem> {
        match axum::Json::from_bytes(bytes) {
            Ok(axum::Json(value)) => Ok(value),
            // The parser meets a wrong field before what is no JSON further on.
            Err(JsonRejection::JsonDataError(error)) => {
                Err(match serde_json::from_slice::<IgnoredAny>(bytes) {
                    Ok(_) => wrong_field(&error),
                    Err(error) => malformed(&error),
                })
            }
            Err(JsonRejection::JsonSyntaxError(error)) => Err(malformed(&error)),
            Err(other) => Err(Problem::of_status(other.status(), other.body_text())),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// A body of bytes within the limit, for handlers that read it by their own rules.
#[derive(Debug, Clone)]
pub struct Payload(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(rejection) => Err(unread(&rejection)),
        }
    }
}

/// Parameters of the path. One that can't be read names nothing that exists: 404.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => Err(Problem::new(
                StatusCode::NOT_FOUND,
                "not_found",
                format!("not found: {error}"),
            )),
            Err(other) => Err(app::Error::internal(other).into()),
        }
    }
}

/// Parameters of the query. One that is wrong is 422, named under `errors`; so is an unknown one where the
/// type has `#[serde(deny_unknown_fields)]`.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(QueryRejection::FailedToDeserializeQueryString(error)) => Err(wrong_field(&error)),
            Err(other) => Err(Problem::of_status(other.status(), other.body_text())),
        }
    }
}

/// A body that isn't JSON.
fn malformed(error: &(dyn std::error::Error + 'static)) -> Problem {
    app::Error::Malformed {
        message: format!("the body is not JSON: {}", innermost(error)),
    }
    .into()
}

/// A field of the wrong type, missing or unknown, named as `serde` names it.
fn wrong_field(error: &(dyn std::error::Error + 'static)) -> Problem {
    let text = innermost(error);
    let (field, message) = named_field(&text);
    app::Error::invalid(field, message).into()
}

/// A body that couldn't be read to its end.
fn unread(rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "the body is larger than this server takes",
        ),
        status => Problem::of_status(status, rejection.body_text()),
    }
}

/// The message of the last cause, where the parsers put what matters.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// Splits `limit: invalid digit found in string` and ``missing field `serial` at line 1 column 2`` into the
/// field and what is wrong with it; the field is `body` when none is named.
fn named_field(text: &str) -> (String, String) {
    for (prefix, message) in [
        ("missing field `", "is needed"),
        ("unknown field `", "is not known here"),
        ("duplicate field `", "is given twice"),
    ] {
        let named = text.split_once(prefix).and_then(|(_, rest)| rest.split_once('`'));
        if let Some((field, rest)) = named {
            let expected = rest
                .split_once("expected ")
                .map(|(_, expected)| before_place(expected));
            let message = match expected {
                Some(expected) => format!("{message}; known: {expected}"),
                None => message.to_owned(),
            };
            return (field.to_owned(), message);
        }
    }
    match text.split_once(": ") {
        Some((field, message)) if !field.is_empty() && !field.contains(' ') => {
            (field.to_owned(), before_place(message).to_owned())
        }
        // An array can stand for a struct, as far as the parser is concerned.
        _ if text.contains("expected struct ") => ("body".to_owned(), "must be an object".to_owned()),
        _ => ("body".to_owned(), before_place(text).to_owned()),
    }
}

/// A message without the parser's "at line 1 column 2".
fn before_place(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::named_field;

    #[test]
    fn parser_messages_name_the_field() {
        for (text, field, message) in [
            ("missing field `serial` at line 1 column 2", "serial", "is needed"),
            (
                "unknown field `nam`, expected `name` or `tags` at line 1 column 6",
                "nam",
                "is not known here; known: `name` or `tags`",
            ),
            (
                "limit: invalid digit found in string",
                "limit",
                "invalid digit found in string",
            ),
            (
                "tags: invalid type: integer `1`, expected a map at line 1 column 9",
                "tags",
                "invalid type: integer `1`, expected a map",
            ),
            (
                "invalid length 0, expected struct Activation with 2 elements at line 1 column 2",
                "body",
                "must be an object",
            ),
            (
                "invalid type: null, expected struct SignIn at line 1 column 4",
                "body",
                "must be an object",
            ),
            (
                "invalid type: null, expected a string",
                "body",
                "invalid type: null, expected a string",
            ),
        ] {
            assert_eq!(
                named_field(text),
                (field.to_owned(), message.to_owned()),
                "{text}"
            );
        }
    }
}
