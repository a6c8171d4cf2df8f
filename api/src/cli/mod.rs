//! The commands of `setpoint`, a file each: arguments and what they do.

mod backup;
mod banner;
pub mod cert;
mod doctor;
mod factory;
mod logging;
mod open_files;
mod openapi;
pub mod output;
mod people;
mod rest;
mod serve;
mod sessions;
mod telemetry;
mod tokens;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use setpoint_model::SystemClock;
use setpoint_store::{ConnectOptions, PoolOptions, Store, embedded};

use crate::{
    config::{Config, ConfigError, Sources},
    server::{self, StartError},
};

/// Exit code of a configuration that can't be used.
const CONFIGURATION: u8 = 2;

/// Setpoint: a self-hosted backend for connected devices.
#[derive(Debug, Parser)]
#[command(
    name = "setpoint",
    version,
    propagate_version = true,
    after_help = "Examples:\n  \
        setpoint                                          start with the defaults in ./data\n  \
        setpoint serve --config /etc/setpoint.toml        start with a configuration file\n  \
        SETPOINT_HTTP__LISTEN=127.0.0.1:9000 setpoint     one key from the environment\n  \
        setpoint --set mqtt.shards=16                     one key from the command line\n\n\
        Every key, its default and what it means: config/default.toml in the source."
)]
pub struct Cli {
    /// A configuration file in TOML; ./setpoint.toml is read if it is there and none is given.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets a configuration key, over the file and the environment; may be given several times.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = pair)]
    keys: Vec<(String, String)>,
    /// The data directory: the key data_dir.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// The log level: the key log.level.
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server; so does setpoint without a command.
    #[command(after_help = "Example:\n  setpoint serve --http 127.0.0.1:8080 --mqtt 127.0.0.1:1883")]
    Serve(ServeArgs),
    /// Brings the database up to date and ends; serve does so by itself.
    #[command(after_help = "Example:\n  setpoint migrate --set database.url=postgres://setpoint@db/setpoint")]
    Migrate,
    /// Adds people, changes their passwords and ends their second factor.
    User(people::Args),
    /// Makes API tokens.
    Token(tokens::Args),
    /// Imports files of factory serials.
    Factory(factory::Args),
    /// Shows who is connected over MQTT, and ends sessions.
    Sessions(sessions::Args),
    /// Shows what telemetry takes, and how far its roll-ups are.
    Telemetry(telemetry::Args),
    /// Writes everything into one file, also while the server runs.
    Backup(backup::BackupArgs),
    /// Replaces everything by what such a file holds; the server must be stopped.
    Restore(backup::RestoreArgs),
    /// Prints the OpenAPI document.
    #[command(after_help = "Example:\n  setpoint openapi > openapi.json")]
    Openapi,
    /// Checks configuration, data directory, Postgres, ports and clock; a line each.
    #[command(after_help = "Example:\n  setpoint doctor --config /etc/setpoint.toml")]
    Doctor,
    /// Makes certificates for development.
    Cert(cert::Args),
}

/// Flags of `serve`.
#[derive(Debug, Default, clap::Args)]
struct ServeArgs {
    /// The HTTP address: the key http.listen.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// The MQTT address: the key mqtt.listen.
    #[arg(long, value_name = "ADDRESS")]
    mqtt: Option<SocketAddr>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    App(String),
    #[error("{0}")]
    Cert(#[from] cert::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What there is to say was said.
    #[error("")]
    Told,
}

impl From<crate::app::Error> for Failure {
    fn from(error: crate::app::Error) -> Self {
        use crate::app::Error;
        Self::App(match error {
            Error::Invalid { errors } => {
                let fields: Vec<_> = errors
                    .iter()
                    .map(|(field, message)| format!("{field}: {message}"))
                    .collect();
                fields.join("; ")
            }
            error => server::chain(&error),
        })
    }
}

impl Failure {
    fn code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(CONFIGURATION),
            Self::Start(error) if error.is_configuration() => ExitCode::from(CONFIGURATION),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Runs the program: parses the command line, runs the command and gives its exit code.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Told) {
                output::complain(&failure);
            }
            failure.code()
        }
    }
}

fn execute(cli: Cli) -> Result<(), Failure> {
    let sources = cli.sources();
    match cli.command.unwrap_or(Command::Serve(ServeArgs::default())) {
        Command::Serve(args) => serve::run(Config::load(&args.over(sources))?),
        Command::Migrate => with_runtime(async move {
            let (store, embedded) = database(&Config::load(&sources)?).await?;
            close(store, embedded).await;
            output::say("the database is up to date");
            Ok(())
        }),
        Command::User(args) => with_runtime(args.run(Config::load(&sources)?)),
        Command::Token(args) => with_runtime(args.run(Config::load(&sources)?)),
        Command::Factory(args) => with_runtime(args.run(Config::load(&sources)?)),
        Command::Sessions(args) => with_runtime(args.run(Config::load(&sources)?)),
        Command::Telemetry(args) => with_runtime(args.run(Config::load(&sources)?)),
        Command::Backup(args) => with_runtime(args.run(Config::load(&sources)?)),
        Command::Restore(args) => with_runtime(args.run(Config::load(&sources)?)),
        Command::Openapi => openapi::run(),
        Command::Doctor => with_runtime(doctor::run(sources)),
        Command::Cert(args) => Ok(cert::run(&args, &SystemClock, &mut std::io::stdout().lock())?),
    }
}

impl Cli {
    fn sources(&self) -> Sources {
        let mut sources = Sources {
            file: self.config.clone(),
            ..Sources::of_process()
        };
        if let Some(dir) = &self.data_dir {
            sources = sources.with("data_dir", dir);
        }
        if let Some(level) = &self.log {
            sources = sources.with("log.level", level);
        }
        self.keys
            .iter()
            .fold(sources, |sources, (key, value)| sources.with(key, value))
    }
}

impl ServeArgs {
    fn over(&self, mut sources: Sources) -> Sources {
        if let Some(address) = self.http {
            sources = sources.with("http.listen", address.to_string());
        }
        if let Some(address) = self.mqtt {
            sources = sources.with("mqtt.listen", address.to_string());
        }
        sources
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("KEY=VALUE is needed".to_owned()),
    }
}

fn with_runtime(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(command)
}

/// The database for a command that may run beside the server: that of `database.url`, the embedded one of a
/// running server, or else the embedded one, started for this command.
async fn database(config: &Config) -> Result<(Store, Option<embedded::Embedded>), Failure> {
    let beside: Option<ConnectOptions> = match config.database.url {
        Some(_) => None,
        None => embedded::running(&config.data_dir),
    };
    if let Some(target) = beside {
        let options = PoolOptions {
            min_connections: 0,
            ..PoolOptions::default()
        };
        if let Ok(store) = Store::open(&target, &options).await {
            return Ok((store, None));
        }
    }
    Ok(server::open_database(config).await?)
}

/// Ends what [`database`] gave.
async fn close(store: Store, embedded: Option<embedded::Embedded>) {
    store.close().await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
}
