//! The end-to-end tests: a module per behaviour.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    clippy::large_futures,
    reason = "a test that can't go on has failed"
)]

mod access;
mod account;
mod acks;
mod activate_page;
mod alerts;
mod alerts_scope;
mod alerts_servers;
mod alerts_silence;
mod alerts_told;
mod alerts_values;
mod audit;
mod authorization;
mod backup;
mod bad_settings;
mod browser;
mod certified;
mod changes;
mod changes_refused;
mod changes_stages;
mod claiming;
mod commands;
mod crashes;
mod credentials;
mod delivery;
mod devices;
mod durability;
mod enrolment;
mod events;
mod factory;
mod fleet;
mod groups;
mod health;
mod home_assistant;
mod hostile;
mod models;
mod models_exchange;
mod models_generated;
mod models_migrate;
mod mqtt_metrics;
mod mqtt_sessions;
mod oidc;
mod openapi;
mod outage;
mod overdue;
mod owners_mqtt;
mod people;
mod policy;
mod presence;
mod problems;
mod responses;
mod schedules;
mod schedules_in_force;
mod schedules_of_groups;
mod schedules_once;
mod secrecy;
mod selectors;
mod sessions;
mod settings;
mod settings_history;
mod settings_set;
mod simulator;
mod start;
mod taking_back;
mod telemetry;
mod telemetry_formats;
mod telemetry_groups;
mod telemetry_history;
mod telemetry_http;
mod telemetry_limits;
mod telemetry_picture;
mod telemetry_rollups;
mod telemetry_storage;
mod telemetry_streams;
mod telemetry_types;
mod tidy;
mod timeline;
mod tls_clients;
mod tokens;
mod totp;
mod tour;
mod transports;
mod two_servers;
mod webhooks;
mod webhooks_delivery;
mod webhooks_described;
mod webhooks_tls;

/// The server's program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_setpoint-under-test");
