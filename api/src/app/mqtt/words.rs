//! How the timeline tells what a client did and said.

use setpoint_broker::{Transport, Version};

/// The name used in the timeline.
pub(super) fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
        Transport::WebSocket => "websocket",
    }
}

/// The name used in the timeline.
pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::V3 => "3.1.1",
        Version::V5 => "5.0",
    }
}

/// The longest text from a client that the timeline repeats, in characters.
const MAX_REPEATED: usize = 200;

/// A text from a client, short and without control characters: Postgres can't hold a NUL.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .take(MAX_REPEATED)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
