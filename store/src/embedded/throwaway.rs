//! A cluster for one test run: fast rather than safe, shared by the run's processes, gone when the run is.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::LazyLock,
};

use nix::unistd::Uid;

use super::{
    Error, Fetch,
    account::Account,
    binaries::{self, Search},
    cluster::{self, SOCKET_NAME},
    connect_options,
    error::Describe,
    guard,
    process::Launch,
};
use crate::database::ConnectOptions;

/// Free memory, in bytes, from which on `/dev/shm` is used: a cluster and the databases of the tests under way
/// take some 300 MB.
#[cfg(target_os = "linux")]
const ROOMY: u64 = 2 << 30;

/// Where throwaway files go: in memory where there is room, which makes a database several times faster than on
/// a disk that is slow to create files; else `/tmp`. Not the system's directory for temporary files: a socket's
/// path has to be short.
pub(crate) fn base_directory() -> &'static Path {
    static BASE: LazyLock<&Path> = LazyLock::new(|| {
        #[cfg(target_os = "linux")]
        if let Ok(memory) = nix::sys::statvfs::statvfs("/dev/shm")
            && memory.blocks_available() * memory.fragment_size() >= ROOMY
        {
            return Path::new("/dev/shm");
        }
        Path::new("/tmp")
    });
    *BASE
}

/// Starts the cluster in `dir`, unless another process of the same run has done so, and returns how to connect
/// to its database `postgres`. It ends, and the directory goes, after the process `runner` has ended. Blocks.
pub(crate) fn start(dir: &Path, runner: u32) -> Result<ConnectOptions, Error> {
    let lock_path = PathBuf::from(format!("{}.lock", dir.display()));
    // The name can be guessed and the directory is everybody's, so follow no link.
    let mut open = OpenOptions::new();
    open.write(true)
        .create(true)
        .truncate(false)
        .custom_flags(nix::libc::O_NOFOLLOW);
    let lock = open.open(&lock_path).describe("cannot create", &lock_path)?;
    // Freed when `lock` is dropped: the run's other processes wait here until the cluster is up.
    lock.lock().describe("cannot lock", &lock_path)?;
    if UnixStream::connect(dir.join(SOCKET_NAME)).is_err() {
        start_new(dir, runner)?;
    }
    Ok(connect_options(dir, "postgres"))
}

fn start_new(dir: &Path, runner: u32) -> Result<(), Error> {
    let account = Account::choose(dir)?;
    cluster::shared_parent_directory(dir, account.as_ref())?;
    let data = dir.join("data");
    // First of all, so that nothing stays even if the run is killed right now. A Postgres whose directory the
    // guard has removed ends by itself.
    guard::spawn(runner, &data, "QUIT", Some(dir)).describe("cannot run", "/bin/sh")?;
    let cache = PathBuf::from(format!("/tmp/setpoint-test-{}-binaries", Uid::effective()));
    let binaries = binaries::find(None, Fetch::IfMissing, &Search::system(), &cache, &data, None)?;
    cluster::initdb(&data, &binaries, account.as_ref(), "C", &["--no-sync"])?;
    let settings = [
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        ("fsync", "off"),
        ("synchronous_commit", "off"),
        ("full_page_writes", "off"),
        ("wal_level", "minimal"),
        ("max_wal_senders", "0"),
        ("autovacuum", "off"),
        ("checkpoint_timeout", "1h"),
        ("max_wal_size", "128MB"),
        ("max_connections", "500"),
        ("max_parallel_workers_per_gather", "0"),
        ("jit", "off"),
        ("timezone", "UTC"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let log_path = dir.join("postgres.log");
    let log = File::create(&log_path).describe("cannot create", &log_path)?;
    let launch = Launch {
        binaries,
        account,
        data: data.clone(),
        socket: dir.to_owned(),
        settings,
    };
    let mut command = launch.command();
    command.stderr(log);
    // It outlives this process: others of the same run use it.
    let mut postgres = command
        .stdin(Stdio::null())
        .spawn()
        .describe("cannot run", "postgres")?;
    // Listening is enough: a connection that comes before the start is complete is tried again.
    loop {
        if UnixStream::connect(dir.join(SOCKET_NAME)).is_ok() {
            return Ok(());
        }
        if let Some(status) = postgres.try_wait().describe("cannot wait for", "postgres")? {
            let text = fs::read_to_string(&log_path).unwrap_or_default();
            return Err(Error::Ended {
                reason: text.lines().last().map_or(status.to_string(), str::to_owned),
            });
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
