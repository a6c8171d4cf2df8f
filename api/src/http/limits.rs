//! Request limits: so many a second from one address, and with one token or session.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::Instant;

use super::{Problem, client::Client, cookie};
use crate::{
    app::{Error, network},
    config::RequestLimits,
};

/// The most clients remembered; beyond it the idle ones are forgotten, and then all.
const MAX_CLIENTS: usize = 100_000;

/// The limits and who has used how much of them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Limiter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: RequestLimits,
    /// Keys of credentials are hashes with a secret of this process.
    hasher: RandomState,
    buckets: Mutex<HashMap<Key, Bucket>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    Credential(u64),
}

/// What a client may still use: refilled by the rate, up to the burst.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Limiter {
    pub(super) fn new(limits: RequestLimits) -> Self {
        Self(Arc::new(Shared {
            limits,
            hasher: RandomState::new(),
            buckets: Mutex::default(),
        }))
    }

    fn credential(&self, request: &Request) -> Option<Key> {
        let headers = request.headers();
        let credential = match headers.get(header::AUTHORIZATION) {
            Some(value) => value.as_bytes(),
            None => cookie::read(headers)?.as_bytes(),
        };
        Some(Key::Credential(self.0.hasher.hash_one(credential)))
    }

    /// Takes one request from each; how long to wait if one of them has none left.
    fn take(&self, keys: &[(Key, u32)]) -> Option<Duration> {
        let burst = f64::from(self.0.limits.burst);
        let mut buckets = self.0.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_CLIENTS {
            // Whoever paused for the burst's time has a full bucket, which is as good as none.
            let full = Duration::from_secs_f64(burst);
            buckets.retain(|_, bucket| bucket.at.elapsed() < full);
            if buckets.len() >= MAX_CLIENTS {
                buckets.clear();
            }
        }
        let mut wait = None;
        for (key, rate) in keys {
            let rate = f64::from(*rate);
            let now = Instant::now();
            let bucket = buckets.entry(*key).or_insert(Bucket {
                left: rate * burst,
                at: now,
            });
            let gained = now.duration_since(bucket.at).as_secs_f64() * rate;
            *bucket = Bucket {
                left: (bucket.left + gained).min(rate * burst),
                at: now,
            };
            if bucket.left >= 1.0 {
                bucket.left -= 1.0;
            } else {
                wait = wait.max(Some(Duration::from_secs_f64((1.0 - bucket.left) / rate)));
            }
        }
        wait
    }
}

/// The layer that answers 429 to who asks too much.
pub(super) async fn limit(State(limiter): State<Limiter>, request: Request, next: Next) -> Response {
    let client = request.extensions().get::<Client>().copied().unwrap_or_default();
    let limits = &limiter.0.limits;
    let exempt = |address: IpAddr| address.is_loopback() && !limits.limit_loopback;
    if let Some(address) = client.address.filter(|address| !exempt(*address)) {
        let mut keys = vec![(Key::Address(network(address)), limits.per_address)];
        keys.extend(limiter.credential(&request).map(|key| (key, limits.per_token)));
        if let Some(after) = limiter.take(&keys) {
            return Problem::from(Error::TooManyAttempts { after }).into_response();
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_may_burst_and_then_goes_at_its_rate() {
        let limiter = Limiter::new(RequestLimits {
            per_address: 2,
            per_token: 2,
            burst: 3,
            limit_loopback: true,
        });
        let key = [(Key::Credential(1), 2)];
        for _ in 0..6 {
            assert_eq!(limiter.take(&key), None);
        }
        assert_eq!(limiter.take(&key), Some(Duration::from_millis(500)));
        assert_eq!(
            limiter.take(&[(Key::Credential(2), 2)]),
            None,
            "another has its own"
        );
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(limiter.take(&key), None);
        assert!(limiter.take(&key).is_some());
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..6 {
            assert_eq!(limiter.take(&key), None);
        }
        assert!(limiter.take(&key).is_some(), "no more than the burst is saved up");
    }
}
