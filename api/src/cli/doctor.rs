//! `setpoint doctor`: what a start needs, looked at one by one.

use std::{fmt::Display, fs, net::SocketAddr, path::Path};

use setpoint_model::{Clock, SystemClock};
use setpoint_store::{
    ConnectOptions, Store,
    embedded::{self, EmbeddedConfig},
};

use super::{Failure, output};
use crate::{
    config::{Config, Sources},
    server,
};

/// A clock before this is certainly wrong: certificates and telemetry would be refused. Seconds since 1970.
const BUILT_AFTER: i64 = 1_750_000_000;

#[derive(Default)]
struct Report {
    failed: bool,
}

impl Report {
    fn line(&mut self, what: &str, outcome: Result<String, String>) {
        match outcome {
            Ok(found) => output::say(format_args!("ok    {what}: {found}")),
            Err(wrong) => {
                self.failed = true;
                output::say(format_args!("FAIL  {what}: {wrong}"));
            }
        }
    }
}

pub(super) async fn run(sources: Sources) -> Result<(), Failure> {
    let mut report = Report::default();
    match Config::load(&sources) {
        Ok(config) => {
            report.line(
                "configuration",
                Ok("every key is known and every value makes sense".to_owned()),
            );
            check(&config, &mut report).await;
        }
        Err(error) => report.line("configuration", Err(error.to_string())),
    }
    if report.failed { Err(Failure::Told) } else { Ok(()) }
}

async fn check(config: &Config, report: &mut Report) {
    report.line("data directory", data_directory(&config.data_dir));
    let running = embedded::running(&config.data_dir);
    match &config.database.url {
        Some(url) => {
            let answer = match url.parse::<ConnectOptions>() {
                Ok(target) => connect(&target, config).await,
                Err(error) => Err(error.to_string()),
            };
            report.line("database", answer);
        }
        None => {
            let embedded = EmbeddedConfig {
                bin: config.database.embedded.bin.clone(),
                ..EmbeddedConfig::new(&config.data_dir)
            };
            let programs = embedded::programs(&embedded);
            let programs =
                programs.map(|(dir, version)| format!("PostgreSQL {version} in {}", dir.display()));
            report.line("embedded Postgres", programs.map_err(text));
            if let Some(target) = &running {
                report.line("database", connect(target, config).await);
            }
        }
    }
    for (key, address) in [
        ("http.listen", Some(config.http.listen)),
        ("mqtt.listen", config.mqtt.listen),
        ("mqtt.tls.listen", config.mqtt.tls_address()),
        ("metrics.listen", config.metrics.listen),
    ] {
        if let Some(address) = address {
            report.line(key, port(key, address, running.is_some()));
        }
    }
    if let Some(outcome) = server::check_certificates(config) {
        report.line("mqtt.tls", outcome.map_err(text));
    }
    let now = SystemClock.now();
    let plausible = now.timestamp() > BUILT_AFTER;
    let shown = now.format("%Y-%m-%d %H:%M:%S UTC").to_string();
    report.line(
        "clock",
        if plausible {
            Ok(shown)
        } else {
            Err(format!("{shown} can't be right"))
        },
    );
}

fn data_directory(dir: &Path) -> Result<String, String> {
    let place = dir.display();
    if !dir.exists() {
        return Ok(format!("{place} will be made"));
    }
    let probe = dir.join(".doctor");
    fs::write(&probe, b"")
        .and_then(|()| fs::remove_file(&probe))
        .map_err(|error| format!("{place}: {error}"))?;
    Ok(format!("{place} can be written"))
}

async fn connect(target: &ConnectOptions, config: &Config) -> Result<String, String> {
    match Store::probe(target, config.database.connect_timeout).await {
        Ok(()) => Ok(format!("{target} answers")),
        Err(error) => Err(server::chain(&error)),
    }
}

fn port(key: &'static str, address: SocketAddr, server_runs: bool) -> Result<String, String> {
    match server::check_address(key, address) {
        Ok(()) => Ok(format!("{address} is free")),
        Err(_) if server_runs => Ok(format!(
            "{address} is in use, most likely by the server that runs on this data directory"
        )),
        Err(error) => Err(text(error)),
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
