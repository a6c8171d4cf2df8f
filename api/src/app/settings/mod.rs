//! Settings: reading and changing them, their history, and what devices answer.

mod ack;
mod change;
mod history;
mod layers;
mod marks;
mod metrics;
mod notes;
mod overdue;

use std::time::Duration;

use setpoint_model::{Serial, settings::Limits};
use setpoint_store::settings::Settings;
use tokio::sync::mpsc;

use super::{Actor, App, Error, models::Schemas, policy::Action};
use crate::config;

pub use ack::{Acknowledgement, Acknowledgements};
pub(super) use change::ATTEMPTS;
pub(in crate::app) use change::{Changed, checked, patched};
pub use history::VersionStory;
pub(in crate::app) use layers::Layers;
pub use marks::Marks;
pub use metrics::Metrics;

/// Acknowledgements that may wait to be settled; beyond it their senders wait.
const MAX_ACKNOWLEDGEMENTS: usize = 4_096;

/// How much deeper a schema may nest than the values that it judges, `settings` and the keys in it included.
const MODEL_DEPTH: usize = 12;

/// What settings need beside the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    /// How large and deep a document may be.
    pub limits: Limits,
    /// How long the answer to a change waits for the publisher, which needs it for nothing: a busy one is not waited for.
    pub publish_wait: Duration,
    /// Within which time a device is expected to answer, unless its model says otherwise.
    pub expected_within: Duration,
    /// How large and deep a model may be.
    pub model_limits: Limits,
    /// How many groups there may be.
    pub max_groups: i64,
    /// Compiled schemas.
    pub schemas: Schemas,
    /// What became of published versions, waiting to be written.
    pub marks: Marks,
    /// Acknowledgements on their way to be settled.
    pub acknowledgements: Acknowledgements,
    /// Counts.
    pub metrics: Metrics,
}

impl Engine {
    /// An engine, and the queue from which `tasks::settings_acks` settles.
    pub fn new(
        config: &config::Settings,
        registry: &mut prometheus_client::registry::Registry,
    ) -> (Self, mpsc::Receiver<Acknowledgement>) {
        let metrics = Metrics::register(registry);
        let (acknowledgements, queue) = Acknowledgements::new(MAX_ACKNOWLEDGEMENTS);
        let engine = Self {
            limits: Limits {
                bytes: config.max_document,
                depth: config.max_depth,
            },
            publish_wait: config.publish_wait,
            expected_within: config.expected_within,
            model_limits: Limits {
                bytes: config.max_model,
                depth: config.max_depth.saturating_add(MODEL_DEPTH),
            },
            max_groups: config.max_groups.into(),
            schemas: Schemas::default(),
            marks: Marks::new(metrics.marks_dropped.clone()),
            acknowledgements,
            metrics,
        };
        (engine, queue)
    }
}

impl App {
    /// A device's settings as they stand.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:read`, [`Error::NotFound`].
    pub async fn settings(&self, actor: &Actor, serial: &Serial) -> Result<Settings, Error> {
        self.authorize_device(actor, Action::ReadSettings, serial).await?;
        self.store
            .settings(serial)
            .await?
            .ok_or(Error::NotFound { what: "device" })
    }
}
