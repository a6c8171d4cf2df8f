//! What an API token may do.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// One right an API token carries. A person's rights are expressed in the same scopes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum Scope {
            $($(#[$doc])* #[serde(rename = $text)] $name,)+
        }

        impl Scope {
            /// Every scope there is.
            pub const ALL: &[Scope] = &[$(Scope::$name,)+];

            /// The scope's name, as it stands in a token's `scopes`.
            pub fn as_str(self) -> &'static str {
                match self { $(Scope::$name => $text,)+ }
            }
        }
    };
}

scopes! {
    /// Read devices, their presence and timeline.
    DevicesRead = "devices:read",
    /// Create, change and delete devices and their credentials.
    DevicesWrite = "devices:write",
    /// Register devices to oneself, share them, and give them up.
    DevicesClaim = "devices:claim",
    /// Read settings, their history and status.
    SettingsRead = "settings:read",
    /// Change settings.
    SettingsWrite = "settings:write",
    /// Read telemetry.
    TelemetryRead = "telemetry:read",
    /// Store telemetry on a device's behalf.
    TelemetryWrite = "telemetry:write",
    /// Read product models.
    ModelsRead = "models:read",
    /// Change product models.
    ModelsWrite = "models:write",
    /// Read groups.
    GroupsRead = "groups:read",
    /// Create, change and delete groups, and with them the settings of their members.
    GroupsWrite = "groups:write",
    /// Read webhooks and what became of their events.
    WebhooksRead = "webhooks:read",
    /// Create, change, test and delete webhooks.
    WebhooksWrite = "webhooks:write",
    /// Read alert rules, and where devices stand towards them.
    AlertsRead = "alerts:read",
    /// Make, change and delete alert rules.
    AlertsWrite = "alerts:write",
    /// Connect to MQTT as an operator.
    Mqtt = "mqtt",
    /// Make, list and delete API tokens: one's own, or everybody's for an administrator.
    TokensWrite = "tokens:write",
    /// Read the audit log.
    AuditRead = "audit:read",
    /// Read Prometheus metrics.
    MetricsRead = "metrics:read",
    /// Everything, people and tokens included.
    Admin = "admin",
}

/// The text names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope `{0}`")]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .iter()
            .copied()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a holder of `held` may do what `needed` guards; `admin` may do everything.
pub fn allows(held: &[Scope], needed: Scope) -> bool {
    held.contains(&needed) || held.contains(&Scope::Admin)
}
