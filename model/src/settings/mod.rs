//! Settings: what a device should run, what it says it runs, and what follows from the two.
//!
//! All of it is pure: [`patch`] and [`schema`] judge a change, [`layers`] and [`diff`] turn it into the next
//! document, [`status`] and [`ack`] follow each key until the device has it, and [`verdict`] puts the story
//! of one version into a sentence.

pub mod ack;
pub mod diff;
pub mod document;
pub mod layers;
pub mod patch;
mod rule;
pub mod schema;
pub mod source;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
pub mod verdict;

pub use ack::{Ack, Rejection};
pub use diff::{Change, Diff};
pub use document::{Document, Limits, Malformed};
pub use layers::{Effective, Layer, Origin};
pub use patch::Patch;
pub use schema::{KeyErrors, Schema};
pub use source::Source;
pub use status::{KeyStatus, State, Status};
pub use verdict::{Connection, Timeline};
