//! The name of an alert rule.

pub use crate::name::InvalidName;

crate::name::name! {
    /// An alert rule's name: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
    AlertName
}
