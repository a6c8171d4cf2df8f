//! The program `setpoint` under another name, so that Cargo builds it for these tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    setpoint_api::cli::run()
}
