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
pub mod soak;
pub mod storm;
pub mod telemetry;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use bytestring::ByteString;
use setpoint_model::{Channel, Serial, Topic};

use crate::{
    credential::Token,
    rest::{Rest, RestError},
    wire::{Login, WireError},
};
pub use report::Report;

use peer::database::Database;

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
    /// What becomes of telemetry.
    pub storage: Storage,
    /// Its database, if that can be looked into.
    pub database: Option<Database>,
}

/// What becomes of the telemetry that a target takes.
#[derive(Debug, Clone)]
pub enum Storage {
    /// It is passed on and forgotten.
    Nowhere,
    /// What is acknowledged is stored.
    WhenAcknowledged,
    /// Something behind the target stores it, and counts the rows here.
    Counted(Arc<AtomicU64>),
}

/// How a target's settings are changed.
#[derive(Debug, Clone)]
pub enum Changes {
    /// By PATCH, as users do.
    Rest(Rest),
    /// By publishing to this topic of a device: retained to `settings`, as one would without a server, or to `settings/set`,
    /// of which the target makes documents. Publishers sign in with this password, if any.
    Publish(Option<Token>, Channel),
}

/// The client that publishes for a plain broker, by its number.
///
/// # Errors
/// Never for numbers that a bench has.
pub fn publisher(number: usize, token: Option<Token>) -> Result<Login, BenchError> {
    let serial = format!("publisher-{number}").parse();
    let serial = serial.map_err(|_| BenchError::Options("too many publishers".to_owned()))?;
    Ok(Login { serial, token })
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
    /// A program that the bench needs said no.
    #[error("{program}: {message}")]
    Program {
        /// Which.
        program: String,
        /// What it said.
        message: String,
    },
    /// A file that the bench writes.
    #[error("cannot write {path}: {error}")]
    Output {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
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

    /// The telemetry that this bench is about, if it is: then other ways to store the same are measured too.
    fn telemetry(&self) -> Option<&telemetry::TelemetryBench> {
        None
    }
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
