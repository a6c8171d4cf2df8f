//! The sessions of operators, by client id.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use setpoint_model::Identity;
use tokio::time::Instant;
use uuid::Uuid;

use crate::session::{Live, Session};

/// How many lists they are spread over.
pub(crate) const BUCKETS: usize = 64;

/// All sessions of operators. A device's client id can't collide with one here: devices have their own place.
pub(crate) struct Operators([Mutex<Vec<Arc<Session>>>; BUCKETS]);

impl Default for Operators {
    fn default() -> Self {
        Self([const { Mutex::new(Vec::new()) }; BUCKETS])
    }
}

impl Operators {
    /// The list that `client_id` belongs to.
    #[expect(clippy::indexing_slicing, reason = "a remainder of the length is an index")]
    pub(crate) fn bucket(&self, client_id: &str) -> MutexGuard<'_, Vec<Arc<Session>>> {
        let mut hasher = DefaultHasher::new();
        client_id.hash(&mut hasher);
        let index = usize::from(hasher.finish().to_le_bytes()[0]) % BUCKETS;
        self.0[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn buckets(&self) -> impl Iterator<Item = MutexGuard<'_, Vec<Arc<Session>>>> {
        self.0
            .iter()
            .map(|bucket| bucket.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every session, live or stored.
    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        self.buckets().flat_map(|bucket| bucket.clone()).collect()
    }

    /// Drops what is stored for an API token and yields what is live and what was stored.
    pub(crate) fn end_token(&self, token: Uuid) -> (Vec<Arc<Live>>, Vec<Arc<Session>>) {
        let (mut lives, mut over) = (Vec::new(), Vec::new());
        for mut bucket in self.buckets() {
            bucket.retain(|session| {
                let of_token =
                    matches!(&session.identity, Identity::Operator(operator) if operator.token == token);
                if !of_token {
                    return true;
                }
                let mut state = session.lock();
                match &state.live {
                    Some(live) => {
                        lives.push(Arc::clone(live));
                        state.discard = true;
                        true
                    }
                    None => {
                        over.push(Arc::clone(session));
                        false
                    }
                }
            });
        }
        (lives, over)
    }

    /// Takes out the sessions whose client stayed away for too long.
    pub(crate) fn sweep(&self, now: Instant) -> Vec<Arc<Session>> {
        let mut over = Vec::new();
        for mut bucket in self.buckets() {
            crate::session::expire(&mut bucket, now, &mut over);
        }
        over
    }
}
