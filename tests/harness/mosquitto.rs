//! Mosquitto's command-line clients: a peer that others wrote.

use std::{path::PathBuf, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::{
    mqtt::{Message, Version},
    wait::within,
};

/// Who a client says it is.
#[derive(Debug, Clone)]
pub struct Login {
    /// `-u`; empty for none, and no password either.
    pub username: String,
    /// `-P`.
    pub password: String,
    /// `-i`.
    pub client_id: String,
}

/// A running `mosquitto_sub`; it is killed when dropped.
#[derive(Debug)]
pub struct Sub {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/bin")])
        .map(|folder| folder.join(name));
    found
        .into_iter()
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed; on Debian: apt-get install mosquitto-clients"))
}

fn command(name: &str, port: u16, version: Version, login: &Login) -> Command {
    let mut command = Command::new(program(name));
    let version = match version {
        Version::V3 => "mqttv311",
        Version::V5 => "mqttv5",
    };
    command
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", version])
        .args(["-i", &login.client_id])
        .env_remove("XDG_CONFIG_HOME")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    // A certificate needs neither.
    if !login.username.is_empty() {
        command.args(["-u", &login.username, "-P", &login.password]);
    }
    command
}

/// Starts `mosquitto_sub` on `filter` at QoS 1; `more` are further arguments.
pub fn sub(port: u16, version: Version, login: &Login, filter: &str, more: &[&str]) -> Sub {
    let mut command = command("mosquitto_sub", port, version, login);
    command
        .args(["-q", "1", "-t", filter, "-F", "%r %q %t %p"])
        .args(more);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mosquitto_sub");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    Sub { child, lines }
}

impl Sub {
    /// The next message.
    ///
    /// # Panics
    /// When none comes, or the program ends.
    pub async fn next(&mut self) -> Message {
        let line = within("a line of mosquitto_sub", self.lines.next_line()).await;
        let line = line
            .expect("its output")
            .expect("mosquitto_sub ended without a message");
        let mut parts = line.splitn(4, ' ');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        Message {
            retain: part() == "1",
            qos: part().parse().expect("a QoS"),
            topic: part(),
            payload: part().into_bytes().into(),
            correlation: None,
        }
    }

    /// The payload of the next message, which must be on `topic`.
    pub async fn next_on(&mut self, topic: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message.topic, topic);
        message.json()
    }

    /// Waits for its end: the exit code and what it printed to stderr.
    pub async fn ended(self) -> (Option<i32>, String) {
        let output = within("mosquitto_sub to end", self.child.wait_with_output()).await;
        let output = output.expect("its end");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// Ends it with a DISCONNECT.
    pub async fn stop(mut self) {
        let pid =
            nix::unistd::Pid::from_raw(i32::try_from(self.child.id().expect("running")).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("SIGTERM");
        within("mosquitto_sub to end", self.child.wait())
            .await
            .expect("its end");
    }
}

/// Runs `mosquitto_pub` to its end: the exit code and what it printed.
pub async fn publish(
    port: u16,
    version: Version,
    login: &Login,
    topic: &str,
    payload: &str,
    more: &[&str],
) -> (Option<i32>, String) {
    let mut command = command("mosquitto_pub", port, version, login);
    command.args(["-q", "1", "-t", topic, "-m", payload]).args(more);
    let output = within("mosquitto_pub to end", command.output()).await;
    let output = output.expect("mosquitto_pub");
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    (output.status.code(), text)
}
