//! The store's one error type: what a caller can act on, told apart once, where [`sqlx::Error`] arrives.

use std::borrow::Cow;

/// Why a query failed. The text and the source are for the log, never for a client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres cannot be reached, is starting or stopping, is out of connections or disk, or took longer
    /// than the time-outs allow. The same call may succeed later.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),

    /// A unique or exclusion constraint: another row already has this value.
    #[error("conflict with another row ({constraint})")]
    Conflict {
        /// The constraint's name in `migrations/`.
        constraint: String,
    },

    /// A foreign key: the row that is referred to does not exist, or the row is still referred to.
    #[error("reference to a missing row, or to one in use ({constraint})")]
    Reference {
        /// The constraint's name in `migrations/`.
        constraint: String,
    },

    /// A value that the schema does not take: a check or not-null constraint, a number out of range, a NUL
    /// character in text.
    #[error("invalid value: {message}")]
    Invalid {
        /// The constraint's name in `migrations/`, when one was named.
        constraint: Option<String>,
        /// Postgres's own message, without the row's values.
        message: String,
    },

    /// A deadlock or a serialization failure: the transaction was rolled back and can be run again at once.
    #[error("the transaction ran into another one")]
    Contended(#[source] sqlx::Error),

    /// Anything else: a mistake in this crate or in the schema.
    #[error("the query failed")]
    Query(#[source] sqlx::Error),
}

impl Error {
    /// Whether the database is at fault rather than the request, so that trying again later makes sense.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// The name of the constraint that refused the row, if one did.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Conflict { constraint } | Self::Reference { constraint } => Some(constraint),
            Self::Invalid { constraint, .. } => constraint.as_deref(),
            Self::Unavailable(_) | Self::Contended(_) | Self::Query(_) => None,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Database(database) => {
                let constraint = database.constraint().map(str::to_owned);
                match classify(&database.code().unwrap_or(Cow::Borrowed(""))) {
                    Kind::Unavailable => Self::Unavailable(error),
                    Kind::Contended => Self::Contended(error),
                    Kind::Conflict => Self::Conflict {
                        constraint: constraint.unwrap_or_default(),
                    },
                    Kind::Reference => Self::Reference {
                        constraint: constraint.unwrap_or_default(),
                    },
                    Kind::Invalid => Self::Invalid {
                        constraint,
                        message: database.message().to_owned(),
                    },
                    Kind::Query => Self::Query(error),
                }
            }
            _ => Self::Query(error),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Unavailable,
    Conflict,
    Reference,
    Invalid,
    Contended,
    Query,
}

/// Sorts a SQLSTATE (PostgreSQL documentation, appendix A).
fn classify(code: &str) -> Kind {
    match code {
        // unique_violation, exclusion_violation
        "23505" | "23P01" => Kind::Conflict,
        // foreign_key_violation, restrict_violation
        "23503" | "23001" => Kind::Reference,
        // check_violation, not_null_violation
        "23514" | "23502" => Kind::Invalid,
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => Kind::Contended,
        // query_canceled (our statement time-out), lock_not_available; a fail-over left us on a read-only
        // standby; a time-out or a switch-over ended the session
        "57014" | "55P03" | "25006" | "25P03" | "25P04" => Kind::Unavailable,
        _ => match code.get(..2) {
            // data exception: out of range, invalid byte sequence, invalid JSON text
            Some("22") => Kind::Invalid,
            // connection exception, insufficient resources, operator intervention (admin shutdown, crash
            // recovery, cannot connect now), system error (I/O)
            Some("08" | "53" | "57" | "58") => Kind::Unavailable,
            _ => Kind::Query,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_are_sorted_by_what_a_caller_can_do() {
        for (code, kind) in [
            ("23505", Kind::Conflict),
            ("23503", Kind::Reference),
            ("23514", Kind::Invalid),
            ("22003", Kind::Invalid),
            ("22021", Kind::Invalid),
            ("40P01", Kind::Contended),
            ("57P01", Kind::Unavailable),
            ("57P02", Kind::Unavailable),
            ("57P03", Kind::Unavailable),
            ("57014", Kind::Unavailable),
            ("53300", Kind::Unavailable),
            ("08006", Kind::Unavailable),
            ("42P01", Kind::Query),
            ("", Kind::Query),
        ] {
            assert_eq!(classify(code), kind, "{code}");
        }
    }

    #[test]
    fn a_lost_connection_and_a_busy_pool_are_unavailable() {
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(Error::from(sqlx::Error::Io(reset)).is_unavailable());
        assert!(Error::from(sqlx::Error::PoolTimedOut).is_unavailable());
        assert!(!Error::from(sqlx::Error::RowNotFound).is_unavailable());
    }
}
