//! Tasks: reconcilers that make the world agree with the database, and writers that batch.
//!
//! A reconciler is idempotent, takes no input but what the database says, and is woken by a hint and by a
//! timer. A writer takes a bounded channel and commits in batches.

pub mod alerts;
pub mod audit_writer;
pub mod changes;
pub mod expiry;
pub mod factory_imports;
mod gather;
pub mod home_assistant;
pub mod partitions;
pub mod peers;
pub mod presence_writer;
pub mod purges;
pub mod retention;
pub mod rights;
pub mod settings_acks;
pub mod settings_layers;
pub mod settings_marks;
pub mod settings_overdue;
pub mod settings_publisher;
pub mod telemetry_rollups;
pub mod telemetry_writer;
pub mod timeline_writer;
pub mod token_use;
pub mod webhooks;
