//! How starting and using the edge can fail.

/// The edge could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A limit makes no sense.
    #[error("mqtt configuration: {0}")]
    Config(&'static str),
    /// A router could not be started or attached to.
    #[error("router shard {shard}: {cause}")]
    Router {
        /// Which shard.
        shard: usize,
        /// What rumqttd said.
        cause: String,
    },
}

/// The edge is shutting down and takes no more messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker is shutting down")]
pub struct ShuttingDown;
