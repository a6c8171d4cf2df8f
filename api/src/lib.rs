//! The Setpoint server: use cases, reconcilers, REST and the composition of it all.
//!
//! Layers, outermost first: [`cli`] and [`server`] put the parts together; [`http`] and [`tasks`] call
//! [`app`]; [`app`] calls `setpoint_store` and `setpoint_broker::Handle` and knows no transport.

pub mod app;
pub mod cli;
pub mod config;
pub mod http;
pub mod lifecycle;
pub mod server;
pub mod tasks;
