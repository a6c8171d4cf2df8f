//! Setpoint's MQTT edge: sockets, sessions, topic rules and rumqttd router shards.
//!
//! The edge owns what MQTT asks of a server; see `ARCHITECTURE.md`, "The broker". It knows nothing of the
//! database: whatever needs one goes through [`Backend`], and the rest of the server speaks to devices
//! through [`Handle`].

mod admission;
pub mod backend;
mod broker;
mod bus;
mod config;
mod edge;
mod error;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod message;
mod metrics;
mod operators;
mod respond;
mod session;
mod shard;
mod status;
pub mod transport;
mod wire;

pub use self::{
    backend::{
        Ack, Authenticated, Backend, Inbound, Login, Outcome, Peer, Refusal, SessionEvent, SessionInfo,
        Transport, Version,
    },
    broker::Broker,
    config::Config,
    edge::Edge,
    error::{Error, ShuttingDown},
    handle::Handle,
    message::{Outgoing, QoS},
    respond::Response,
    status::{Began, Counts, DeviceStatus, SessionStatus, ShardHealth},
};
