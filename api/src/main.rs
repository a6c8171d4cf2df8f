//! The program `setpoint`.

use std::process::ExitCode;

fn main() -> ExitCode {
    setpoint_api::cli::run()
}
