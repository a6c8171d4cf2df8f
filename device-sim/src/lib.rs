//! Simulated devices for Setpoint.
//!
//! One [`Device`] behaves as a well-written product does: it subscribes on every CONNACK, applies each
//! settings document, acknowledges it, reports a believable temperature, answers commands and installs
//! firmware. A [`Fleet`] runs thousands in one process, a [`Registrar`] makes their credentials over REST,
//! and [`bench`] measures a server under them. The library knows the server by its public contract alone:
//! topics, payloads and routes.

pub mod behaviour;
pub mod bench;
pub mod claim;
pub mod credential;
pub mod device;
pub mod endpoint;
pub mod event;
pub mod fleet;
mod link;
pub mod open_files;
pub mod registrar;
pub mod rest;
pub mod summary;
pub mod weather;
pub mod wire;

pub use credential::Token;
pub use device::{Device, DeviceOptions, Ended};
pub use endpoint::{Endpoint, MqttUrl};
pub use event::{Event, Observer};
pub use fleet::{Fleet, FleetOptions};
pub use registrar::Registrar;
pub use rest::Rest;
pub use summary::Summary;
