//! The cluster's place on disk: `{data_dir}/postgres` with the lock, the data, the socket and the log.
//!
//! When we are root, Postgres's user owns `data` and `run` alone. The directory around them stays ours, so
//! nothing that root writes to can be swapped for a link by that user.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::{sys::signal::Signal, unistd::Uid};
use sha2::{Digest, Sha256};

use super::{
    Error,
    account::{self, Account},
    binaries::Binaries,
    error::Describe,
    process,
};

/// The longest path of a socket that every system takes (macOS: 104 bytes with the final NUL).
const SOCKET_PATH_LIMIT: usize = 103;

/// The name that Postgres gives its socket.
pub(super) const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// The directories of one cluster. All paths are absolute and free of symlinks.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) home: PathBuf,
    /// The cluster proper.
    pub(crate) data: PathBuf,
    /// Where `initdb` works; renamed to `data` when complete.
    unfinished: PathBuf,
    /// Programs fetched with npm.
    pub(crate) binaries: PathBuf,
    pub(crate) log: PathBuf,
}

impl Home {
    /// Makes `{data_dir}/postgres` if need be.
    pub(crate) fn create(data_dir: &Path) -> Result<Self, Error> {
        let home = data_dir.join("postgres");
        account::passable_directory(&home)?;
        let home = fs::canonicalize(&home).describe("cannot resolve", home)?;
        Ok(Self {
            data: home.join("data"),
            unfinished: home.join("data.new"),
            binaries: home.join("binaries"),
            log: home.join("postgres.log"),
            home,
        })
    }

    /// Takes the lock that one server holds for as long as it runs. The kernel frees it however that ends.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        let path = self.home.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .describe("cannot open", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Without a number the message names no process.
                let _ = file.read_to_string(&mut holder);
                return Err(Error::Locked {
                    home: self.home.clone(),
                    pid: holder.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(error).describe("cannot lock", path),
        }
        file.rewind()
            .and_then(|()| file.set_len(0))
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .describe("cannot write", path)?;
        Ok(file)
    }

    /// The major version that made the data; `None` when there are none yet.
    pub(crate) fn made_by(&self) -> Result<Option<u32>, Error> {
        let path = self.data.join("PG_VERSION");
        match fs::read_to_string(&path) {
            // Before 10 the text was "9.6": far too old, but it names the major version that is needed.
            Ok(text) => Ok(text.trim().split('.').next().and_then(|major| major.parse().ok())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let empty = fs::read_dir(&self.data).map_or(true, |mut entries| entries.next().is_none());
                if empty {
                    Ok(None)
                } else {
                    Err(Error::NotACluster {
                        data: self.data.clone(),
                    })
                }
            }
            Err(error) => Err(error).describe("cannot read", path),
        }
    }

    /// Makes the cluster. Killed at any moment it leaves either nothing but a directory that the next start
    /// removes, or the whole.
    pub(crate) fn initialize(&self, binaries: &Binaries, account: Option<&Account>) -> Result<(), Error> {
        // The C.UTF-8 of a system without it is C: texts then sort by bytes all the same.
        let first = initdb(&self.unfinished, binaries, account, "C.UTF-8", &[]);
        first.or_else(|_| initdb(&self.unfinished, binaries, account, "C", &[]))?;
        fs::rename(&self.unfinished, &self.data).describe("cannot rename to", &self.data)?;
        File::open(&self.home)
            .and_then(|home| home.sync_all())
            .describe("cannot sync", &self.home)
    }

    /// The directory for the socket: `run` beside the data, or one under the system's directory for temporary
    /// files when that path would be too long for a socket.
    pub(crate) fn socket_directory(&self, account: Option<&Account>) -> Result<PathBuf, Error> {
        let beside = self.home.join("run");
        if fits_a_socket(&beside) {
            account::private_directory(&beside, account)?;
            return Ok(beside);
        }
        let hash = Sha256::digest(self.home.as_os_str().as_encoded_bytes());
        let name: String = std::iter::once("setpoint-".to_owned())
            .chain(hash.iter().take(8).map(|b| format!("{b:02x}")))
            .collect();
        let short = [std::env::temp_dir(), PathBuf::from("/tmp")]
            .into_iter()
            .map(|dir| dir.join(&name))
            .find(|dir| fits_a_socket(dir))
            .unwrap_or(beside);
        shared_parent_directory(&short, account)?;
        Ok(short)
    }
}

fn fits_a_socket(dir: &Path) -> bool {
    dir.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_LIMIT
}

/// A private directory where others may write as well: one that is there already has to be a directory, not a
/// link, and ours.
pub(crate) fn shared_parent_directory(dir: &Path, account: Option<&Account>) -> Result<(), Error> {
    let ours = [
        Uid::effective().as_raw(),
        account.map_or(Uid::effective(), |account| account.uid).as_raw(),
    ];
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(dir).describe("cannot read", dir)?;
            if !meta.is_dir() || !ours.contains(&meta.uid()) {
                return Err(error).describe("somebody else has", dir);
            }
        }
        created => created.describe("cannot create", dir)?,
    }
    account::private_directory(dir, account)
}

/// Runs `initdb` into a directory that is emptied first.
pub(crate) fn initdb(
    data: &Path,
    binaries: &Binaries,
    account: Option<&Account>,
    locale: &str,
    more: &[&str],
) -> Result<(), Error> {
    match fs::remove_dir_all(data) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).describe("cannot remove", data);
        }
        _ => account::private_directory(data, account)?,
    }
    let program = binaries.program("initdb");
    let mut command = process::command(&program, account);
    command.args([
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--data-checksums",
    ]);
    command
        .args(["--no-instructions", &format!("--locale={locale}")])
        .args(more)
        .arg("-D")
        .arg(data);
    process::end_with_us(&mut command, Signal::SIGKILL);
    let output = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .describe("cannot run", program)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let complaint = text
        .lines()
        .find(|line| line.contains("error:") || line.contains("FATAL:"));
    let output = complaint
        .or(text.lines().last())
        .unwrap_or("no message")
        .trim()
        .to_owned();
    Err(Error::Initdb { output })
}
