//! Use cases: what Setpoint does, without saying over which transport it was asked.
//!
//! One file per noun, each an `impl App` block. A use case names its permission first, then reads as a list
//! of steps; it commits to Postgres and at most leaves a hint for a task.

pub mod account;
mod actor;
pub mod alerts;
pub mod audit;
pub mod changes;
pub mod claims;
pub mod credentials;
mod devices;
pub mod enrolment;
mod error;
pub mod events;
pub mod factory;
pub mod first_start;
mod groups;
mod health;
mod hints;
pub mod models;
pub mod mqtt;
pub mod mqtt_sessions;
pub mod oidc;
pub mod outbound;
mod owners;
mod passwords;
pub mod peers;
pub mod policy;
mod precondition;
pub mod presence;
pub mod rights;
pub mod schedules;
pub mod sealing;
pub mod sessions;
pub mod settings;
pub mod telemetry;
mod throttle;
pub mod timeline;
pub mod tokens;
pub mod totp;
pub mod users;
pub mod webhooks;

use std::sync::Arc;

use setpoint_broker::Handle;
use setpoint_model::Clock;
use setpoint_store::Store;

pub use actor::{Actor, Principal};
pub use alerts::Alerts;
pub use audit::AuditLog;
pub use error::{Error, FieldErrors};
pub use events::Events;
pub use hints::{Given, Hints, Look};
pub use precondition::Precondition;
pub use presence::PresenceBook;
pub use telemetry::Ingest;
pub use throttle::network;
pub use timeline::Timeline;

/// The parts every use case may use. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What an [`App`] is made of.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The way to connected devices.
    pub broker: Handle,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Wakes the tasks that make MQTT agree with the database.
    pub hints: Hints,
    /// API tokens seen lately.
    pub tokens: tokens::Tokens,
    /// Rights of whoever has a stream open.
    pub rights: rights::Rights,
    /// Whether other servers are on the same database.
    pub peers: peers::Peers,
    /// Device credentials seen lately.
    pub credentials: credentials::Credentials,
    /// What devices that make themselves known need beside the database.
    pub enrolment: enrolment::Enrolment,
    /// What signing in needs beside the database.
    pub people: sessions::SignIn,
    /// The provider that people may sign in with.
    pub oidc: oidc::Oidc,
    /// What claiming needs beside the database.
    pub claiming: claims::Claiming,
    /// What imports of factory serials need beside the database.
    pub factory: factory::Factory,
    /// Takes refusals to the audit log.
    pub audit: AuditLog,
    /// What bulk changes need beside the database.
    pub changes: changes::Changes,
    /// What settings need beside the database.
    pub settings: settings::Engine,
    /// Limits of schedules.
    pub schedule_limits: crate::config::Schedules,
    /// What alerts need beside the database.
    pub alerts: Alerts,
    /// Takes telemetry to the database.
    pub ingest: Ingest,
    /// What reading telemetry needs beside the database.
    pub reading: telemetry::Readers,
    /// Takes who is connected to the database.
    pub presence: PresenceBook,
    /// Tells those who listen what happens.
    pub events: Events,
    /// Takes what happens to devices to the database.
    pub timeline: Timeline,
    /// What webhooks need beside the database.
    pub webhooks: webhooks::Webhooks,
}

impl App {
    /// An application of these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
