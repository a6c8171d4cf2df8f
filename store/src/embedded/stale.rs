//! What an earlier Postgres left behind on our cluster: processes that are still ending, and lock files that
//! name processes which are gone.

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::Error;

/// How long the old processes may take to end by themselves. They have been told to already: by the kernel when
/// our predecessor was killed, or by their own postmaster's death.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after that, once told again.
const LAST_PATIENCE: Duration = Duration::from_secs(25);

/// Waits until no Postgres process works in `data`, then removes the lock files. The caller holds our own lock,
/// so nobody starts a new one meanwhile.
///
/// Postgres would judge by whether the process named in `postmaster.pid` exists. In a container an unreaped
/// zombie or a reused id keeps that true for good; and removing the file while a backend still lives would
/// damage the data. The processes' working directories tell for certain.
#[cfg(target_os = "linux")]
pub(super) fn clear(data: &Path, socket: &Path) -> Result<(), Error> {
    use super::cluster::SOCKET_NAME;
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    let began = Instant::now();
    let mut told = None;
    loop {
        let running = processes_in(data);
        let Some(pid) = running.first() else { break };
        let patience = match told {
            None => PATIENCE,
            Some(Signal::SIGINT) => PATIENCE + LAST_PATIENCE,
            Some(_) => PATIENCE + 2 * LAST_PATIENCE,
        };
        if began.elapsed() > patience {
            let signal = match told {
                None => Signal::SIGINT,
                Some(Signal::SIGINT) => Signal::SIGQUIT,
                Some(_) => {
                    return Err(Error::Busy {
                        data: data.to_owned(),
                        pid: *pid,
                    });
                }
            };
            tracing::warn!(pid, %signal, "a Postgres of an earlier run does not end: telling it to");
            for pid in running {
                // It may have ended since we looked.
                let _ = kill(Pid::from_raw(pid), signal);
            }
            told = Some(signal);
        }
        thread::sleep(Duration::from_millis(5));
    }
    for file in [
        data.join("postmaster.pid"),
        socket.join(format!("{SOCKET_NAME}.lock")),
    ] {
        match fs::remove_file(&file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io {
                    action: "cannot remove",
                    path: file,
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The processes called `postgres` that work in a directory: the postmaster and its children all do. A shell
/// that somebody left there does not count, nor does a zombie, which has no directory.
#[cfg(target_os = "linux")]
fn processes_in(dir: &Path) -> Vec<i32> {
    use std::os::unix::fs::MetadataExt;

    let Ok(wanted) = fs::metadata(dir) else {
        return Vec::new();
    };
    let is_there = |process: &Path| {
        let same = fs::metadata(process.join("cwd"))
            .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()));
        same && fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == "postgres")
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            is_there(&entry.path()).then_some(pid)
        })
        .collect()
}

/// Without `/proc` Postgres's own check has to do: wait until the process it would find is gone.
#[cfg(not(target_os = "linux"))]
pub(super) fn clear(data: &Path, _: &Path) -> Result<(), Error> {
    use nix::{sys::signal::kill, unistd::Pid};

    let began = Instant::now();
    loop {
        let text = match fs::read_to_string(data.join("postmaster.pid")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                return Err(Error::Io {
                    action: "cannot read",
                    path: data.to_owned(),
                    source,
                });
            }
        };
        let Some(pid) = text.lines().next().and_then(|pid| pid.trim().parse().ok()) else {
            return Ok(());
        };
        if kill(Pid::from_raw(pid), None).is_err() {
            return Ok(());
        }
        if began.elapsed() > PATIENCE + LAST_PATIENCE {
            return Err(Error::Busy {
                data: data.to_owned(),
                pid,
            });
        }
        thread::sleep(Duration::from_millis(20));
    }
}
