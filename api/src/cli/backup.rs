//! `setpoint backup` and `setpoint restore`: PostgreSQL's own programs, pointed at the right database.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use percent_encoding::percent_decode_str;
use setpoint_store::{
    ConnectOptions, EMPTY_SQL, Store,
    embedded::{self, Embedded, EmbeddedConfig},
};
use tokio::{io::AsyncWriteExt, process::Command};

use super::{Failure, output};
use crate::{config::Config, server};

/// How long the database may take to answer.
const WITHIN: Duration = Duration::from_secs(5);

/// Writes everything into one file, also while the server runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  setpoint backup setpoint-monday.dump\n\n\
    Needs pg_dump of the database's major version. The file holds no password and no token in clear, but all else.")]
pub(super) struct BackupArgs {
    /// The file; it must not be there yet.
    file: PathBuf,
}

/// Replaces everything by what a file of `backup` holds; the server must be stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  setpoint restore --yes setpoint-monday.dump\n\n\
    Needs pg_restore and psql of the database's major version. All of it happens, or nothing.")]
pub(super) struct RestoreArgs {
    /// A file that `setpoint backup` wrote.
    file: PathBuf,
    /// Yes, everything that is in the database now may go.
    #[arg(long, required = true)]
    yes: bool,
}

/// The database that is dumped or filled, with the embedded Postgres that was started for it.
struct Target {
    url: String,
    embedded: Option<Embedded>,
}

impl Target {
    async fn of(config: &Config) -> Result<Self, Failure> {
        if let Some(url) = &config.database.url {
            return Ok(Self {
                url: url.clone(),
                embedded: None,
            });
        }
        if let Some(target) = embedded::running(&config.data_dir)
            && Store::probe(&target, WITHIN).await.is_ok()
            && let Some(url) = embedded::running_url(&config.data_dir)
        {
            return Ok(Self { url, embedded: None });
        }
        let (_, embedded) = server::locate_database(&config.database, &config.data_dir).await?;
        let url = embedded.as_ref().map(Embedded::url).unwrap_or_default();
        Ok(Self { url, embedded })
    }

    async fn close(self) {
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

impl BackupArgs {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let aside = self.file.with_extension("partial");
        if self.file.exists() {
            return Err(file_error(&self.file, &io::ErrorKind::AlreadyExists.into()));
        }
        let target = Target::of(&config).await?;
        let written = self.write(&config, &target, &aside).await;
        target.close().await;
        if written.is_err() {
            // Half a backup is none.
            let _ = fs::remove_file(&aside);
        }
        written?;
        let (file, key) = (self.file.display(), config.sign_in.key_file(&config.data_dir));
        output::say(format_args!(
            "everything is in {file}, but the key to what is encrypted in it: keep {} as well, elsewhere",
            key.display()
        ));
        Ok(())
    }

    /// Dumps into a file aside, and moves it into place once it is complete.
    async fn write(&self, config: &Config, target: &Target, aside: &Path) -> Result<(), Failure> {
        let open = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(aside);
        let file = open.map_err(|error| file_error(aside, &error))?;
        self.dump(config, target, &file).await?;
        let kept = file.sync_all().and_then(|()| fs::rename(aside, &self.file));
        kept.map_err(|error| file_error(&self.file, &error))
    }

    async fn dump(&self, config: &Config, target: &Target, file: &File) -> Result<(), Failure> {
        let stdout = file.try_clone()?;
        let mut command = program(config, "pg_dump");
        connect(&mut command, target)?;
        command
            // Large objects are none of ours, but whoever reads the views can make them; and their part of a dump has
            // transactions of its own, which would end the one that `restore` relies on.
            .args(["--format=custom", "--no-owner", "--no-privileges", "--no-blobs"])
            .stdin(Stdio::null())
            .stdout(stdout);
        let status = command
            .status()
            .await
            .map_err(|error| not_run("pg_dump", &error))?;
        ended("pg_dump", status)
    }
}

impl RestoreArgs {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let file = File::open(&self.file).map_err(|error| file_error(&self.file, &error))?;
        let target = Target::of(&config).await?;
        let restored = restore(&config, &target, file).await;
        target.close().await;
        restored?;
        output::say(format_args!("everything is as in {}", self.file.display()));
        Ok(())
    }
}

/// Streams the dump as SQL into `psql`, in one transaction that is committed when all of it was well.
async fn restore(config: &Config, target: &Target, file: File) -> Result<(), Failure> {
    let options: ConnectOptions = target.url.parse().map_err(server::StartError::from)?;
    let users = Store::other_users(&options, WITHIN)
        .await
        .map_err(server::StartError::from)?;
    if users > 0 {
        return Err(Failure::App(format!("a server uses {options}: stop it first")));
    }
    let mut dump = program(config, "pg_restore");
    dump.args(["--file=-", "--no-owner", "--no-privileges"])
        .stdin(file)
        .stdout(Stdio::piped());
    let mut dump = dump.spawn().map_err(|error| not_run("pg_restore", &error))?;
    let mut psql = program(config, "psql");
    connect(&mut psql, target)?;
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-"])
        .stdin(Stdio::piped());
    let mut psql = psql
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| not_run("psql", &error))?;
    if let (Some(mut script), Some(mut input)) = (dump.stdout.take(), psql.stdin.take()) {
        let begin = format!("BEGIN;\n{EMPTY_SQL}\n");
        let fed = async {
            input.write_all(begin.as_bytes()).await?;
            tokio::io::copy(&mut script, &mut input).await?;
            // Without this, the end of the input takes everything back.
            if dump.wait().await?.success() {
                input.write_all(b"\nCOMMIT;\n").await?;
            }
            input.shutdown().await
        };
        match fed.await {
            // psql has stopped at an error, and its exit says so.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            fed => fed?,
        }
    }
    // When psql stops, pg_restore has nobody to write to and fails as well.
    let (filled, read) = (psql.wait().await?, dump.wait().await?);
    ended("psql", filled)?;
    ended("pg_restore", read)
}

/// One of PostgreSQL's programs: beside the embedded one's, or from the path.
fn program(config: &Config, name: &'static str) -> Command {
    let embedded = EmbeddedConfig {
        bin: config.database.embedded.bin.clone(),
        ..EmbeddedConfig::new(&config.data_dir)
    };
    let beside = embedded::programs(&embedded)
        .ok()
        .map(|(dir, _)| dir.join(name))
        .filter(|path| path.exists());
    let mut command = Command::new(beside.unwrap_or_else(|| name.into()));
    command.kill_on_drop(true);
    command
}

/// Tells a program the database. The password goes by the environment: anybody may read a command line.
fn connect(command: &mut Command, target: &Target) -> Result<(), Failure> {
    let (url, password) = without_password(&target.url)?;
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    command.arg(format!("--dbname={url}"));
    Ok(())
}

fn without_password(url: &str) -> Result<(String, Option<String>), Failure> {
    let mut url = url::Url::parse(url).map_err(|_| Failure::App("database.url: not a URL".to_owned()))?;
    let password = match url.password() {
        Some(password) => {
            let password = percent_decode_str(password).decode_utf8_lossy().into_owned();
            // It has a host, so this can't fail.
            let _ = url.set_password(None);
            Some(password)
        }
        None => None,
    };
    Ok((url.into(), password))
}

/// What a program that failed has told on stderr already is enough.
fn ended(program: &'static str, status: ExitStatus) -> Result<(), Failure> {
    if status.success() {
        Ok(())
    } else {
        Err(Failure::App(format!("{program} failed ({status})")))
    }
}

fn not_run(program: &'static str, error: &io::Error) -> Failure {
    Failure::App(match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{program} is not on this machine: install PostgreSQL's client programs")
        }
        _ => format!("{program}: {error}"),
    })
}

fn file_error(path: &Path, error: &io::Error) -> Failure {
    Failure::App(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_leaves_the_url() {
        let (url, password) = without_password("postgres://u:p%40ss%zz@h:5433/d?sslmode=require").unwrap();
        assert_eq!(url, "postgres://u@h:5433/d?sslmode=require");
        assert_eq!(password.as_deref(), Some("p@ss%zz"));
        let (url, password) = without_password("postgres://postgres@localhost/d?host=/tmp/x").unwrap();
        assert_eq!(
            (url.as_str(), password),
            ("postgres://postgres@localhost/d?host=/tmp/x", None)
        );
    }
}
