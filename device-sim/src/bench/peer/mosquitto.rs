//! A Mosquitto of our own, so that both servers are measured in one run on one machine.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::passwords;
use crate::{bench::BenchError, wire::Login};

/// How long it may take to listen.
const START: Duration = Duration::from_secs(5);

/// Whom it lets in.
#[derive(Debug, Clone, Copy)]
pub enum Access<'a> {
    /// Everybody.
    Open,
    /// These, each with its password; those without one are left out.
    Passwords(&'a [Login]),
}

/// What waits for a client that is slower than what comes for it.
#[derive(Debug, Clone, Copy)]
pub enum Queue {
    /// 1,000 messages, Mosquitto's default; more are dropped.
    Default,
    /// Everything: what is behind it is measured by what it can do, not by what is dropped before it.
    Unbounded {
        /// Messages that a client may have unacknowledged.
        in_flight: u16,
    },
}

/// A running Mosquitto; it ends when this is dropped.
#[derive(Debug)]
pub struct Mosquitto {
    addr: SocketAddr,
    process: Child,
    _files: TempDir,
}

impl Mosquitto {
    /// Starts `mosquitto` from the `PATH` on a free loopback port, without persistence. It logs what it logs by default,
    /// sessions among it as the server does, to a file. Its other limits are its defaults but for in-flight messages, of
    /// which a client may have 100 unless `queue` says otherwise.
    ///
    /// # Errors
    /// When it isn't installed or doesn't start.
    pub async fn start(access: Access<'_>, queue: Queue) -> Result<Self, BenchError> {
        let files = tempfile::tempdir().map_err(BenchError::Peer)?;
        // Free a moment ago; whoever else took it makes the start fail, and that is said.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let addr = port.map_err(BenchError::Peer)?;
        let users = match access {
            Access::Open => "allow_anonymous true".to_owned(),
            Access::Passwords(logins) => {
                let path = files.path().join("passwords");
                let users = logins.iter().filter_map(|login| {
                    let token = login.token.as_ref()?;
                    Some((login.serial.as_str(), token.reveal()))
                });
                std::fs::write(&path, passwords::file(users)).map_err(BenchError::Peer)?;
                format!("allow_anonymous false\npassword_file {}", path.display())
            }
        };
        let (queue, in_flight) = match queue {
            Queue::Default => (1000, 100),
            Queue::Unbounded { in_flight } => (0, in_flight),
        };
        // Started by root it would become another user, who can't read our files.
        let config = format!(
            "user root\nlistener {} 127.0.0.1\n{users}\npersistence false\nlog_dest file {}\n\
             max_inflight_messages {in_flight}\nmax_queued_messages {queue}\n",
            addr.port(),
            files.path().join("log").display(),
        );
        let path = files.path().join("mosquitto.conf");
        std::fs::write(&path, config).map_err(BenchError::Peer)?;
        let mut command = Command::new("mosquitto");
        // Debian keeps it out of an ordinary user's PATH.
        let search = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{search}:/usr/sbin:/usr/local/sbin"));
        let process = command
            .arg("-c")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(BenchError::Peer)?;
        let mut peer = Self {
            addr,
            process,
            _files: files,
        };
        peer.wait_until_it_listens().await.map_err(BenchError::Peer)?;
        Ok(peer)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process id, as long as it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    async fn wait_until_it_listens(&mut self) -> io::Result<()> {
        let until = Instant::now() + START;
        loop {
            match TcpStream::connect(self.addr).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
            if let Some(status) = self.process.try_wait()? {
                return Err(io::Error::other(format!("mosquitto ended at once: {status}")));
            }
        }
    }
}
