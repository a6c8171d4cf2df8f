//! Why telemetry is not stored.

use setpoint_model::telemetry::Malformed;
use setpoint_store::Error as StoreError;

use super::queue::NotStored;

/// Why a payload has no rows.
pub(super) enum Refused {
    /// Nothing of it can be read.
    Malformed(Malformed),
    /// There is no such device.
    Gone,
    /// The database failed.
    Store(StoreError),
}

/// Why a payload was not stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Nothing of it can be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// There is no such device.
    #[error("no such device")]
    NoDevice,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server is shutting down.
    #[error("shutting down")]
    Stopping,
    /// The database refuses the rows.
    #[error(transparent)]
    NotStored(#[from] NotStored),
}

impl From<Refused> for IngestError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Malformed(malformed) => Self::Malformed(malformed),
            Refused::Gone => Self::NoDevice,
            Refused::Store(error) => Self::Store(error),
        }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
