//! Starting Postgres's programs: as the right user, with a clean environment, and not outliving us.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use super::{
    account::{self, Account},
    binaries::Binaries,
};

/// What Postgres's programs get of our environment. The rest may hold our secrets, and its `PG*` variables are
/// meant for clients of some other server.
const KEPT: [&str; 6] = [
    "PATH",
    "TMPDIR",
    "TZDIR",
    "LD_LIBRARY_PATH",
    "LOCPATH",
    "LOCALE_ARCHIVE",
];

/// A program of PostgreSQL, in a process group of its own, so that Ctrl-C in a terminal reaches us alone.
pub(crate) fn command(program: &Path, account: Option<&Account>) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    let kept = KEPT
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.env_clear().envs(kept).env("LC_ALL", "C");
    command.current_dir("/").stdin(Stdio::null()).process_group(0);
    if let Some(account) = account {
        account::assume(&mut command, account);
    }
    command
}

/// Has the kernel send `signal` to the process when the *thread* that spawns it ends, however we end. So the
/// spawning thread has to wait for the process.
#[cfg(target_os = "linux")]
pub(crate) fn end_with_us(command: &mut Command, signal: Signal) {
    use std::{io, os::unix::process::CommandExt};

    use nix::unistd::{getpid, getppid};

    let parent = getpid();
    #[expect(
        unsafe_code,
        reason = "the only way to make system calls between fork and exec"
    )]
    // SAFETY: the closure runs in the forked child, after the change of user (which would clear the setting).
    // It makes two async-signal-safe system calls, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(signal)?;
            // We may have been killed before the setting took effect.
            if getppid() == parent {
                Ok(())
            } else {
                Err(io::Error::from(nix::errno::Errno::ESRCH))
            }
        });
    }
}

/// Elsewhere the kernel has no such setting: [`super::guard`] watches instead.
#[cfg(not(target_os = "linux"))]
pub(crate) fn end_with_us(_: &mut Command, _: Signal) {}

/// Everything that starts `postgres` on a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) binaries: Binaries,
    pub(crate) account: Option<Account>,
    pub(crate) data: PathBuf,
    /// Where the socket is: a directory that nobody else can enter, since whoever reaches it is let in.
    pub(crate) socket: PathBuf,
    /// Settings, in `postgresql.conf`'s names.
    pub(crate) settings: Vec<(String, String)>,
}

impl Launch {
    /// The command line. Standard error is the caller's to set.
    pub(crate) fn command(&self) -> Command {
        let mut command = command(&self.binaries.program("postgres"), self.account.as_ref());
        command.arg("-D").arg(&self.data).arg("-k").arg(&self.socket);
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdout(Stdio::null());
        command
    }
}
