//! Postgres's own log: read from its standard error into two files of bounded size, and shown at debug level.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// A log file is renamed to `postgres.log.1` at this size, in bytes, so both together stay below twice that.
const FILE_LIMIT: u64 = 4 << 20;

/// A longer line is broken, in bytes.
const LINE_LIMIT: u64 = 8192;

/// Lines kept for the message of a failed start.
const TAIL: usize = 20;

/// The last lines that Postgres wrote.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// The last complaint, without time and process; the last line if there is none.
    pub(super) fn complaint(&self) -> Option<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let complaint = lines.iter().rev().find_map(|line| {
            ["FATAL:", "PANIC:"]
                .iter()
                .find_map(|level| Some(line.split_once(level)?.1.trim().to_owned()))
        });
        complaint.or_else(|| lines.back().cloned())
    }
}

/// Copies until the other end is closed by the last process that has it. Runs on a thread of its own; a full
/// disk loses lines but never stops Postgres, which waits for a pipe that nobody reads.
pub(super) fn copy(stderr: impl Read, path: PathBuf, tail: &Tail) {
    let mut file = BoundedFile::new(path, FILE_LIMIT);
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match stderr.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        tracing::debug!(target: "postgres", "{text}");
        tail.push(text);
        file.write(&line);
    }
}

struct BoundedFile {
    path: PathBuf,
    limit: u64,
    file: Option<(File, u64)>,
}

impl BoundedFile {
    fn new(path: PathBuf, limit: u64) -> Self {
        let file = Self::open(&path);
        Self { path, limit, file }
    }

    fn open(path: &Path) -> Option<(File, u64)> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .ok()?;
        let size = file.metadata().ok()?.len();
        Some((file, size))
    }

    fn write(&mut self, line: &[u8]) {
        let added = u64::try_from(line.len()).unwrap_or(0);
        if self
            .file
            .as_ref()
            .is_none_or(|(_, size)| size + added > self.limit)
        {
            self.file = None;
            let earlier = self.path.with_extension("log.1");
            if fs::metadata(&self.path).is_ok_and(|meta| meta.len() + added > self.limit) {
                // When it cannot be renamed it goes on growing by nothing: the line below is not written.
                if fs::rename(&self.path, earlier).is_err() {
                    return;
                }
            }
            self.file = Self::open(&self.path);
        }
        if let Some((file, size)) = &mut self.file {
            if file.write_all(line).is_ok() {
                *size += added;
            } else {
                self.file = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_stay_bounded_and_keep_the_newest_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postgres.log");
        let mut file = BoundedFile::new(path.clone(), 100);
        for n in 0..100 {
            file.write(format!("line {n:03}\n").as_bytes());
        }
        drop(file);
        let newest = fs::read_to_string(&path).unwrap();
        let earlier = fs::read_to_string(path.with_extension("log.1")).unwrap();
        assert!(newest.len() <= 100 && earlier.len() <= 100);
        assert!(newest.ends_with("line 099\n"));
        assert_eq!((earlier + &newest).lines().last(), Some("line 099"));
    }

    #[test]
    fn the_complaint_is_the_last_fatal_line() {
        let dir = tempfile::tempdir().unwrap();
        let tail = Tail::default();
        let text = "12:00 [7] LOG:  starting\n12:00 [7] FATAL:  data directory has wrong ownership\n12:00 [7] HINT:  x\n";
        copy(text.as_bytes(), dir.path().join("postgres.log"), &tail);
        assert_eq!(
            tail.complaint().as_deref(),
            Some("data directory has wrong ownership")
        );
        assert_eq!(fs::read_to_string(dir.path().join("postgres.log")).unwrap(), text);
    }
}
