//! Models: product types, each with the settings and the telemetry that its devices have.

mod change;
pub mod component;
mod definition;
pub mod exchange;
pub mod header;
pub mod home_assistant;
mod name;
#[cfg(test)]
pub(crate) mod testing;

pub use change::{Migration, changed_settings, diff, sides};
pub use definition::Definition;
pub use name::{InvalidName, Name};
