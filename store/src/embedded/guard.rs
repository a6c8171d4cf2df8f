//! A small shell process that ends a Postgres after the process it depends on is gone, however that went.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
};

/// Polls the watched process once a second. A process id that was reused, and a zombie that nobody reaps, count
/// as gone. Then signals the postmaster that `postmaster.pid` names, waits for it, and removes the directory
/// given last, if any.
const SCRIPT: &str = r#"
watched=$1 data=$2 signal=$3 remove=$4
born() {
  if [ -r "/proc/$1/stat" ]; then
    read -r line 2>/dev/null < "/proc/$1/stat" || return
    set -- ${line##*) }
    [ "$1" = Z ] || echo "${20}"
  elif [ ! -d /proc/self ]; then
    ps -o lstart= -p "$1" 2>/dev/null
  fi
}
birth=$(born "$watched")
while [ -n "$birth" ] && [ "$(born "$watched")" = "$birth" ]; do sleep 1; done
if read -r pid 2>/dev/null < "$data/postmaster.pid" && kill -"$signal" "$pid" 2>/dev/null; then
  tries=0
  while [ -n "$(born "$pid")" ] && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
fi
[ -z "$remove" ] || rm -rf "$remove" "$remove.lock"
"#;

/// Starts the guard in a process group of its own, with nothing of ours open.
pub(crate) fn spawn(watched: u32, data: &Path, signal: &str, remove: Option<&Path>) -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    let mut guard = Command::new("/bin/sh");
    guard
        .args(["-c", SCRIPT, "setpoint-postgres-guard", &watched.to_string()])
        .arg(data)
        .arg(signal);
    guard.arg(remove.unwrap_or(Path::new("")));
    guard
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    guard.process_group(0).spawn().map(drop)
}
