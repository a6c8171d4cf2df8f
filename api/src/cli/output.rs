//! The one place that writes to the terminal; everything else goes to the log.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write},
};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// Tells the person at the terminal something, on stdout.
pub fn say(text: impl Display) {
    // Nobody may be reading any more, and then there is nobody to tell.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Tells what went wrong, on stderr.
pub fn complain(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "setpoint: {text}");
}

/// Shows how far something is, on stderr, over what was shown before; nothing where nobody watches.
pub fn progress(text: impl Display) {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r{text}\x1b[K");
    }
}

/// Ends the line that [`progress`] wrote.
pub fn progress_ends() {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        let _ = writeln!(stderr);
    }
}

/// Reads a password from stdin: its first line, or what is typed at a terminal, which doesn't show it.
///
/// # Errors
/// When stdin can't be read.
pub fn read_secret(prompt: &str) -> io::Result<String> {
    let stdin = io::stdin();
    let hidden = Hidden::prompt(&stdin, prompt);
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    drop(hidden);
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that doesn't show what is typed, until it is dropped.
struct Hidden<'a> {
    stdin: &'a io::Stdin,
    before: Termios,
}

impl<'a> Hidden<'a> {
    /// Asks, if somebody is there to be asked.
    fn prompt(stdin: &'a io::Stdin, prompt: &str) -> Option<Self> {
        let before = tcgetattr(stdin).ok()?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(stdin, SetArg::TCSANOW, &hidden).ok()?;
        let _ = write!(io::stderr().lock(), "{prompt}: ");
        Some(Self { stdin, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // Nothing more can be done about a terminal that is gone.
        let _ = tcsetattr(self.stdin, SetArg::TCSANOW, &self.before);
        let _ = writeln!(io::stderr().lock());
    }
}
