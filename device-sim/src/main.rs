//! The binary `device-sim`: one simulated device, a fleet of them, or a bench.

mod cli;
mod enrol;
mod measure;
mod output;
mod run;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};
use cli::{Bench, Cli, Command};
use run::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            output::line(error.to_string().trim_end());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            // The first paragraph says what is wrong; usage and hints follow it.
            let text = error.to_string();
            let what: Vec<_> = text
                .lines()
                .take_while(|line| !line.is_empty())
                .map(str::trim)
                .collect();
            output::complain(what.join(" ").trim_start_matches("error: "));
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                // rumqttc logs as errors what its caller is told anyway.
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,rumqttc=off")),
        )
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(dispatch(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure.to_string());
            failure.exit_code()
        }
    }
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        None => Box::pin(run::devices(cli.run)).await,
        Some(Command::Bench(Bench::Idle(args))) => Box::pin(measure::bench(args)).await,
        Some(Command::Bench(Bench::Settings(args))) => Box::pin(measure::bench(args)).await,
        Some(Command::Bench(Bench::Changes(args))) => Box::pin(measure::bench(args)).await,
        Some(Command::Bench(Bench::Telemetry(args))) => Box::pin(measure::bench(args)).await,
        Some(Command::Bench(Bench::Soak(args))) => Box::pin(measure::bench(args)).await,
        Some(Command::Bench(Bench::Storm(args))) => Box::pin(measure::bench(args)).await,
    }
}
