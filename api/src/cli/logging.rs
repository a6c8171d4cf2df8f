//! The log of the process: set up once, by `serve` alone.

use std::{io, panic};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

/// What others tell at `info` and is nobody's news: each notice of Postgres; and each message in a router, which costs
/// a span at any other level (the edge tells itself when one dies).
const QUIET: &str = "rumqttd=off,sqlx::postgres::notice=warn";

/// Sends the log to stderr, and panics to the log.
pub(super) fn start(log: &Log) {
    // The configuration checked it already.
    let filter = EnvFilter::try_new(format!("{QUIET},{}", log.level)).unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Text => {
            let ansi = io::IsTerminal::is_terminal(&io::stderr());
            registry
                .with(
                    tracing_subscriber::fmt::layer()
                        .with_writer(io::stderr)
                        .with_ansi(ansi),
                )
                .init();
        }
        LogFormat::Json => {
            registry
                .with(tracing_subscriber::fmt::layer().json().with_writer(io::stderr))
                .init();
        }
    }
    panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("a panic");
        let place = panic.location().map(ToString::to_string);
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(place, %backtrace, "panicked: {message}");
    }));
}
