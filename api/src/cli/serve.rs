//! `setpoint serve`: the server from its start to the signal that ends it.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, banner, logging, open_files, output};
use crate::{config::Config, server::Server};

/// How long an orderly end may take in all; what isn't done by then is cut off.
const STOP_WITHIN: Duration = Duration::from_millis(4_800);

pub(super) fn run(config: Config) -> Result<(), Failure> {
    logging::start(&config.log);
    open_files::allow(config.mqtt.limits.max_sessions);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(config));
    // Whatever still runs was given its time.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let server = tokio::select! {
        started = Box::pin(Server::start(config)) => started?,
        name = signals.end() => {
            tracing::info!(signal = name, "stopped while starting");
            return Ok(());
        }
    };
    output::say(banner::of(&server));
    tracing::info!(http = %server.http_address(), mqtt = ?server.mqtt_address(), "serving");
    let failed = loop {
        tokio::select! {
            name = signals.end() => {
                tracing::info!(signal = name, "stopping");
                break None;
            }
            Some(()) = hang_up.recv() => server.reload_certificates().await,
            task = server.failed() => break Some(task),
        }
    };
    tokio::select! {
        stopped = tokio::time::timeout(STOP_WITHIN, server.stop()) => {
            if stopped.is_err() {
                tracing::error!("not everything ended in time");
                return Err(Failure::Told);
            }
        }
        name = signals.end() => {
            tracing::warn!(signal = name, "stopping at once");
            return Err(Failure::Told);
        }
    }
    match failed {
        None => Ok(()),
        Some(task) => Err(Failure::App(format!("the task {task} failed; the log says why"))),
    }
}

/// The signals that ask for the end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next of them.
    async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
