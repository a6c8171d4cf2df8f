//! The one error of the application layer. It knows no transport; `http::problem` gives it a status.

use std::{collections::BTreeMap, time::Duration};

use setpoint_model::Scope;
use setpoint_store as store;

use super::models::Misfits;

/// A message per field or settings key, in the caller's own terms.
pub type FieldErrors = BTreeMap<String, String>;

/// Why a use case did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No credentials, or none that hold.
    #[error("sign-in is needed")]
    Unauthenticated,
    /// The device was reported stolen, and is refused whatever it presents.
    #[error("sign-in is needed")]
    Stolen,
    /// The password is right, and a code is needed as well.
    #[error("a code of the second factor is needed as well")]
    TotpRequired,
    /// The password is right, and the code is not.
    #[error("the code is wrong, or was used before: wait for the next one")]
    TotpInvalid,
    /// Signing in with the provider came to nothing.
    #[error("{message}")]
    SignInRefused {
        /// A stable word for programs: `oidc_state`.
        code: &'static str,
        /// A sentence for people.
        message: String,
    },
    /// The provider that people sign in with can't be reached, or talks nonsense.
    #[error("the sign-in provider is not available")]
    ProviderUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Too many attempts failed, or too many requests came.
    #[error("too many attempts; try again in {} s", after.as_secs().saturating_add(1))]
    TooManyAttempts {
        /// How long to wait.
        after: Duration,
    },
    /// The actor lacks a scope.
    #[error("the scope `{scope}` is needed")]
    Forbidden {
        /// The scope that would do.
        scope: Scope,
    },
    /// There is no such thing, or the actor may not know of it.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for: `device`.
        what: &'static str,
    },
    /// It stands in the way of something that is there already.
    #[error("{message}")]
    Conflict {
        /// A stable word for programs: `device_exists`.
        code: &'static str,
        /// A sentence for people.
        message: String,
    },
    /// It doesn't fit the state that the thing is in.
    #[error("it is {state}")]
    WrongState {
        /// That state: `completed`.
        state: &'static str,
    },
    /// `If-Match` names another version than the current one.
    #[error("the current version is {current}")]
    VersionMismatch {
        /// The version in force.
        current: i64,
    },
    /// The request can't be understood at all.
    #[error("{message}")]
    Malformed {
        /// What is wrong.
        message: String,
    },
    /// Understood, but some fields break a rule.
    #[error("some fields are not valid")]
    Invalid {
        /// Which, and why.
        errors: FieldErrors,
    },
    /// Stored values break the rules that are to hold from now on.
    #[error("{}", .0.sentence())]
    Misfits(Box<Misfits>),
    /// Larger than the limit.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// It would take longer than it may.
    #[error("it would take longer than {}: take a shorter range, wider buckets or fewer devices", humantime::format_duration(*budget))]
    TooSlow {
        /// How long it may take.
        budget: Duration,
    },
    /// As many of these as the server takes are there already; a later attempt may succeed.
    #[error("too many {what}; try again later")]
    Busy {
        /// What there are too many of: `streams of live events`.
        what: &'static str,
    },
    /// The database can't be reached just now; trying again may help.
    #[error("temporarily unavailable")]
    Unavailable(#[source] store::Error),
    /// Another change was in the way; the same one may succeed at once.
    #[error("another change was in the way")]
    Contended(#[source] store::Error),
    /// The server is shutting down; another attempt reaches it when it is back.
    #[error("shutting down")]
    Stopping,
    /// A fault of ours; the cause goes to the log alone.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// One field is wrong.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            errors: FieldErrors::from([(field.into(), message.into())]),
        }
    }

    /// The whole error in one line, fields included: where there is no room for more.
    pub fn sentence(&self) -> String {
        match self {
            Self::Invalid { errors } => {
                let each: Vec<String> = errors
                    .iter()
                    .map(|(field, message)| format!("{field}: {message}"))
                    .collect();
                each.join("; ")
            }
            other => other.to_string(),
        }
    }

    /// A stable word for programs, in answers over any transport.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated | Self::Stolen => "unauthenticated",
            Self::TotpRequired => "totp_required",
            Self::TotpInvalid => "totp_invalid",
            Self::TooManyAttempts { .. } => "too_many_requests",
            Self::Forbidden { .. } => "forbidden",
            Self::NotFound { .. } => "not_found",
            Self::Conflict { code, .. } | Self::SignInRefused { code, .. } => code,
            Self::WrongState { .. } => "wrong_state",
            Self::ProviderUnavailable(_) => "provider_unavailable",
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::Malformed { .. } => "malformed",
            Self::Invalid { .. } => "validation_failed",
            Self::Misfits(_) => "stored_values_misfit",
            Self::TooLarge { .. } => "too_large",
            Self::TooSlow { .. } => "timeout",
            Self::Busy { .. } => "busy",
            Self::Unavailable(_) | Self::Contended(_) | Self::Stopping => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// Whether the same attempt may succeed a little later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Contended(_) | Self::Stopping)
    }

    /// Whether the same attempt may succeed at once.
    pub fn is_contended(&self) -> bool {
        matches!(self, Self::Contended(_))
    }

    /// A fault of ours.
    pub fn internal(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(cause))
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            error @ store::Error::Unavailable(_) => Self::Unavailable(error),
            error @ store::Error::Contended(_) => Self::Contended(error),
            error => Self::internal(error),
        }
    }
}
