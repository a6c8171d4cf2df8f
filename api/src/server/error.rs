//! Why a server doesn't start.

use std::{net::SocketAddr, path::PathBuf};

use setpoint_broker::transport::tls;
use setpoint_store::{InvalidUrl, OpenError, embedded};

use crate::app::{first_start::FirstStartError, sealing::KeyError};

/// Why a server didn't start, in one line for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken, or an address isn't this machine's.
    #[error("{key}: {address} can't be listened on: {source}")]
    Listen {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The data directory can't be made.
    #[error("data_dir: {}: {source}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The TLS certificates can't be used.
    #[error("mqtt.tls: {0}")]
    Tls(#[from] tls::LoadError),
    /// `database.url` is none.
    #[error("database.url: {0}")]
    Url(#[from] InvalidUrl),
    /// The embedded Postgres doesn't start.
    #[error("{0}")]
    Embedded(#[from] embedded::Error),
    /// The database can't be opened.
    #[error("{}", chain(.0))]
    Database(#[from] OpenError),
    /// The database fails.
    #[error("{}", chain(.0))]
    Prepare(#[from] crate::app::Error),
    /// The administrator can't be made.
    #[error("{}", chain(.0))]
    FirstStart(#[from] FirstStartError),
    /// The server's key can't be used.
    #[error("sign_in.key_file: {0}")]
    Key(#[from] KeyError),
    /// The sign-in provider could not be known by its certificate.
    #[error("sign_in.oidc: this system's certificate authorities: {0}")]
    Authorities(std::io::Error),
    /// The broker doesn't start.
    #[error("{0}")]
    Broker(#[from] setpoint_broker::Error),
    /// The OpenAPI document can't be rendered.
    #[error("the OpenAPI document: {0}")]
    Document(#[from] serde_json::Error),
}

impl StartError {
    /// Whether another configuration would help: exit code 2.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Listen { .. } | Self::DataDir { .. } | Self::Tls(_) | Self::Url(_) | Self::Key(_)
        )
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let further = error.to_string();
        if !text.contains(&further) {
            text = format!("{text}: {further}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}
