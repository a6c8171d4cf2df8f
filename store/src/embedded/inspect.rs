//! Looking at an embedded Postgres from outside, for commands that run beside the server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    EmbeddedConfig, Error, Fetch, Version,
    binaries::{self, Search},
    connect_options,
};
use crate::ConnectOptions;

/// The line of `postmaster.pid` that holds the directory of the socket, counted from nought.
const SOCKET_LINE: usize = 4;

/// How to reach the Postgres that another process runs in this data directory, if one does.
#[must_use]
pub fn running(data_dir: &Path) -> Option<ConnectOptions> {
    Some(connect_options(&socket(data_dir)?, super::DATABASE))
}

/// The same as a URL, for PostgreSQL's own programs.
#[must_use]
pub fn running_url(data_dir: &Path) -> Option<String> {
    Some(super::url(&socket(data_dir)?))
}

/// The directory of the socket.
fn socket(data_dir: &Path) -> Option<PathBuf> {
    let pid_file = data_dir.join("postgres").join("data").join("postmaster.pid");
    let text = fs::read_to_string(pid_file).ok()?;
    let socket = text.lines().nth(SOCKET_LINE).filter(|line| !line.is_empty())?;
    Some(PathBuf::from(socket))
}

/// The programs that a start with this configuration would use, and their version; fetches nothing.
///
/// # Errors
/// See [`Error`].
pub fn programs(config: &EmbeddedConfig) -> Result<(PathBuf, Version), Error> {
    let home = config.data_dir.join("postgres");
    let data = home.join("data");
    let made_by = fs::read_to_string(data.join("PG_VERSION"))
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let cache = home.join("binaries");
    let found = binaries::find(
        config.bin.as_deref(),
        Fetch::Never,
        &Search::system(),
        &cache,
        &data,
        made_by,
    )?;
    Ok((found.dir, found.version))
}
