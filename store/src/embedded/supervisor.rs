//! One thread that starts Postgres, waits for it, and starts it again should it end unbidden.

use std::{
    io,
    path::PathBuf,
    process::{Child, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::sync::watch;

use super::{
    log::{self, Tail},
    process::{self, Launch},
    stale,
};

/// The first pause before a restart; each further one is twice as long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A run of this length makes the next pause short again.
const GOOD_RUN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct State {
    /// The running postmaster. Set while its id cannot belong to any other process.
    pid: Option<Pid>,
    /// It has accepted connections once: from now on it is restarted.
    ready: bool,
    /// It was told to end.
    stopping: bool,
}

/// The handle to the thread.
#[derive(Debug)]
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    /// Why the thread is done: Postgres was told to end, or never got as far as accepting connections.
    ended: watch::Receiver<Option<String>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the thread from the pause before a restart.
    stop: Condvar,
    tail: Tail,
    log: PathBuf,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervisor {
    /// Starts the thread, and Postgres on it.
    pub(super) fn start(launch: Launch, log: PathBuf) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            stop: Condvar::new(),
            tail: Tail::default(),
            log,
        });
        let (sender, ended) = watch::channel(None);
        let on_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || {
                let reason = run(&on_thread, &launch);
                sender.send_replace(Some(reason));
            })?;
        Ok(Self { shared, ended })
    }

    /// Postgres accepts connections: from now on it is restarted when it ends.
    pub(super) fn mark_ready(&self) {
        self.shared.state().ready = true;
    }

    /// The running postmaster's process id.
    pub(super) fn pid(&self) -> Option<i32> {
        self.shared.state().pid.map(Pid::as_raw)
    }

    /// Tells Postgres to end: SIGINT breaks off sessions and writes a checkpoint, SIGQUIT does not.
    pub(super) fn tell(&self, signal: Signal) {
        let mut state = self.shared.state();
        state.stopping = true;
        if let Some(pid) = state.pid {
            // The only failure is that it has just ended.
            let _ = kill(pid, signal);
        }
        drop(state);
        self.shared.stop.notify_all();
    }

    /// Waits for the thread's end and says why.
    pub(super) async fn ended(&self) -> String {
        let reason = self
            .ended
            .clone()
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| "its supervisor ended".to_owned())
    }
}

impl Drop for Supervisor {
    /// The thread goes on until Postgres has ended, unless the whole process ends: then the kernel tells it.
    fn drop(&mut self) {
        self.tell(Signal::SIGINT);
    }
}

/// The thread. Returns why Postgres ended for good.
fn run(shared: &Shared, launch: &Launch) -> String {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let began = Instant::now();
        let reason = match run_once(shared, launch) {
            Ok(reason) => reason,
            Err(error) => error.to_string(),
        };
        if began.elapsed() > GOOD_RUN {
            pause = SHORTEST_PAUSE;
        }
        let state = shared.state();
        if state.stopping || !state.ready {
            return reason;
        }
        tracing::error!(reason, ?pause, "Postgres ended unexpectedly: restarting it");
        let waited = shared
            .stop
            .wait_timeout_while(state, pause, |state| !state.stopping);
        if waited.unwrap_or_else(PoisonError::into_inner).0.stopping {
            return reason;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        // The old one's children end by themselves when they notice; starting before that would be refused.
        if let Err(error) = stale::clear(&launch.data, &launch.socket) {
            tracing::error!(%error, "waiting for the rest of the old Postgres");
        }
    }
}

/// One run of Postgres, from start to end. Returns how it ended.
fn run_once(shared: &Shared, launch: &Launch) -> io::Result<String> {
    let mut command = launch.command();
    process::end_with_us(&mut command, Signal::SIGINT);
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
    let log_ended = follow_log(shared, &mut child);
    #[cfg(not(target_os = "linux"))]
    if let Err(error) = super::guard::spawn(std::process::id(), &launch.data, "INT", None) {
        tracing::warn!(%error, "nothing will end Postgres if this server is killed");
    }
    {
        let mut state = shared.state();
        state.pid = Some(pid);
        if state.stopping {
            // Told while it was starting.
            let _ = kill(pid, Signal::SIGINT);
        }
    }
    wait_for_exit(&mut child, pid);
    let status = {
        // Reaped under the lock, so that `tell` never signals an id that is no longer ours.
        let mut state = shared.state();
        state.pid = None;
        child.wait()?
    };
    // Its last lines are in the pipe. Orphaned children may hold the pipe open a little longer.
    let _ = log_ended.recv_timeout(Duration::from_millis(500));
    Ok(match shared.tail.complaint() {
        Some(complaint) if !status.success() => complaint,
        _ => status.to_string(),
    })
}

/// Waits without reaping, so that the id stays ours.
#[cfg(target_os = "linux")]
fn wait_for_exit(_: &mut Child, pid: Pid) {
    use nix::{
        errno::Errno,
        sys::wait::{Id, WaitPidFlag, waitid},
    };
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
}

/// Where there is no such call, the child is reaped a moment before the lock is taken.
#[cfg(not(target_os = "linux"))]
fn wait_for_exit(child: &mut Child, _: Pid) {
    // The status is kept for the second call.
    let _ = child.wait();
}

/// Reads Postgres's log on a thread of its own. The receiver hears when it ends.
fn follow_log(shared: &Shared, child: &mut Child) -> mpsc::Receiver<()> {
    let (ended, receiver) = mpsc::sync_channel(1);
    if let Some(stderr) = child.stderr.take() {
        let (path, tail) = (shared.log.clone(), shared.tail.clone());
        let spawned = thread::Builder::new()
            .name("postgres-log".to_owned())
            .spawn(move || {
                log::copy(stderr, path, &tail);
                // Nobody may be waiting any more.
                let _ = ended.send(());
            });
        if let Err(error) = spawned {
            tracing::error!(%error, "Postgres's log cannot be read");
        }
    }
    receiver
}
