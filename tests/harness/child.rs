//! The server as a process of its own, with its embedded Postgres, for what only a process can show.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    sync::watch,
};

use super::{Device, api::Api, wait::within};

/// How a server process is started.
#[derive(Debug, Clone)]
pub struct Options {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Options {
    /// The program, on free ports.
    pub fn new(program: &str) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: vec![
                ("SETPOINT_HTTP__LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
                ("SETPOINT_MQTT__LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
                ("SETPOINT_MQTT__SHARDS".to_owned(), "4".to_owned()),
                // That what was answered is published is promised here however busy the machine is.
                ("SETPOINT_SETTINGS__PUBLISH_WAIT".to_owned(), "10s".to_owned()),
            ],
        }
    }

    /// With a command-line argument.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the program in `data`, its data directory, and waits for nothing.
    pub fn spawn(&self, data: &Path) -> Process {
        let mut command = Command::new(&self.program);
        // The tests' own settings of Postgres and Setpoint are not the server's.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("SETPOINT_") || name.starts_with("PG") || name == "DATABASE_URL" {
                command.env_remove(&*name);
            }
        }
        command
            .args(&self.arguments)
            .env("SETPOINT_DATA_DIR", data)
            .envs(self.environment.iter().cloned())
            .current_dir(data.parent().unwrap_or(data))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the program");
        let (shown, stdout) = watch::channel(Vec::new());
        collect(child.stdout.take().expect("stdout"), shown);
        let (told, stderr) = watch::channel(Vec::new());
        collect(child.stderr.take().expect("stderr"), told);
        Process {
            child,
            stdout,
            stderr,
        }
    }

    /// Starts a server on a fresh data directory and waits until it says where it is.
    pub async fn start(&self) -> Child {
        let home = tempfile::tempdir().expect("a directory");
        // Postgres runs as another user when the tests run as root, and has to pass through.
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
        let data = home.path().join("data");
        let mut child = Child {
            process: self.spawn(&data),
            options: self.clone(),
            home,
            api: Api::new(""),
            mqtt_port: 0,
        };
        child.ready().await;
        child
    }
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static, lines: watch::Sender<Vec<String>>) {
    let mut reader = BufReader::new(stream).lines();
    super::spawn(async move {
        while let Ok(Some(line)) = reader.next_line().await {
            lines.send_modify(|lines| lines.push(line));
        }
    });
}

/// A process of the server's program.
#[derive(Debug)]
pub struct Process {
    child: tokio::process::Child,
    stdout: watch::Receiver<Vec<String>>,
    stderr: watch::Receiver<Vec<String>>,
}

impl Process {
    /// What `find` finds among the lines on stdout, as soon as it is there.
    ///
    /// # Panics
    /// When the process ends before.
    pub async fn stdout<T>(&mut self, what: &str, mut find: impl FnMut(&[String]) -> Option<T>) -> T {
        let mut found = None;
        let looking = self.stdout.wait_for(|lines| {
            found = find(lines);
            found.is_some()
        });
        if within(what, looking).await.is_err() {
            panic!("the server ended before {what}: {:?}", self.stderr.borrow());
        }
        found.expect("what was looked for")
    }

    /// Waits for the end: the exit status, and the lines of stdout and stderr.
    pub async fn ended(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        let status = within("the process to end", self.child.wait())
            .await
            .expect("its end");
        let (stdout, stderr) = self.all_output().await;
        (status, stdout, stderr)
    }

    /// The lines of stdout and stderr of a process that has ended.
    async fn all_output(&mut self) -> (Vec<String>, Vec<String>) {
        // The collectors end with the pipes, which the process held alone.
        for lines in [&mut self.stdout, &mut self.stderr] {
            let closed = async { while lines.changed().await.is_ok() {} };
            within("the output to end", closed).await;
        }
        (self.stdout.borrow().clone(), self.stderr.borrow().clone())
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("a running process");
        kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("the signal");
    }
}

/// A server that runs, or ran, on a data directory of its own.
#[derive(Debug)]
pub struct Child {
    process: Process,
    options: Options,
    home: TempDir,
    /// REST with the administrator's token.
    pub api: Api,
    /// The MQTT port.
    pub mqtt_port: u16,
}

impl Child {
    async fn ready(&mut self) {
        let ports = self.process.stdout("where to reach it", |lines| {
            Some((port(lines, "http://")?, port(lines, "mqtt://")?))
        });
        let (http, mqtt) = ports.await;
        let token =
            std::fs::read_to_string(self.data().join("admin-token")).expect("the administrator's token");
        self.api = Api::new(format!("http://127.0.0.1:{http}")).with_token(token.trim());
        self.mqtt_port = mqtt;
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// What it printed on stdout so far.
    pub fn stdout(&self) -> Vec<String> {
        self.process.stdout.borrow().clone()
    }

    /// What it printed on stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.process.stderr.borrow().clone()
    }

    /// Creates a device.
    pub async fn device(&self, serial: &str) -> Device {
        Device::create(&self.api, self.mqtt_port, serial).await
    }

    /// Everything that the ended server said, on stdout and stderr.
    pub async fn output(&mut self) -> String {
        let (stdout, stderr) = self.process.all_output().await;
        [stdout, stderr].concat().join("\n")
    }

    /// The same device, as it is known after a restart.
    pub fn again(&self, device: &Device) -> Device {
        Device {
            api: self.api.clone(),
            mqtt_port: self.mqtt_port,
            ..device.clone()
        }
    }

    /// Kills it without notice.
    pub async fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        within("the killed server to end", self.process.child.wait())
            .await
            .expect("its end");
    }

    /// Tells it to stop, and waits for that.
    pub async fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.process.signal(signal);
        within("the server to stop", self.process.child.wait())
            .await
            .expect("its end")
    }

    /// Starts it again on its data directory, after it ended.
    pub async fn start_again(&mut self) {
        self.process = self.options.spawn(&self.data());
        self.ready().await;
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.child.id().expect("a running process")
    }

    /// Tells it to read its certificates again.
    pub fn hang_up(&self) {
        self.process.signal(Signal::SIGHUP);
    }

    /// The postmaster of its embedded Postgres.
    ///
    /// # Panics
    /// When there is none.
    pub fn postmaster(&self) -> i32 {
        self.try_postmaster().expect("a running Postgres")
    }

    /// The same, or `None` while there is none.
    pub fn try_postmaster(&self) -> Option<i32> {
        let file = self.data().join("postgres/data/postmaster.pid");
        let text = std::fs::read_to_string(file).ok()?;
        text.lines().next()?.trim().parse().ok()
    }
}

/// The port of the first address with `scheme` in the lines.
fn port(lines: &[String], scheme: &str) -> Option<u16> {
    lines.iter().find_map(|line| {
        let (_, rest) = line.split_once(scheme)?;
        let (_, rest) = rest.split_once(':')?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

/// Whether a process runs; one that ended and that nobody has waited for does not.
pub fn is_running(pid: i32) -> bool {
    match state(pid) {
        Some(state) => !matches!(state, b'Z' | b'X'),
        None => kill(Pid::from_raw(pid), None).is_ok() && !Path::new("/proc/self").exists(),
    }
}

/// The letter of a process's state; `None` if there is no such process.
fn state(pid: i32) -> Option<u8> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // It follows the name, which is in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.bytes().next()
}

/// Has a process stand still until it gets SIGCONT, and waits until it does.
pub async fn stop_process(pid: i32) {
    signal_process(pid, Signal::SIGSTOP);
    crate::eventually!(state(pid).is_none_or(|state| matches!(state, b'T' | b'Z' | b'X')));
}

/// Kills a process without notice.
pub fn kill_process(pid: i32) {
    signal_process(pid, Signal::SIGKILL);
}

/// Sends a process a signal; one that is gone is left alone.
pub fn signal_process(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("{signal} to {pid}: {error}"),
    }
}

/// The processes that a process started and that are still there.
pub fn children(pid: i32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").expect("/proc");
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter(|child| {
            // The parent comes second after the name, which is in parentheses and may hold anything.
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let parent = stat
                .rsplit_once(") ")
                .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok());
            parent == Some(pid)
        })
        .collect()
}
