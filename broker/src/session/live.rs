//! A session's connection, as others see it: how to wake it, end it and answer it.

use std::{
    num::NonZeroU16,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::task::AtomicWaker;
use setpoint_model::presence::DisconnectReason;
use tokio::sync::oneshot;

use super::{
    state::Session,
    window::{Answer, Kind, Window},
};
use crate::{
    backend::{Ack, Outcome, SessionInfo},
    status::SessionStatus,
};

/// The connection of a session. Its task owns the socket; everybody else has this.
#[derive(Debug)]
pub(crate) struct Live {
    /// Unique in this process.
    pub(crate) number: u64,
    /// What others may know.
    pub(crate) info: Arc<SessionInfo>,
    /// Whose connection it is.
    pub(crate) session: Arc<Session>,
    pub(crate) waker: AtomicWaker,
    pub(crate) traffic: Traffic,
    inner: Mutex<Inner>,
}

/// What went through a connection.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    window: Window,
    ending: Option<Ending>,
    stage: Stage,
    /// Closed when the session is gone.
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// In the registry, but not yet welcomed.
    #[default]
    Registered,
    Started,
    Gone,
}

/// An end that somebody else asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) reason: DisconnectReason,
    /// Acknowledge first what is in hand.
    pub(crate) drain: bool,
}

impl Live {
    pub(crate) fn new(number: u64, info: Arc<SessionInfo>, session: Arc<Session>) -> Self {
        Self {
            number,
            info,
            session,
            waker: AtomicWaker::new(),
            traffic: Traffic::default(),
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the connection to end. The first reason counts; one without `drain` cuts a draining one short.
    pub(crate) fn end(&self, reason: DisconnectReason, drain: bool) {
        {
            let mut inner = self.lock();
            match &mut inner.ending {
                None => inner.ending = Some(Ending { reason, drain }),
                Some(ending) => ending.drain &= drain,
            }
        }
        self.waker.wake();
    }

    /// The end that was asked for.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.lock().ending
    }

    /// Resolves (with an error, by design) once the session is gone from the registry.
    pub(crate) fn gone(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        if inner.stage != Stage::Gone {
            inner.waiting.push(sender);
        }
        receiver
    }

    pub(crate) fn is_started(&self) -> bool {
        self.lock().stage == Stage::Started
    }

    pub(crate) fn set_started(&self) {
        self.lock().stage = Stage::Started;
    }

    pub(crate) fn set_gone(&self) {
        let mut inner = self.lock();
        inner.stage = Stage::Gone;
        inner.waiting.clear();
    }

    /// With the window of messages that wait for the server.
    pub(crate) fn window<T>(&self, f: impl FnOnce(&mut Window) -> T) -> T {
        f(&mut self.lock().window)
    }

    fn answer(&self, slot: u64, answer: Answer) {
        if self.window(|window| window.answer(slot, answer)) {
            self.waker.wake();
        }
    }

    /// Takes a message into the window, and makes what the backend answers it with.
    pub(crate) fn ack(self: &Arc<Self>, kind: Kind) -> Ack {
        let slot = self.window(|window| window.push(kind, None));
        let live = Arc::clone(self);
        Ack::new(move |outcome| {
            let answer = match (kind, outcome) {
                // Watchers have it, and a PUBREC with an error would end the exchange: it goes to its end, exactly
                // once. The topics of devices ask for QoS 0 or 1; the timeline tells what was wrong.
                (Kind::Received(_), Some(Outcome::Invalid(_))) => Answer::Outcome(Outcome::Accepted),
                (_, Some(outcome)) => Answer::Outcome(outcome),
                (_, None) => Answer::Lost,
            };
            if let Kind::Received(id) = kind {
                live.finish_received(id, &answer);
            }
            live.answer(slot, answer);
        })
    }

    /// A QoS 2 message is dealt with, perhaps after its connection is gone.
    fn finish_received(&self, id: NonZeroU16, answer: &Answer) {
        let again = self.session.lock().received.finish(id, *answer != Answer::Lost);
        if let Some((live, slot)) = again {
            live.answer(slot, answer.clone());
        }
    }

    /// The session with its figures.
    pub(crate) fn status(&self) -> SessionStatus {
        let state = self.session.lock();
        SessionStatus {
            info: Arc::clone(&self.info),
            subscriptions: state.subscriptions.iter().map(|s| s.filter.to_string()).collect(),
            queued: state.queued(),
            in_flight: state.in_flight(),
            messages_in: self.traffic.messages_in.load(Ordering::Relaxed),
            messages_out: self.traffic.messages_out.load(Ordering::Relaxed),
            bytes_in: self.traffic.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.traffic.bytes_out.load(Ordering::Relaxed),
        }
    }
}
