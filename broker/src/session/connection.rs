//! The task that owns a client's socket.
//!
//! One hand-written poll does everything a connection waits for: the backend, its acknowledgements, messages to send,
//! the socket in both directions, and one timer. So an idle session is a small future without buffers: bytes are read
//! into the stack and written from a buffer that lives as long as there is something in it.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use bytestring::ByteString;
use futures_util::{FutureExt, future::BoxFuture};
use rmqtt_codec::v5::DisconnectReasonCode;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};
use tracing::Instrument;

use super::{
    connect::{Welcome, connect},
    denied::Denied,
    finish::{End, Parting, finish},
    live::Live,
    rate::{Allowance, Rate},
};
use crate::{
    admission::Place,
    backend::{Backend, Peer},
    broker::Core,
    config::Config,
    metrics::Limit,
    wire::Wire,
};

/// Rounds of a poll after which others get their turn.
const ROUNDS: usize = 16;

/// Runs one connection from its first byte to its end.
pub(crate) async fn run<S>(
    core: Arc<Core>,
    backend: Arc<dyn Backend>,
    mut io: S,
    peer: Peer,
    mut place: Place,
    deadline: Instant,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Boxed, as is the end: an idle session is in neither.
    let connecting = Box::pin(connect(&core, &backend, &mut io, peer, &mut place, deadline));
    let Some(welcome) = connecting.await else { return };
    let live = Arc::clone(&welcome.live);
    let span = match live.info.identity.serial() {
        Some(serial) => tracing::info_span!("session", session = %live.info.id, %serial),
        None => tracing::info_span!("session", session = %live.info.id),
    };
    let mut connection = Connection::new(&core, &*backend, io, welcome);
    let end = AssertUnwindSafe(std::future::poll_fn(|cx| connection.poll(cx)))
        .catch_unwind()
        .instrument(span.clone())
        .await
        .unwrap_or_else(|_| {
            tracing::error!(parent: &span, "a session panicked");
            End::Lost
        });
    let Connection {
        io,
        wire,
        output,
        will,
        pending,
        ..
    } = connection;
    // Its acknowledgement, if it still comes, finds nobody.
    drop(pending);
    let parting = Parting {
        end,
        will,
        wire,
        io,
        output,
    };
    Box::pin(finish(&core, &backend, &live, parting))
        .instrument(span)
        .await;
    drop(place);
}

/// A client's connection.
pub(super) struct Connection<'a, S> {
    pub(super) core: &'a Core,
    pub(super) backend: &'a dyn Backend,
    pub(super) live: Arc<Live>,
    pub(super) io: S,
    pub(super) wire: Wire,
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
    /// Written bytes may wait in the stream.
    pub(super) unflushed: bool,
    /// Since when bytes have waited for the client to read.
    pub(super) blocked: Option<Instant>,
    /// A message that the backend is about to take.
    pub(super) pending: Option<BoxFuture<'a, ()>>,
    pub(super) window: usize,
    pub(super) max_packet: u32,
    /// One and a half keep-alives; zero is none.
    patience: Duration,
    pub(super) heard: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    pub(super) rate: Rate,
    pub(super) paused: Option<Instant>,
    /// The topics behind the aliases that the client set.
    pub(super) aliases: Vec<ByteString>,
    /// The topics behind the aliases that the client was told.
    pub(super) told_aliases: Vec<ByteString>,
    pub(super) max_told_aliases: usize,
    /// What was refused in the last minute.
    pub(super) denied: Vec<Denied>,
    pub(super) will: Option<Box<super::will::Will>>,
}

impl<'a, S> Connection<'a, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn new(core: &'a Core, backend: &'a dyn Backend, io: S, welcome: Welcome) -> Self {
        let Welcome {
            live,
            wire,
            input,
            output,
            window,
            max_packet,
            aliases,
            will,
        } = welcome;
        let now = Instant::now();
        Self {
            core,
            backend,
            io,
            wire,
            input,
            output,
            unflushed: false,
            blocked: None,
            pending: None,
            window: usize::from(window),
            max_packet,
            patience: Duration::from_secs(u64::from(live.info.keep_alive)) * 3 / 2,
            heard: now,
            timer: None,
            rate: Rate::new(allowance(&core.config), now),
            paused: None,
            aliases: Vec::new(),
            told_aliases: Vec::new(),
            max_told_aliases: usize::from(aliases.min(core.config.topic_alias_maximum)),
            denied: Vec::new(),
            will,
            live,
        }
    }

    /// What the client may send per second.
    pub(super) fn allowance(&self) -> Allowance {
        allowance(&self.core.config)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        // Before any state is looked at, so that no change of it is missed.
        self.live.waker.register(cx.waker());
        for _ in 0..ROUNDS {
            match self.round(cx) {
                Ok(true) => {}
                Ok(false) => match ready!(self.poll_timer(cx)) {
                    Some(end) => return Poll::Ready(end),
                    None => continue,
                },
                Err(end) => return Poll::Ready(end),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One look at everything; whether anything moved.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        let mut draining = false;
        if let Some(ending) = self.live.ending() {
            draining = ending.drain;
            if !draining || (self.pending.is_none() && self.live.window(|window| window.len()) == 0) {
                return Err(End::Asked(ending.reason));
            }
        }
        if !self.is_listening() {
            // While we don't listen, the client's silence means nothing.
            self.heard = Instant::now();
        }
        moved |= self.poll_pending(cx);
        moved |= self.acknowledge()?;
        if !draining && !self.input.is_empty() && self.may_take() {
            let mut input = std::mem::take(&mut self.input);
            let used = self.consume(&input, cx)?;
            input.advance(used);
            if !input.is_empty() {
                self.input = input;
            }
            moved |= used > 0;
        }
        self.fill();
        moved |= self.write(cx)?;
        if !draining && self.is_listening() {
            moved |= self.read(cx)?;
        }
        Ok(moved)
    }

    pub(super) fn poll_pending(&mut self, cx: &mut Context<'_>) -> bool {
        let done = self
            .pending
            .as_mut()
            .is_some_and(|pending| pending.as_mut().poll(cx).is_ready());
        if done {
            self.pending = None;
        }
        done
    }

    /// Waits for the next deadline. Ready with an end, or with `None` if something may be tried again.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        loop {
            let now = Instant::now();
            if self.paused.is_some_and(|until| until <= now) {
                self.paused = None;
                return Poll::Ready(None);
            }
            if !self.is_listening() {
                self.heard = now;
            }
            let silence = (!self.patience.is_zero()).then(|| self.heard + self.patience);
            if silence.is_some_and(|at| at <= now) {
                return Poll::Ready(Some(End::KeepAlive));
            }
            let stuck = self.blocked.map(|since| since + self.core.config.write_timeout);
            if stuck.is_some_and(|at| at <= now) {
                self.core.metrics.limit(Limit::WriteTimeout);
                return Poll::Ready(Some(End::Limit(DisconnectReasonCode::QuotaExceeded)));
            }
            let Some(next) = [silence, stuck, self.paused].into_iter().flatten().min() else {
                self.timer = None;
                return Poll::Pending;
            };
            // A timer that fires too early is set anew then: cheaper than setting it with every packet.
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            if timer.deadline() > next || timer.is_elapsed() {
                timer.as_mut().reset(next);
            }
            ready!(timer.as_mut().poll(cx));
        }
    }
}

fn allowance(config: &Config) -> Allowance {
    Allowance {
        packets: config.max_messages_per_second,
        bytes: config.max_bytes_per_second,
    }
}
