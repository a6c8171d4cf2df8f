//! Whether a device is connected, and if not, why.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The payload of `devices/{serial}/presence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whether at least one session of the device is live.
    pub online: bool,
    /// Since when.
    pub since: DateTime<Utc>,
    /// The session that came or went.
    pub session: Uuid,
    /// Why it went; `null` while online.
    pub reason: Option<DisconnectReason>,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DisconnectReason {
    /// The client said DISCONNECT.
    ClientDisconnected,
    /// The connection closed or broke without a DISCONNECT.
    ConnectionLost,
    /// Nothing was heard for one and a half keep-alive intervals [MQTT-3.1.2-22].
    KeepAliveTimeout,
    /// The same client id connected again [MQTT-3.1.4-3].
    TakenOver,
    /// Its credential was revoked or replaced, or the device was deleted.
    CredentialRevoked,
    /// An administrator ended the session.
    Kicked,
    /// A malformed packet or a breach of the protocol.
    ProtocolError,
    /// It kept publishing where it may not.
    NotAuthorized,
    /// It went over a limit: packet size, rate, or a queue it never read.
    LimitExceeded,
    /// The server shut down.
    ServerShutdown,
    /// The server stopped without notice; found at the next start.
    ServerStopped,
}

impl DisconnectReason {
    /// The name used in payloads, the database and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientDisconnected => "client_disconnected",
            Self::ConnectionLost => "connection_lost",
            Self::KeepAliveTimeout => "keep_alive_timeout",
            Self::TakenOver => "taken_over",
            Self::CredentialRevoked => "credential_revoked",
            Self::Kicked => "kicked",
            Self::ProtocolError => "protocol_error",
            Self::NotAuthorized => "not_authorized",
            Self::LimitExceeded => "limit_exceeded",
            Self::ServerShutdown => "server_shutdown",
            Self::ServerStopped => "server_stopped",
        }
    }
}

impl DisconnectReason {
    /// The reason of this name, as [`Self::as_str`] gives it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }

    /// Every reason there is.
    pub const ALL: &[Self] = &[
        Self::ClientDisconnected,
        Self::ConnectionLost,
        Self::KeepAliveTimeout,
        Self::TakenOver,
        Self::CredentialRevoked,
        Self::Kicked,
        Self::ProtocolError,
        Self::NotAuthorized,
        Self::LimitExceeded,
        Self::ServerShutdown,
        Self::ServerStopped,
    ];
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_back_as_written() {
        for reason in DisconnectReason::ALL {
            assert_eq!(DisconnectReason::parse(reason.as_str()), Some(*reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert_eq!(DisconnectReason::parse("bored"), None);
    }
}
