//! The one place that writes to the terminal; everything else goes to the log.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// Tells the person at the terminal something, on stdout.
pub fn say(text: impl Display) {
    // Nobody may be reading any more, and then there is nobody to tell.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Tells what went wrong, on stderr.
pub fn complain(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "setpoint: {text}");
}

/// Asks for a password on stdin: the first line, without an echo being our business when it is piped.
///
/// # Errors
/// When stdin can't be read.
pub fn read_secret(prompt: &str) -> io::Result<String> {
    use std::io::IsTerminal;
    if io::stdin().is_terminal() {
        let _ = write!(io::stderr().lock(), "{prompt}: ");
    }
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
