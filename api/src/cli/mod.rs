//! The commands of `setpoint`, a file each: arguments and what they do.

pub mod cert;
