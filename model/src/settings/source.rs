//! Where a change of settings came from.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! sources {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// The way by which a settings version came about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum Source {
            $($(#[$doc])* $name,)+
        }

        impl Source {
            /// The name used in the database and in payloads.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }

        impl FromStr for Source {
            type Err = UnknownSource;

            fn from_str(text: &str) -> Result<Self, UnknownSource> {
                match text { $($text => Ok(Self::$name),)+ _ => Err(UnknownSource) }
            }
        }
    };
}

sources! {
    /// The device was created.
    Created = "created",
    /// A REST request.
    Rest = "rest",
    /// The admin page.
    Page = "page",
    /// An operator's `settings/set` over MQTT.
    Mqtt = "mqtt",
    /// A schedule began or ended.
    Schedule = "schedule",
    /// A group's settings or membership changed.
    Group = "group",
    /// A bulk change.
    Bulk = "bulk",
    /// A bulk change was taken back.
    Undo = "undo",
    /// An earlier version was brought back.
    Revert = "revert",
    /// The device's model changed, or the device got another one.
    Model = "model",
}

/// The text names no source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown source of a settings version")]
pub struct UnknownSource;

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
