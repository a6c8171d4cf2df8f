//! Bulk changes: the rules by which one patch reaches many devices, in stages, and is taken back.
//!
//! All of it is pure: [`plan`] says how fast and when to stop, [`state`] which step may follow which, [`progress`]
//! what to do next, and [`undo`] what is put back.

pub mod outcome;
pub mod plan;
pub mod progress;
pub mod state;
pub mod undo;

pub use outcome::Outcome;
pub use plan::{Abort, Canary, Pace};
pub use progress::{Next, Progress, Reason};
pub use state::{Command, Stage, State, WrongState};
