//! Who may try to come in: connections per address, and failed logins.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    config::Config,
    metrics::{Limit, Metrics},
};

/// The most entries of the failed-login table; beyond them the one longest quiet is forgotten.
const MAX_FAILURES: usize = 10_000;
/// Locks of the address table.
const STRIPES: usize = 16;

/// Counts connections, in all and per address.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    all: AtomicUsize,
    addresses: [Mutex<HashMap<IpAddr, usize>>; STRIPES],
}

/// A connection's place in the counts; given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    address: Option<IpAddr>,
}

/// Whether a connection may become a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Yes.
    Free,
    /// No, but there is room to tell it so.
    Refuse(Limit),
    /// Not even that.
    Close(Limit),
}

impl Connections {
    /// Counts a connection in all, before anything is known of it.
    pub(crate) fn enter(self: &Arc<Self>) -> Place {
        self.all.fetch_add(1, Ordering::Relaxed);
        Place {
            connections: Arc::clone(self),
            address: None,
        }
    }

    fn stripe(&self, address: &IpAddr) -> Option<&Mutex<HashMap<IpAddr, usize>>> {
        let mut hasher = DefaultHasher::new();
        address.hash(&mut hasher);
        self.addresses
            .get(usize::from(hasher.finish().to_le_bytes()[0]) % STRIPES)
    }
}

impl Place {
    /// Whether there is room in all. A tenth more than the limit may come in to be told that there is none.
    pub(crate) fn in_all(&self, config: &Config) -> Room {
        room(
            self.connections.all.load(Ordering::Relaxed),
            config.max_sessions,
            Limit::Sessions,
        )
    }

    /// Counts the connection for its address too.
    pub(crate) fn from(&mut self, address: IpAddr, config: &Config) -> Room {
        if address.is_loopback() && !config.limit_loopback {
            return Room::Free;
        }
        let Some(stripe) = self.connections.stripe(&address) else {
            return Room::Free;
        };
        let count = {
            let mut table = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            let count = table.entry(address).or_default();
            *count += 1;
            *count
        };
        self.address = Some(address);
        room(count, config.max_sessions_per_address, Limit::SessionsPerAddress)
    }
}

fn room(count: usize, max: usize, limit: Limit) -> Room {
    if count <= max {
        Room::Free
    } else if count <= max + max / 10 + 16 {
        Room::Refuse(limit)
    } else {
        Room::Close(limit)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.all.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let Some(stripe) = self.connections.stripe(&address) else {
            return;
        };
        let mut table = stripe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = table.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                table.remove(&address);
            }
        }
    }
}

/// Failed logins, and who must wait because of them.
///
/// A user name is counted together with the address it was tried from: nobody can lock a device out from elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Logins(Mutex<HashMap<(IpAddr, Option<String>), Failures>>);

#[derive(Debug)]
struct Failures {
    count: u32,
    since: Instant,
    /// How often in a row it had to wait.
    waits: u32,
    until: Option<Instant>,
}

impl Logins {
    /// Whether a login from `address` as `username` may be tried now.
    pub(crate) fn may_try(&self, address: IpAddr, username: Option<&str>) -> bool {
        let now = Instant::now();
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.is_empty() {
            return true;
        }
        let waits = |key| {
            table
                .get(&key)
                .is_some_and(|f: &Failures| f.until.is_some_and(|until| now < until))
        };
        !(waits((address, None)) || username.is_some_and(|name| waits((address, Some(name.to_owned())))))
    }

    /// A login failed; whether no more are tried for a while because of it.
    pub(crate) fn failed(
        &self,
        address: IpAddr,
        username: Option<&str>,
        config: &Config,
        metrics: &Metrics,
    ) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waits = false;
        if config.limit_loopback || !address.is_loopback() {
            waits |= note(
                &mut table,
                (address, None),
                config.max_failed_logins_per_address,
                config,
                metrics,
            );
        }
        // A name that can't be a serial or `token` needs no entry of its own.
        if let Some(name) = username.filter(|name| name.len() <= setpoint_model::serial::MAX_LENGTH) {
            let key = (address, Some(name.to_owned()));
            waits |= note(
                &mut table,
                key,
                config.max_failed_logins_per_serial,
                config,
                metrics,
            );
        }
        waits
    }

    /// A login succeeded: its user name starts anew.
    pub(crate) fn succeeded(&self, address: IpAddr, username: Option<&str>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(name), false) = (username, table.is_empty()) {
            table.remove(&(address, Some(name.to_owned())));
        }
    }

    /// Forgets those who have been quiet.
    pub(crate) fn sweep(&self, config: &Config) {
        let now = Instant::now();
        let quiet = config.failed_login_window + config.failed_login_backoff * MAX_BACKOFF;
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, failures| now.saturating_duration_since(failures.since) < quiet);
        if table.is_empty() {
            table.shrink_to_fit();
        }
    }
}

/// The longest wait, in first waits.
const MAX_BACKOFF: u32 = 32;

fn note(
    table: &mut HashMap<(IpAddr, Option<String>), Failures>,
    key: (IpAddr, Option<String>),
    max: u32,
    config: &Config,
    metrics: &Metrics,
) -> bool {
    let now = Instant::now();
    if table.len() >= MAX_FAILURES && !table.contains_key(&key) {
        let oldest = table
            .iter()
            .min_by_key(|(_, failures)| failures.since)
            .map(|(key, _)| key.clone());
        oldest.map(|key| table.remove(&key));
    }
    let failures = table.entry(key).or_insert(Failures {
        count: 0,
        since: now,
        waits: 0,
        until: None,
    });
    if failures.until.is_none() && now.saturating_duration_since(failures.since) > config.failed_login_window
    {
        failures.count = 0;
        failures.since = now;
    }
    failures.count += 1;
    // The last failure that is allowed begins the wait: the next try comes too late. Having waited once, a single further failure makes it wait again, for longer.
    let waits = failures.count >= max || failures.waits > 0;
    if waits {
        let factor = 2_u32.saturating_pow(failures.waits).min(MAX_BACKOFF);
        let wait: Duration = config.failed_login_backoff.saturating_mul(factor);
        failures.until = now.checked_add(wait);
        failures.since = now;
        failures.waits += 1;
        metrics.limit(Limit::FailedLogins);
    }
    waits
}
