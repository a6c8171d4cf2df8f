//! The edge, tested over real sockets.

mod basics;
mod support;
