//! Every connection is an open file, and most systems start a process with room for 1,024.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files a process holds besides its connections: standard streams, event queues, REST connections.
const SPARE: u64 = 100;

/// Too few files may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{connections} connections need {needed} open files, and the limit is {limit}: raise it with ulimit -n"
)]
pub struct TooFew {
    /// The connections asked for.
    pub connections: usize,
    /// The files they need.
    pub needed: u64,
    /// The limit that could be reached.
    pub limit: u64,
}

/// Raises the limit of open files as far as this user may, and checks that it leaves room for `connections`.
///
/// # Errors
/// When it doesn't.
pub fn make_room(connections: usize) -> Result<(), TooFew> {
    let needed = u64::try_from(connections)
        .unwrap_or(u64::MAX)
        .saturating_add(SPARE);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(());
    };
    let wanted = needed.max(hard);
    // Above the hard limit only an administrator may go; then what was allowed has to do.
    let raised = setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted)
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
        .and_then(|()| getrlimit(Resource::RLIMIT_NOFILE));
    let limit = raised.map_or(soft, |(soft, _)| soft);
    if limit < needed {
        Err(TooFew {
            connections,
            needed,
            limit,
        })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handful_fits_and_more_than_there_can_be_does_not() {
        assert_eq!(make_room(10), Ok(()));
        let error = make_room(usize::MAX).unwrap_err();
        assert!(error.to_string().contains("ulimit -n"), "{error}");
    }
}
