//! The sessions of one device, or of a bucket of operators: who is in, who comes back, who goes.

use std::{sync::Arc, time::Duration};

use setpoint_model::Identity;
use tokio::time::Instant;

use super::{
    live::Live,
    state::{Session, State},
};
use crate::{
    config::Config,
    metrics::{Dropped, Metrics},
};

/// A client that wants in.
pub(crate) struct Newcomer {
    /// Who it is.
    pub(crate) identity: Identity,
    /// Its client id.
    pub(crate) client_id: String,
    /// Whether it wants nothing of an earlier session [MQTT-3.1.2-4].
    pub(crate) clean: bool,
    /// How long its session outlives its connection.
    pub(crate) expiry: Duration,
    /// The id of its session, should it be a new one.
    pub(crate) id: u64,
}

/// What a newcomer gets.
pub(crate) enum Claim {
    /// Another connection has the client id: to be ended first [MQTT-3.1.4-3].
    Busy(Arc<Live>),
    /// Too many live sessions.
    TooMany,
    /// The session is its.
    Taken {
        /// Its connection.
        live: Arc<Live>,
        /// Whether the session is an earlier one of its own [MQTT-3.2.2-2].
        present: bool,
        /// Earlier sessions that end by this, subscriptions still in place.
        discarded: Vec<Arc<Session>>,
    },
}

/// Gives `newcomer` the session of its client id in `sessions`.
pub(crate) fn claim(
    sessions: &mut Vec<Arc<Session>>,
    newcomer: &Newcomer,
    max_live: usize,
    connect: impl FnOnce(Arc<Session>) -> Arc<Live>,
) -> Claim {
    let now = Instant::now();
    let earlier = sessions
        .iter()
        .position(|session| session.client_id == newcomer.client_id);
    if let Some(live) = earlier
        .and_then(|index| sessions.get(index))
        .and_then(|s| s.lock().live.clone())
    {
        return Claim::Busy(live);
    }
    if sessions
        .iter()
        .filter(|session| session.lock().live.is_some())
        .count()
        >= max_live
    {
        return Claim::TooMany;
    }
    let resumed = earlier.and_then(|index| sessions.get(index)).filter(|session| {
        !newcomer.clean && session.identity == newcomer.identity && !session.lock().is_over(now)
    });
    let (session, present, discarded) = match resumed {
        Some(session) => (Arc::clone(session), true, Vec::new()),
        None => {
            let discarded = earlier
                .map(|index| sessions.swap_remove(index))
                .into_iter()
                .collect();
            let session = Arc::new(Session::new(
                newcomer.id,
                newcomer.identity.clone(),
                newcomer.client_id.clone(),
            ));
            sessions.push(Arc::clone(&session));
            (session, false, discarded)
        }
    };
    let live = connect(Arc::clone(&session));
    let mut state = session.lock();
    state.live = Some(Arc::clone(&live));
    state.expiry = newcomer.expiry;
    state.expires_at = None;
    state.left_at = None;
    // It is back before its will was due [MQTT-3.1.3-9].
    state.will = None;
    drop(state);
    Claim::Taken {
        live,
        present,
        discarded,
    }
}

/// Takes a connection out of `sessions`; its session stays behind if it asked for that. Yields the sessions that
/// end by this, subscriptions still in place.
pub(crate) fn leave(
    sessions: &mut Vec<Arc<Session>>,
    session: &Arc<Session>,
    max_stored: usize,
    config: &Config,
    metrics: &Metrics,
) -> Vec<Arc<Session>> {
    let now = Instant::now();
    let stays = {
        let mut state = session.lock();
        state.live = None;
        state.left_at = Some(now);
        state.expires_at = now.checked_add(state.expiry);
        let stays = !state.discard && !state.expiry.is_zero();
        if stays {
            state.park(config, metrics);
        }
        stays
    };
    let mut over = Vec::new();
    if !stays {
        take(sessions, session.id, &mut over);
    }
    while let Some(oldest) = beyond(sessions, max_stored) {
        for _ in 0..oldest.lock().queued() {
            metrics.dropped(Dropped::OfflineQueueFull);
        }
        take(sessions, oldest.id, &mut over);
    }
    over
}

/// Takes out the sessions whose client stayed away for too long.
pub(crate) fn expire(sessions: &mut Vec<Arc<Session>>, now: Instant, over: &mut Vec<Arc<Session>>) {
    while let Some(id) = sessions
        .iter()
        .find(|session| session.lock().is_over(now))
        .map(|session| session.id)
    {
        take(sessions, id, over);
    }
}

fn take(sessions: &mut Vec<Arc<Session>>, id: u64, over: &mut Vec<Arc<Session>>) {
    if let Some(index) = sessions.iter().position(|session| session.id == id) {
        over.push(sessions.swap_remove(index));
    }
}

/// The session longest gone, if more than `max` are stored.
fn beyond(sessions: &[Arc<Session>], max: usize) -> Option<Arc<Session>> {
    let stored = || sessions.iter().filter(|session| session.lock().live.is_none());
    if stored().count() <= max {
        return None;
    }
    stored().min_by_key(|session| session.lock().left_at).cloned()
}

impl State {
    /// Whether its client stayed away for too long.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.live.is_none() && self.expires_at.is_some_and(|at| at <= now)
    }
}
