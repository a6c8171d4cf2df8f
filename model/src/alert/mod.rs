//! Alert rules: a condition over what devices send and how they are, and where each device stands towards it.
//!
//! A rule says what is wrong ([`Condition`]), for which devices ([`Scope`]) and how much it matters ([`Severity`]). Each
//! device in its scope has a [`Standing`]: the condition must hold for a time before the alert fires, and must be over
//! for a time before it is resolved.

mod condition;
mod definition;
mod name;
mod sentence;
mod span;
mod standing;
#[cfg(test)]
mod tests;

pub use condition::{
    Comparison, Condition, InvalidCondition, Literal, MAX_COMPARISONS, MAX_LENGTH, Operator, Subject,
};
pub use definition::{Definition, MAX_TITLE, Scope, Severity, UnknownSeverity};
pub use name::{AlertName, InvalidName};
pub use sentence::{Told, sentence};
pub use span::{InvalidSpan, LONGEST, Span};
pub use standing::{Reason, Standing, State, Timing, Transition, UnknownState};
