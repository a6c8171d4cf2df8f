//! The audit log: who did what to which object from where.
//!
//! A change writes its entry in its own transaction. What changes nothing (a refusal, a failed sign-in) goes through a
//! bounded queue, so that whoever causes refusals can't hold anybody up.

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use setpoint_store::audit::{AuditFilter, Entry, NewEntry};
use tokio::sync::mpsc;

use super::{Actor, App, Error, policy::Action};

/// Refusals that may wait to be written; beyond it they are dropped and counted.
const MAX_WAITING: usize = 4_096;

/// Takes refusals to the audit log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AuditLog {
    queue: mpsc::Sender<NewEntry>,
    dropped: Counter,
}

impl AuditLog {
    /// A log, and the queue from which `tasks::audit_writer` writes it.
    pub fn new(registry: &mut Registry) -> (Self, mpsc::Receiver<NewEntry>) {
        let dropped = Counter::default();
        registry.register(
            "audit_dropped",
            "Refusals that the audit log could not take",
            dropped.clone(),
        );
        let (queue, entries) = mpsc::channel(MAX_WAITING);
        (Self { queue, dropped }, entries)
    }

    /// Records that something was refused.
    pub fn refused(&self, entry: NewEntry) {
        let entry = NewEntry {
            refused: true,
            ..entry
        };
        if self.queue.try_send(entry).is_err() {
            self.dropped.inc();
        }
    }
}

/// An entry of what an actor does at `at`.
pub(super) fn entry(
    actor: &Actor,
    action: &'static str,
    object: impl Into<String>,
    at: chrono::DateTime<chrono::Utc>,
) -> NewEntry {
    NewEntry {
        at,
        actor: actor.label(),
        user_id: actor.user(),
        action,
        object: object.into(),
        address: actor.address.map(|address| address.to_string()),
        refused: false,
        before: None,
        after: None,
    }
}

impl App {
    /// An entry of what an actor does now.
    pub(super) fn entry(&self, actor: &Actor, action: &'static str, object: impl Into<String>) -> NewEntry {
        entry(actor, action, object, self.clock.now())
    }

    /// A page of the log, newest first: entries with ids below `before`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `audit:read`.
    pub async fn audit_log(
        &self,
        actor: &Actor,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Entry>, Error> {
        self.authorize_all(actor, Action::ReadAudit)?;
        Ok(self.store.audit(filter, before, limit).await?)
    }
}
