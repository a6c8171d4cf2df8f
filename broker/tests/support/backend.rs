//! The server behind the edge, as the tests want it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, atomic::AtomicBool, atomic::Ordering},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use setpoint_broker::{Ack, Authenticated, Backend, Inbound, Login, Outcome, Refusal, SessionEvent};
use setpoint_model::{Identity, Topic, access::Operator};
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc},
    time::timeout,
};
use uuid::Uuid;

use super::PATIENCE;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Answering {
    /// Accepted at once; payloads that begin with `bad` are invalid.
    #[default]
    AtOnce,
    /// Kept for the test to answer.
    Held,
    /// Dropped unanswered.
    Dropped,
}

/// What a test does while an event is told.
type OnEvent = Arc<dyn Fn(&SessionEvent) + Send + Sync>;

/// Devices sign in with the password `secret`, operators as `token` with the password `operator`.
pub(crate) struct TestBackend {
    pub(crate) answering: Mutex<Answering>,
    pub(crate) held: Mutex<Vec<(Inbound, Ack)>>,
    pub(crate) revoked: Mutex<HashSet<String>>,
    /// `is_current` answers no.
    pub(crate) stale: AtomicBool,
    /// `authenticate` answers that the database can't be asked.
    pub(crate) down: AtomicBool,
    pub(crate) logins: Mutex<Vec<Login>>,
    /// Called with each event before it is noted.
    pub(crate) on_event: Mutex<Option<OnEvent>>,
    events: mpsc::UnboundedSender<SessionEvent>,
    event_queue: AsyncMutex<mpsc::UnboundedReceiver<SessionEvent>>,
    inbound: mpsc::UnboundedSender<Inbound>,
    inbound_queue: AsyncMutex<mpsc::UnboundedReceiver<Inbound>>,
    delivered: mpsc::UnboundedSender<(String, u64)>,
    delivered_queue: AsyncMutex<mpsc::UnboundedReceiver<(String, u64)>>,
}

impl Default for TestBackend {
    fn default() -> Self {
        let (events, event_queue) = mpsc::unbounded_channel();
        let (inbound, inbound_queue) = mpsc::unbounded_channel();
        let (delivered, delivered_queue) = mpsc::unbounded_channel();
        Self {
            answering: Mutex::default(),
            held: Mutex::default(),
            revoked: Mutex::default(),
            stale: AtomicBool::default(),
            down: AtomicBool::default(),
            logins: Mutex::default(),
            on_event: Mutex::default(),
            events,
            event_queue: AsyncMutex::new(event_queue),
            inbound,
            inbound_queue: AsyncMutex::new(inbound_queue),
            delivered,
            delivered_queue: AsyncMutex::new(delivered_queue),
        }
    }
}

impl TestBackend {
    pub(crate) fn answer(&self, answering: Answering) {
        *self.answering.lock().unwrap() = answering;
    }

    /// The next message that came in.
    pub(crate) async fn next_inbound(&self) -> Inbound {
        timeout(PATIENCE, self.inbound_queue.lock().await.recv())
            .await
            .expect("no message came in")
            .unwrap()
    }

    /// What came in and was not looked at.
    pub(crate) fn inbound_left(&self) -> usize {
        let mut queue = self.inbound_queue.try_lock().unwrap();
        std::iter::from_fn(|| queue.try_recv().ok()).count()
    }

    /// The next receipt.
    pub(crate) async fn next_delivered(&self) -> (String, u64) {
        timeout(PATIENCE, self.delivered_queue.lock().await.recv())
            .await
            .expect("no receipt")
            .unwrap()
    }

    pub(crate) async fn event_where<T>(&self, mut wanted: impl FnMut(SessionEvent) -> Option<T>) -> T {
        let mut queue = self.event_queue.lock().await;
        timeout(PATIENCE, async {
            loop {
                if let Some(found) = wanted(queue.recv().await.unwrap()) {
                    return found;
                }
            }
        })
        .await
        .expect("no such event")
    }

    /// Answers the oldest message held.
    pub(crate) fn release(&self, outcome: Outcome) {
        let (_, ack) = self.held.lock().unwrap().remove(0);
        ack.complete(outcome);
    }

    pub(crate) fn held(&self) -> usize {
        self.held.lock().unwrap().len()
    }
}

impl Backend for TestBackend {
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Authenticated, Refusal>> {
        self.logins.lock().unwrap().push(login.clone());
        async move {
            if self.down.load(Ordering::SeqCst) {
                return Err(Refusal::Unavailable);
            }
            let username = login
                .username
                .or(login.peer.certificate)
                .ok_or(Refusal::NotAuthorized)?;
            let identity = match (username.as_str(), login.password.as_deref()) {
                ("token", Some(b"operator")) => {
                    Identity::Operator(Operator::everywhere(Uuid::from_u128(1), "ops").into())
                }
                ("token", Some(b"another")) => {
                    Identity::Operator(Operator::everywhere(Uuid::from_u128(2), "two").into())
                }
                (serial, Some(b"secret")) => {
                    if self.revoked.lock().unwrap().contains(serial) {
                        return Err(Refusal::NotAuthorized);
                    }
                    Identity::Device(serial.parse().map_err(|_| Refusal::NotAuthorized)?)
                }
                _ => return Err(Refusal::NotAuthorized),
            };
            Ok(Authenticated { identity, epoch: 7 })
        }
        .boxed()
    }

    fn is_current(&self, authenticated: &Authenticated) -> bool {
        assert_eq!(authenticated.epoch, 7);
        !self.stale.load(Ordering::SeqCst)
    }

    fn inbound(&self, message: Inbound, ack: Ack) -> BoxFuture<'_, ()> {
        self.inbound.send(message.clone()).unwrap();
        match *self.answering.lock().unwrap() {
            Answering::AtOnce if message.payload.starts_with(b"bad") => {
                ack.complete(Outcome::Invalid("it is bad".into()));
            }
            Answering::AtOnce => ack.complete(Outcome::Accepted),
            Answering::Held => self.held.lock().unwrap().push((message, ack)),
            Answering::Dropped => drop(ack),
        }
        async {}.boxed()
    }

    fn delivered(&self, topic: &Topic, receipt: u64) {
        self.delivered.send((topic.to_string(), receipt)).unwrap();
    }

    fn event(&self, event: SessionEvent) {
        let on_event = self.on_event.lock().unwrap().clone();
        if let Some(on_event) = on_event {
            on_event(&event);
        }
        self.events.send(event).unwrap();
    }
}

/// So that a payload reads well in an assertion.
pub(crate) fn text(payload: &Bytes) -> &str {
    std::str::from_utf8(payload).unwrap()
}
