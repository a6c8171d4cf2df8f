//! Bulk changes: one patch for many devices, in stages, that can be held, stopped and taken back.
//!
//! [`begin`] selects and judges the devices and writes the change down; [`work`], called by `tasks::changes`, gives it
//! to them batch by batch; [`command`] holds, stops and takes back. Each device is changed under the same locks and by
//! the same rules as by a single patch.

mod begin;
mod command;
mod dry_run;
mod judge;
mod select;
mod undo;
mod work;

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use setpoint_model::change::State;
use setpoint_store::changes::{Change, ChangeDevice, Counts, DevicePage};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{Actor, App, Error, policy::Action};
use crate::config;

pub use begin::{ChangeRequest, Thresholds};
pub use dry_run::{DryRun, Effect};
pub use select::Selection;
pub use work::Step;

/// Devices locked, judged and written in one transaction: few enough that a single change hardly waits for them.
const BATCH: usize = 200;

/// Selections under way at once: each holds two connections to the database.
const SELECTIONS: usize = 2;

const NOT_FOUND: Error = Error::NotFound { what: "change" };

/// What bulk changes need beside the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Changes {
    config: config::BulkChanges,
    selections: Arc<Semaphore>,
    ended: Family<EndLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabel {
    state: &'static str,
}

/// A change, and how many of its devices stand where at this moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeProgress {
    /// The change.
    pub change: Change,
    /// Its devices.
    pub counts: Counts,
}

impl Changes {
    /// With these limits.
    pub fn new(config: config::BulkChanges, registry: &mut Registry) -> Self {
        let ended = Family::default();
        registry.register(
            "bulk_changes_ended",
            "Bulk changes that ended, by how: completed, aborted, cancelled, undone",
            Family::clone(&ended),
        );
        Self {
            config,
            selections: Arc::new(Semaphore::new(SELECTIONS)),
            ended,
        }
    }

    fn ended(&self, state: State) {
        let state = state.as_str();
        self.ended.get_or_create(&EndLabel { state }).inc();
    }
}

impl App {
    /// One change with its progress.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:read` for all devices, [`Error::NotFound`].
    pub async fn change(&self, actor: &Actor, id: Uuid) -> Result<ChangeProgress, Error> {
        self.authorize_all(actor, Action::ReadChanges)?;
        self.progress(id).await
    }

    /// A page of changes with their progress, newest first: those before `before`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:read` for all devices.
    pub async fn changes(
        &self,
        actor: &Actor,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<ChangeProgress>, Error> {
        self.authorize_all(actor, Action::ReadChanges)?;
        let mut listed = Vec::new();
        for change in self.store.changes(before, limit).await? {
            let counts = self.store.change_counts(change.id).await?;
            listed.push(ChangeProgress { change, counts });
        }
        Ok(listed)
    }

    /// A page of a change's devices, in the order in which they get it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:read` for all devices, [`Error::NotFound`].
    pub async fn change_devices(
        &self,
        actor: &Actor,
        id: Uuid,
        page: DevicePage,
    ) -> Result<Vec<ChangeDevice>, Error> {
        self.authorize_all(actor, Action::ReadChanges)?;
        self.store.change(id).await?.ok_or(NOT_FOUND)?;
        Ok(self.store.change_devices(id, page).await?)
    }

    async fn progress(&self, id: Uuid) -> Result<ChangeProgress, Error> {
        let change = self.store.change(id).await?.ok_or(NOT_FOUND)?;
        let counts = self.store.change_counts(id).await?;
        Ok(ChangeProgress { change, counts })
    }
}

/// How the audit log names a change.
fn object(id: Uuid) -> String {
    format!("change:{id}")
}
