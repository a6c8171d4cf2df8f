//! The edge, tested over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "everything here is a test"
)]

mod basics;
mod greeting;
mod hostile;
mod limits;
mod ordinary;
mod properties;
mod protocol;
mod qos;
mod refusals;
mod retained;
mod routers;
mod seeds;
mod sessions;
mod shared;
mod shutdown;
mod subscriptions;
mod support;
mod topics;
mod wills;
