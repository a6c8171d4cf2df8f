//! Measurements of a server under simulated devices, and of a plain MQTT broker under the same load.
//!
//! Every bench runs the same code against both: the difference is how a setting is changed (over REST here,
//! by a retained publish there) and whether devices sign in.

pub mod changes;
pub mod cpu;
pub mod idle;
pub mod memory;
pub mod peer;
pub mod report;
mod session;
pub mod settings;
pub mod storm;
pub mod telemetry;

use std::net::SocketAddr;

use bytestring::ByteString;
use setpoint_model::{Channel, Serial, Topic};

use crate::{
    rest::{Rest, RestError},
    wire::{Login, WireError},
};
pub use report::Report;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name in the report.
    pub name: String,
    /// Where it listens for MQTT over plain TCP.
    pub addr: SocketAddr,
    /// The devices, registered where that is needed.
    pub logins: Vec<Login>,
    /// How settings are changed.
    pub changes: Changes,
    /// Its process, to read its memory and its processor time.
    pub pid: Option<u32>,
}

/// How a target's settings are changed.
#[derive(Debug, Clone)]
pub enum Changes {
    /// By PATCH, as users do.
    Rest(Rest),
    /// By a retained publish, as one would without a server.
    Publish,
}

/// Why a bench came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A connection that had to last broke, or couldn't be made.
    #[error("{serial}: {error}")]
    Device {
        /// Whose.
        serial: Serial,
        /// Why.
        error: WireError,
    },
    /// A change that was refused.
    #[error("cannot change settings: {0}")]
    Rest(#[from] RestError),
    /// The options contradict each other.
    #[error("{0}")]
    Options(String),
    /// Time ran out.
    #[error("{0}")]
    TimedOut(String),
    /// The peer couldn't be started.
    #[error("cannot start the peer: {0}")]
    Peer(std::io::Error),
    /// A task of the bench ended early.
    #[error("a task of the bench failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// One measurement.
pub trait Bench {
    /// How many devices it needs.
    fn devices(&self) -> usize;

    /// Measures one target.
    ///
    /// # Errors
    /// When the target can't be measured; a target that is merely slow or loses things is reported.
    fn run(&self, target: &Target) -> impl Future<Output = Result<Report, BenchError>> + Send;
}

fn topic(serial: &Serial, channel: Channel) -> ByteString {
    Topic::new(serial.clone(), channel).to_string().into()
}

fn failed(login: &Login) -> impl Fn(WireError) -> BenchError {
    let serial = login.serial.clone();
    move |error| BenchError::Device {
        serial: serial.clone(),
        error,
    }
}
