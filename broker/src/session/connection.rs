//! The task that owns a client's socket.
//!
//! One hand-written poll does everything a connection waits for: the backend, its acknowledgements, messages to send,
//! the socket in both directions, and one timer. So an idle session is a small future without buffers: bytes are read
//! into the stack and written from a buffer that lives as long as there is something in it.

use std::{
    future::Future,
    mem::MaybeUninit,
    num::NonZeroU16,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use bytestring::ByteString;
use futures_util::{FutureExt, future::BoxFuture};
use rmqtt_codec::{
    types::{Publish, QoS},
    v5::{DisconnectReasonCode, Packet, PublishAck2, PublishAck2Reason, PublishProperties},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};
use tracing::Instrument;

use super::{
    connect::{Welcome, connect},
    finish::{End, Parting, finish},
    live::Live,
    outbound::Next,
    rate::{Allowance, Rate},
    state::Delivery,
};
use crate::{
    admission::Place,
    backend::{Backend, Peer, Version},
    broker::Core,
    metrics::{Dropped, Limit},
    wire::{Wire, frame_length},
};

/// Bytes read at once.
const READ: usize = 8 * 1024;
/// Bytes to write beyond which no more messages are added.
const WRITE: usize = 32 * 1024;
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
    io: S,
    pub(super) wire: Wire,
    input: BytesMut,
    pub(super) output: BytesMut,
    /// Written bytes may wait in the stream.
    unflushed: bool,
    /// Since when bytes have waited for the client to read.
    blocked: Option<Instant>,
    /// A message that the backend is about to take.
    pub(super) pending: Option<BoxFuture<'a, ()>>,
    window: usize,
    pub(super) max_packet: u32,
    /// One and a half keep-alives; zero is none.
    patience: Duration,
    heard: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    rate: Rate,
    paused: Option<Instant>,
    /// The topics behind the aliases that the client set.
    pub(super) aliases: Vec<ByteString>,
    /// The topics behind the aliases that the client was told.
    told_aliases: Vec<ByteString>,
    max_told_aliases: usize,
    pub(super) denied: Vec<Instant>,
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
            rate: Rate::new(allowance(core), now),
            paused: None,
            aliases: Vec::new(),
            told_aliases: Vec::new(),
            max_told_aliases: usize::from(aliases.min(core.config.topic_alias_maximum)),
            denied: Vec::new(),
            will,
            live,
        }
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
        moved |= self.poll_pending(cx);
        moved |= self.acknowledge()?;
        if !draining && !self.input.is_empty() && self.may_read() {
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
        if !draining && self.may_read() {
            moved |= self.read(cx)?;
        }
        Ok(moved)
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>) -> bool {
        let done = self
            .pending
            .as_mut()
            .is_some_and(|pending| pending.as_mut().poll(cx).is_ready());
        if done {
            self.pending = None;
        }
        done
    }

    /// Whether another packet may be taken: the backend keeps up, and so does the client's allowance.
    fn may_read(&self) -> bool {
        self.pending.is_none() && self.paused.is_none() && {
            let max = usize::from(self.core.config.receive_maximum);
            self.live.window(|window| window.len() < max)
        }
    }

    /// Takes packets from `bytes` for as long as that is allowed; how many bytes they were.
    fn consume(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, End> {
        let mut used = 0;
        while self.may_read() {
            let rest = bytes.get(used..).unwrap_or_default();
            let limit = self.core.config.max_packet_size;
            let length = frame_length(rest, self.live.info.version, limit).inspect_err(|breach| {
                if breach.code == DisconnectReasonCode::PacketTooLarge {
                    self.core.metrics.limit(Limit::PacketSize);
                }
            })?;
            let Some(frame) = length.and_then(|length| rest.get(..length)) else {
                break;
            };
            used += frame.len();
            let packet = self.wire.decode(frame)?;
            self.heard = Instant::now();
            self.count(&packet, frame.len())?;
            self.handle(packet)?;
            self.poll_pending(cx);
            self.acknowledge()?;
        }
        Ok(used)
    }

    /// Counts a packet against the client's allowance. Its acknowledgements are bounded by what it is sent.
    fn count(&mut self, packet: &Packet, length: usize) -> Result<(), End> {
        if matches!(
            packet,
            Packet::PublishAck(_)
                | Packet::PublishReceived(_)
                | Packet::PublishRelease(_)
                | Packet::PublishComplete(_)
        ) {
            return Ok(());
        }
        let allowance = allowance(self.core);
        if self.rate.take(length, allowance, self.heard) {
            self.core.metrics.limit(Limit::RateSlowed);
        }
        if self.rate.slowed_for(self.heard) > self.core.config.rate_patience {
            self.core.metrics.limit(Limit::RateEnded);
            return Err(End::Limit(DisconnectReasonCode::MessageRateTooHigh));
        }
        self.paused = self.rate.pause(allowance, self.heard);
        Ok(())
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut scratch = [const { MaybeUninit::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut scratch);
        match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(_)) => return Err(End::Lost),
            Poll::Ready(Ok(())) => {}
        }
        let bytes = buffer.filled();
        if bytes.is_empty() {
            return Err(End::Lost);
        }
        let count = u64::try_from(bytes.len()).unwrap_or(0);
        self.live.traffic.bytes_in.fetch_add(count, Ordering::Relaxed);
        if self.input.is_empty() {
            let used = self.consume(bytes, cx)?;
            self.input = BytesMut::from(bytes.get(used..).unwrap_or_default());
        } else {
            self.input.extend_from_slice(bytes);
        }
        Ok(true)
    }

    /// Adds messages to what is to be written.
    fn fill(&mut self) {
        if self.output.len() >= WRITE {
            return;
        }
        let live = Arc::clone(&self.live);
        let mut state = live.session.lock();
        // Taken over between two polls: what waits belongs to the next connection.
        if !state
            .live
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, &live))
        {
            return;
        }
        let now = Instant::now();
        while self.output.len() < WRITE {
            let Some(next) = state.next(self.window, now, &self.core.metrics) else {
                return;
            };
            match next {
                Next::Publish { delivery, id, dup } => {
                    if self.send(delivery, id, dup, now) {
                        continue;
                    }
                    self.core.metrics.dropped(Dropped::TooLarge);
                    if let Some(id) = id {
                        // [MQTT-3.1.2-25]: as if it had been delivered.
                        state.abandon(id);
                    }
                }
                Next::Release(packet_id) => {
                    let reason_code = PublishAck2Reason::Success;
                    let ack = PublishAck2 {
                        packet_id,
                        reason_code,
                        properties: Vec::new(),
                        reason_string: None,
                    };
                    self.wire.encode(Packet::PublishRelease(ack), 0, &mut self.output);
                }
            }
        }
    }

    /// Encodes one message; `false` if it is larger than the client takes.
    fn send(&mut self, delivery: Delivery, packet_id: Option<NonZeroU16>, dup: bool, now: Instant) -> bool {
        let Delivery {
            message,
            qos,
            retain,
            ids,
        } = delivery;
        let alias = self.alias(&message.name);
        let properties = (self.wire.version() == Version::V5).then(|| {
            let mut properties = message
                .properties
                .as_deref()
                .cloned()
                .unwrap_or_else(PublishProperties::default);
            properties.subscription_ids = ids;
            properties.message_expiry_interval = message.remaining_expiry(now);
            properties.topic_alias = alias.map(|(alias, _)| alias);
            properties
        });
        let known = alias.is_some_and(|(_, known)| known);
        let publish = Publish {
            dup: dup && qos != QoS::AtMostOnce,
            retain,
            qos,
            topic: if known {
                ByteString::new()
            } else {
                message.name.clone()
            },
            packet_id,
            payload: message.payload.clone(),
            properties,
        };
        let sent = self.wire.encode(
            Packet::Publish(Box::new(publish)),
            self.max_packet,
            &mut self.output,
        );
        if sent {
            if alias.is_some() && !known {
                // A copy, so that it does not pin the packet it came in.
                self.told_aliases.push(ByteString::from(&*message.name));
            }
            self.core
                .metrics
                .sent(message.topic.channel, message.payload.len());
            self.live.traffic.messages_out.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// The alias of a topic, and whether the client was told already; the first topics have one, as many as the
    /// client allows [MQTT-3.1.2-26].
    fn alias(&self, name: &ByteString) -> Option<(NonZeroU16, bool)> {
        let index = self.told_aliases.iter().position(|told| told == name);
        let next = self.told_aliases.len();
        let index = index.or((next < self.max_told_aliases).then_some(next))?;
        let alias = u16::try_from(index + 1).ok().and_then(NonZeroU16::new)?;
        Some((alias, index < next))
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while !self.output.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.output) {
                Poll::Ready(Ok(written @ 1..)) => {
                    self.output.advance(written);
                    let count = u64::try_from(written).unwrap_or(0);
                    self.live.traffic.bytes_out.fetch_add(count, Ordering::Relaxed);
                    self.blocked = None;
                    self.unflushed = true;
                    moved = true;
                }
                Poll::Ready(_) => return Err(End::Lost),
                Poll::Pending => {
                    self.blocked.get_or_insert_with(Instant::now);
                    return Ok(moved);
                }
            }
        }
        if moved {
            self.output = BytesMut::new();
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    self.blocked = None;
                }
                Poll::Ready(Err(_)) => return Err(End::Lost),
                Poll::Pending => {
                    self.blocked.get_or_insert_with(Instant::now);
                }
            }
        }
        Ok(moved)
    }

    /// Waits for the next deadline. Ready with an end, or with `None` if something may be tried again.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        loop {
            let now = Instant::now();
            if self.paused.is_some_and(|until| until <= now) {
                self.paused = None;
                return Poll::Ready(None);
            }
            if !self.may_read() {
                // While we don't listen, the client's silence means nothing.
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

fn allowance(core: &Core) -> Allowance {
    Allowance {
        packets: core.config.max_messages_per_second,
        bytes: core.config.max_bytes_per_second,
    }
}
