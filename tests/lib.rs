//! The harness of the end-to-end tests: a real server with a database of its own, and real clients.
//!
//! Nothing here sleeps. Every wait has an end, and says what was awaited when it is reached.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that can't go on has failed"
)]

pub mod harness;

pub use harness::{
    Device, Harness,
    api::{Answer, Api},
    child::{Child, Options},
    database::Gate,
    mosquitto,
    mqtt::{End, Message, Mqtt, Version},
    socket::Socket,
    wait::{self, WAIT, within},
};
