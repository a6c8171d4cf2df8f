//! The server's Postgres, for what is measured in it: through `psql`, since this program speaks no SQL itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;
use url::Url;

use crate::bench::BenchError;

/// The line of `postmaster.pid` that holds the directory of the socket, counted from nought.
const SOCKET_LINE: usize = 4;

/// A database and how to reach it.
#[derive(Debug, Clone)]
pub struct Database {
    url: Url,
}

impl Database {
    /// The database at `url`, or else the one that a server runs under this data directory.
    ///
    /// # Errors
    /// When there is neither.
    pub fn find(url: Option<&Url>, data_dir: &Path) -> Result<Self, BenchError> {
        if let Some(url) = url {
            return Ok(Self { url: url.clone() });
        }
        let file = data_dir.join("postgres/data/postmaster.pid");
        let none = |why: &str| {
            let file = file.display();
            BenchError::Options(format!(
                "no database: give --database or --data-dir, since {file} {why}"
            ))
        };
        let text = fs::read_to_string(&file).map_err(|error| none(&format!("can't be read: {error}")))?;
        let socket = text.lines().nth(SOCKET_LINE).filter(|line| !line.is_empty());
        let socket = socket.ok_or_else(|| none("names no socket"))?;
        let mut url =
            Url::parse("postgres://postgres@localhost/setpoint").map_err(|error| none(&error.to_string()))?;
        url.query_pairs_mut().append_pair("host", socket);
        Ok(Self { url })
    }

    /// Another database of the same server.
    pub fn named(&self, name: &str) -> Self {
        let mut url = self.url.clone();
        url.set_path(name);
        Self { url }
    }

    /// As PostgreSQL's own programs take it.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Runs statements one after another, each on its own, and returns what they print, without headings.
    ///
    /// # Errors
    /// When `psql` isn't there, or one of them fails.
    pub async fn run(&self, statements: &[&str]) -> Result<String, BenchError> {
        let mut command = Command::new("psql");
        // Embedded ones bring their programs with them; otherwise they are in the PATH.
        command
            .arg("-XqAt")
            .args(["-v", "ON_ERROR_STOP=1", "-d", self.url()]);
        for statement in statements {
            command.args(["-c", statement]);
        }
        let output = command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a file into a table with COPY, takes the rows back, and says how long the COPY took. `columns` is the table
    /// with its columns; the file is in COPY's binary format.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn copy_and_take_back(&self, columns: &str, file: &Path) -> Result<Duration, BenchError> {
        let copy = format!(
            "\\copy {columns} from '{}' with (format binary)",
            PathBuf::from(file).display()
        );
        let printed = self
            .run(&[
                "checkpoint",
                "begin",
                "\\timing on",
                &copy,
                "\\timing off",
                "rollback",
            ])
            .await?;
        took(&printed).ok_or_else(|| failed(format!("no time of the COPY in: {}", printed.trim())))
    }
}

/// `Time: 1234.567 ms (00:01.235)`.
fn took(printed: &str) -> Option<Duration> {
    let line = printed.lines().find_map(|line| line.strip_prefix("Time: "))?;
    let milliseconds: f64 = line.split(' ').next()?.parse().ok()?;
    Duration::try_from_secs_f64(milliseconds / 1e3).ok()
}

fn failed(message: String) -> BenchError {
    BenchError::Program {
        program: "psql".to_owned(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_copy_is_read() {
        assert_eq!(
            took("COPY 5\nTime: 1500.000 ms (00:01.500)\n"),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(took("Time: 0.250 ms\n"), Some(Duration::from_micros(250)));
        assert_eq!(took("COPY 5\n"), None);
    }

    #[test]
    fn an_embedded_one_is_found_by_its_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let error = Database::find(None, dir.path()).unwrap_err();
        assert!(error.to_string().contains("--data-dir"), "{error}");
        let data = dir.path().join("postgres/data");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("postmaster.pid"), "7\n/x\n1\n5432\n/tmp/a socket\n\n").unwrap();
        let found = Database::find(None, dir.path()).unwrap();
        assert_eq!(
            found.url(),
            "postgres://postgres@localhost/setpoint?host=%2Ftmp%2Fa+socket"
        );
        assert_eq!(
            found.named("other").url(),
            "postgres://postgres@localhost/other?host=%2Ftmp%2Fa+socket"
        );
    }
}
