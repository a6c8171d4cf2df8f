//! What one would build otherwise: Mosquitto, and a subscriber in Python that writes batches.

use std::{
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinSet,
    time::timeout,
};

use super::{Mosquitto, database::Database};
use crate::bench::BenchError;

/// The subscriber; it runs by itself too.
const SCRIPT: &str = include_str!("../../../peers/mosquitto_psycopg.py");
/// A database of its own, in the server's Postgres: the same disk, the same settings.
const DATABASE: &str = "setpoint_bench_peer";
/// How long the subscriber may take to be ready.
const START: Duration = Duration::from_secs(20);

/// What the subscriber writes into, and what it promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// A plain table without an index. A message is acknowledged when it is read: what is not committed yet when the
    /// subscriber ends is lost, and what is sent twice is stored twice.
    Plain,
    /// A primary key over serial, metric and time; what is there already is left out. Messages are acknowledged after
    /// their commit, in a session that outlives the connection: the nearest to what the server promises.
    Keyed,
}

impl Table {
    /// The peer's name.
    pub fn peer(self) -> &'static str {
        match self {
            Self::Plain => "mosquitto-psycopg",
            Self::Keyed => "mosquitto-psycopg-keyed",
        }
    }

    /// Messages that Mosquitto may have unacknowledged: with acknowledgements after the commit, two batches of them, since
    /// there are never more in a batch.
    pub fn in_flight(self) -> u16 {
        match self {
            Self::Plain => 100,
            Self::Keyed => 5_000,
        }
    }

    fn argument(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Keyed => "keyed",
        }
    }
}

/// A running subscriber; it ends when this is dropped.
#[derive(Debug)]
pub struct Stack {
    /// Rows that it has committed.
    pub rows: Arc<AtomicU64>,
    database: Database,
    process: Child,
    counting: JoinSet<()>,
    _script: NamedTempFile,
}

impl Stack {
    /// Makes the database with its table and lets the subscriber listen to `mosquitto`. `python` has paho-mqtt and
    /// psycopg.
    ///
    /// # Errors
    /// When any of it can't be had; what the subscriber says of it is on stderr.
    pub async fn start(
        python: &Path,
        table: Table,
        mosquitto: &Mosquitto,
        database: &Database,
    ) -> Result<Self, BenchError> {
        let failed = |message: String| BenchError::Program {
            program: python.display().to_string(),
            message,
        };
        forget(database).await?;
        let create = format!("create database {DATABASE}");
        database.run(&[&create]).await?;
        let script = NamedTempFile::new().map_err(BenchError::Peer)?;
        std::fs::write(script.path(), SCRIPT).map_err(BenchError::Peer)?;
        let mut process = Command::new(python)
            .arg(script.path())
            .arg(mosquitto.addr().port().to_string())
            .arg(database.named(DATABASE).url())
            .arg(table.argument())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let stdout = process.stdout.take();
        let mut lines = stdout
            .map(|stdout| BufReader::new(stdout).lines())
            .ok_or_else(|| failed("it has no output".to_owned()))?;
        match timeout(START, lines.next_line()).await {
            Ok(Ok(Some(line))) if line == "ready" => {}
            _ => return Err(failed("the subscriber did not start".to_owned())),
        }
        let rows = Arc::new(AtomicU64::new(0));
        let mut counting = JoinSet::new();
        counting.spawn(count(lines, Arc::clone(&rows)));
        Ok(Self {
            counting,
            rows,
            database: database.clone(),
            process,
            _script: script,
        })
    }

    /// Ends the subscriber and removes its database.
    ///
    /// # Errors
    /// When the database stays.
    pub async fn stop(mut self) -> Result<(), BenchError> {
        self.process.kill().await.map_err(BenchError::Peer)?;
        while let Some(ended) = self.counting.join_next().await {
            ended?;
        }
        forget(&self.database).await
    }
}

async fn forget(database: &Database) -> Result<(), BenchError> {
    let drop = format!("drop database if exists {DATABASE} with (force)");
    database
        .run(&["set client_min_messages = error", &drop])
        .await
        .map(|_| ())
}

/// Each line is the number of rows committed so far.
async fn count(mut lines: Lines<BufReader<ChildStdout>>, rows: Arc<AtomicU64>) {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(count) = line.parse() {
            rows.store(count, Ordering::Relaxed);
        }
    }
}
