//! Setpoint's only door to PostgreSQL: one file per noun, each an `impl Store` block, beside the supervisor
//! of the embedded Postgres.
//!
//! Nothing above this crate sees SQL or an [`sqlx::Error`]. "Not found" is `Ok(None)`; everything else that
//! can go wrong is an [`Error`].

pub mod alerts;
pub mod audit;
pub mod changes;
pub mod claims;
pub mod credentials;
mod database;
pub mod devices;
pub mod embedded;
mod error;
pub mod factory;
pub mod groups;
pub mod home_assistant;
pub mod identities;
pub mod models;
pub mod owners;
pub mod peers;
pub mod presence;
pub mod schedules;
pub mod sessions;
pub mod settings;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod timeline;
pub mod tokens;
pub mod totp;
pub mod users;
pub mod webhooks;

pub use database::{ConnectOptions, InvalidUrl, MigrateError, OpenError, PoolOptions, Store};
pub use error::Error;

/// What empties a database of Setpoint, for `psql` before a backup is restored.
pub const EMPTY_SQL: &str = include_str!("empty.sql");

/// The result of every query.
pub type Result<T, E = Error> = std::result::Result<T, E>;
