//! Pure types and rules of Setpoint: ids, topics, payloads, settings, access and time.
//!
//! Nothing here does input or output: no tokio, no database, no web framework. Every rule that two
//! layers must agree on lives here once.

pub mod access;
pub mod alert;
pub mod change;
pub mod clock;
pub mod credential;
pub mod device;
pub mod event;
pub mod filter;
pub mod group;
mod lexer;
pub mod models;
mod name;
pub mod presence;
pub mod role;
pub mod schedule;
pub mod scope;
pub mod selector;
pub mod serial;
pub mod settings;
pub mod telemetry;
pub mod timeline;
pub mod topic;
pub mod totp;
pub mod webhook;

pub use access::Identity;
pub use clock::{Clock, SystemClock};
pub use device::DeviceId;
pub use filter::TopicFilter;
pub use group::GroupName;
pub use role::Role;
pub use scope::Scope;
pub use selector::Selector;
pub use serial::Serial;
pub use topic::{Channel, Topic};
