//! Errors as `application/problem+json` (RFC 9457), with `code`, `request_id` and `errors` per field.
//!
//! The middleware in `http::request_id` fills in `request_id`; causes go to the log and never to a client.

use std::{collections::BTreeMap, num::NonZeroU32};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use setpoint_model::Scope;

use crate::app;

/// An answer that says what went wrong.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`: `code` tells programs what happened.
    #[serde(rename = "type")]
    pub kind: ProblemType,
    /// The status in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// A stable word for programs: `validation_failed`.
    pub code: &'static str,
    /// A sentence for people.
    #[schema(value_type = String)]
    pub detail: Box<str>,
    /// The request's id, as in the log and the `x-request-id` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub request_id: Option<Box<str>>,
    /// A message per field.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, String>,
    /// For `version_mismatch`: the version in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_version: Option<i64>,
    /// For `stored_values_misfit`: what is stored that the new rules don't take.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<app::models::Misfits>)]
    pub misfits: Option<Box<app::models::Misfits>>,
    /// For `wrong_state`: the state that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub state: Option<&'static str>,
    /// For `too_many_requests`: seconds to wait, as in `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub retry_after: Option<NonZeroU32>,
    /// What `WWW-Authenticate` says besides the scheme.
    #[serde(skip)]
    pub challenge: Challenge,
}

/// Why a credential won't do (RFC 6750, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Challenge {
    /// There was none, or it is no token.
    #[default]
    None,
    /// The token is unknown, revoked or expired.
    InvalidToken,
    /// The token or the person lacks this scope.
    InsufficientScope(Scope),
    /// There was none that holds, and a device's own token would do (RFC 7617).
    Device,
}

/// The type of a problem (RFC 9457, section 4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub enum ProblemType {
    /// No more is known by the type than by the status.
    #[serde(rename = "about:blank")]
    Blank,
}

impl Problem {
    /// A problem with this status, code and sentence.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: ProblemType::Blank,
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into().into_boxed_str(),
            request_id: None,
            errors: BTreeMap::new(),
            current_version: None,
            misfits: None,
            state: None,
            retry_after: None,
            challenge: Challenge::None,
        }
    }

    /// The same, because of a token that doesn't hold.
    #[must_use]
    pub fn of_invalid_token(self) -> Self {
        Self {
            challenge: Challenge::InvalidToken,
            ..self
        }
    }

    /// The same, where a device may sign in with its own token: programs that wait to be asked for it send it then.
    #[must_use]
    pub fn or_device(self) -> Self {
        let nobody = self.status == StatusCode::UNAUTHORIZED.as_u16();
        let challenge = match self.challenge {
            Challenge::None if nobody => Challenge::Device,
            told => told,
        };
        Self { challenge, ..self }
    }

    /// The problem that a bare status stands for; its code is the status in snake case.
    pub fn of_status(status: StatusCode, detail: impl Into<String>) -> Self {
        let code = match status {
            StatusCode::BAD_REQUEST => "malformed",
            StatusCode::UNAUTHORIZED => "unauthenticated",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::NOT_ACCEPTABLE => "not_acceptable",
            StatusCode::REQUEST_TIMEOUT => "timeout",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            StatusCode::UNPROCESSABLE_ENTITY => "validation_failed",
            StatusCode::TOO_MANY_REQUESTS => "too_many_requests",
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            StatusCode::GATEWAY_TIMEOUT => "timeout",
            status if status.is_server_error() => "internal",
            _ => "refused",
        };
        Self::new(status, code, detail)
    }
}

impl From<app::Error> for Problem {
    fn from(error: app::Error) -> Self {
        use app::Error;
        let (detail, code) = (error.to_string(), error.code());
        match error {
            Error::Unauthenticated | Error::Stolen | Error::TotpRequired | Error::TotpInvalid => {
                Self::new(StatusCode::UNAUTHORIZED, code, detail)
            }
            Error::SignInRefused { .. } => Self::new(StatusCode::FORBIDDEN, code, detail),
            Error::ProviderUnavailable(cause) => {
                tracing::warn!(
                    error = &*cause as &dyn std::error::Error,
                    "the sign-in provider is unavailable"
                );
                Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
            }
            Error::TooManyAttempts { after } => Self {
                retry_after: u32::try_from(after.as_secs().saturating_add(1))
                    .ok()
                    .and_then(NonZeroU32::new),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail)
            },
            Error::Forbidden { scope } => Self {
                challenge: Challenge::InsufficientScope(scope),
                ..Self::new(StatusCode::FORBIDDEN, code, detail)
            },
            Error::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, code, detail),
            Error::Conflict { .. } => Self::new(StatusCode::CONFLICT, code, detail),
            Error::WrongState { state } => Self {
                state: Some(state),
                ..Self::new(StatusCode::CONFLICT, code, detail)
            },
            Error::VersionMismatch { current } => Self {
                current_version: Some(current),
                ..Self::new(StatusCode::PRECONDITION_FAILED, code, detail)
            },
            Error::Malformed { .. } => Self::new(StatusCode::BAD_REQUEST, code, detail),
            Error::Invalid { errors } => Self {
                errors,
                ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
            },
            Error::Misfits(misfits) => Self {
                misfits: Some(misfits),
                ..Self::new(StatusCode::CONFLICT, code, detail)
            },
            Error::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, code, detail),
            Error::Unavailable(cause) | Error::Contended(cause) => {
                tracing::warn!(
                    error = &cause as &dyn std::error::Error,
                    "the database is unavailable"
                );
                Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
            }
            Error::TooSlow { .. } => Self::new(StatusCode::GATEWAY_TIMEOUT, code, detail),
            Error::Busy { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail),
            Error::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail),
            Error::Internal(cause) => {
                tracing::error!(error = &*cause as &dyn std::error::Error, "a request failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, detail)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.get()));
        }
        let challenge = match self.challenge {
            Challenge::InvalidToken => Some("Bearer error=\"invalid_token\"".to_owned()),
            Challenge::InsufficientScope(scope) => {
                Some(format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\""))
            }
            Challenge::Device => Some("Bearer, Basic realm=\"device\", charset=\"UTF-8\"".to_owned()),
            Challenge::None if status == StatusCode::UNAUTHORIZED => Some("Bearer".to_owned()),
            Challenge::None => None,
        };
        if let Some(Ok(challenge)) = challenge.map(HeaderValue::try_from) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        let tag = self
            .current_version
            .map(|version| HeaderValue::from_str(&format!("\"{version}\"")));
        if let Some(Ok(tag)) = tag {
            headers.insert(header::ETAG, tag);
        }
        // The request id layer finds the problem here and answers it again with the id filled in.
        response.extensions_mut().insert(self);
        response
    }
}
