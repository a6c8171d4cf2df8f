//! The limit on open files: each connection is one, and many systems begin with 1,024.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as the system lets us, and says so if that is too few for `wanted` connections.
pub(super) fn allow(wanted: usize) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    });
    match raised {
        Ok(limit) if limit < u64::try_from(wanted).unwrap_or(u64::MAX) => {
            tracing::info!(
                limit,
                wanted,
                "the system allows fewer open files than mqtt.limits.max_sessions"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit on open files can't be raised"),
    }
}
