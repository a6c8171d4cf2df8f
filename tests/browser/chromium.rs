//! A headless Chromium with a profile of its own.

use std::{path::PathBuf, process::Stdio};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// A browser with one page. It and all its helpers are killed when it is dropped.
pub(crate) struct Chromium {
    child: Child,
    profile: TempDir,
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut files = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    files.find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("Chromium is not installed: run .ci/tools; on Debian: apt-get install chromium")
    })
}

impl Chromium {
    /// Opens a page.
    pub(crate) fn open(address: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(profile.path().join("log")).unwrap();
        let child = Command::new(program())
            // The tests may run as root, where its sandbox doesn't work; the page is ours.
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--no-default-browser-check",
                "--disable-extensions",
            ])
            .args([
                "--disable-background-networking",
                "--disable-sync",
                "--no-proxy-server",
            ])
            // For whoever drives it: a port of its own, told in a file.
            .arg("--remote-debugging-port=0")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(address)
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, profile }
    }

    /// Where it can be driven, once it is up.
    pub(crate) fn debugging_port(&self) -> Option<u16> {
        let told = std::fs::read_to_string(self.profile.path().join("DevToolsActivePort")).ok()?;
        told.lines().next()?.parse().ok()
    }

    /// What it complained about.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.profile.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let group = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = group {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}
