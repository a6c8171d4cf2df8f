//! `setpoint openapi`.

use super::{Failure, output};
use crate::http;

pub(super) fn run() -> Result<(), Failure> {
    let document = http::document()
        .to_pretty_json()
        .map_err(|error| Failure::App(error.to_string()))?;
    output::say(document);
    Ok(())
}
