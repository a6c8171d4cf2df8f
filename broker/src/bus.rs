//! The ordered log of a shard: an embedded rumqttd router between those who publish and [`Shard::deliver`].
//!
//! The router knows one link, one topic and one filter for good, since it never frees any; who hears what is the
//! shard's business. What is in the router is bounded well below what it silently drops or blocks at: its event
//! channel of 1,000, the 200 notifications of a link, and the log's segments.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use rumqttd::{
    Notification, Router, RouterConfig,
    local::{LinkBuilder, LinkError, LinkRx, LinkTx},
    protocol::{Packet, Publish},
};
use tokio::{sync::mpsc, time::Instant};

use crate::{broker::Core, error::Error, message::Message, shard::Shard};

/// Messages handed to a shard that may wait for its bus; beyond it, publishers wait.
pub(crate) const QUEUE: usize = 1_024;
/// Messages in the router at once.
const CREDITS: usize = 128;
/// The size of a log segment in bytes. The log keeps two, so that this much is always safe from being rolled off.
const SEGMENT: usize = 64 * 1024;
/// The one topic and filter.
const TOPIC: &str = "m";
/// A router that gives nothing back for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to start a router.
const RETRY: Duration = Duration::from_millis(100);

/// A router thread and the one link to it.
pub(crate) struct Link {
    tx: LinkTx,
    rx: LinkRx,
}

impl Link {
    /// Starts a router and attaches to it. Blocks for as long as a thread takes to start.
    ///
    /// The thread lives until the process does, parked once the link is dropped: the router holds a sender of its own
    /// queue, so it never sees that nobody is left, and it has no other end than a panic (rumqttd 0.20,
    /// `router/routing.rs`). A server makes one broker and restarts routers only after they died, so nothing grows;
    /// a process that makes many brokers, as tests do, keeps their threads.
    pub(crate) fn start(shard: usize) -> Result<Self, Error> {
        let config = RouterConfig {
            max_connections: 4,
            max_outgoing_packet_count: u64::try_from(CREDITS).unwrap_or(u64::MAX),
            max_segment_size: SEGMENT,
            max_segment_count: 2,
            ..RouterConfig::default()
        };
        let router = Router::new(shard, config).spawn();
        let failed = |error: LinkError| Error::Router {
            shard,
            cause: error.to_string(),
        };
        let (mut tx, rx, _) = LinkBuilder::new("setpoint", router).build().map_err(failed)?;
        tx.subscribe(TOPIC).map_err(failed)?;
        Ok(Self { tx, rx })
    }

    /// Hands messages to the router. Never blocks: each is one event at most, and [`CREDITS`] bounds them.
    async fn send(&mut self, messages: impl IntoIterator<Item = &Arc<Message>>) -> Result<(), LinkError> {
        let mut packets = messages
            .into_iter()
            .map(|message| packet(message.payload.clone()));
        let Some(first) = packets.next() else {
            return Ok(());
        };
        let last = {
            let mut buffer = self.tx.buffer();
            packets.fold(first, |before, packet| {
                buffer.push_back(before);
                packet
            })
        };
        self.tx.send(last).await.map(drop)
    }
}

fn packet(payload: Bytes) -> Packet {
    Packet::Publish(
        Publish::new(Bytes::from_static(TOPIC.as_bytes()), payload, false),
        None,
    )
}

/// What a bus waits for.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for one turn of the loop, on the stack"
)]
enum Event {
    Router(Result<Option<Notification>, LinkError>),
    Message(Option<Arc<Message>>),
    Stuck,
    Kill,
}

/// The bus of one shard, from its queue through its router to its subscribers.
pub(crate) struct Bus {
    core: Arc<Core>,
    shard: usize,
    link: Link,
    /// What is in the router, in order: what came back is delivered, what a dead router had is sent again.
    in_router: VecDeque<Arc<Message>>,
    in_router_bytes: usize,
    progress: Instant,
}

impl Bus {
    pub(crate) fn new(core: Arc<Core>, shard: usize, link: Link) -> Self {
        let progress = Instant::now();
        Self {
            core,
            shard,
            link,
            in_router: VecDeque::new(),
            in_router_bytes: 0,
            progress,
        }
    }

    /// Runs until the broker stops and everything handed in is delivered.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Arc<Message>>) {
        let core = Arc::clone(&self.core);
        let mut open = true;
        loop {
            let busy = !self.in_router.is_empty();
            if !open && !busy {
                return;
            }
            let event = tokio::select! {
                () = core.stop.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    continue;
                }
                notification = self.link.rx.next() => Event::Router(notification),
                message = queue.recv(), if open && self.has_room() => Event::Message(message),
                () = tokio::time::sleep_until(self.progress + PATIENCE), if busy => Event::Stuck,
                () = killed(core.shard_at(self.shard)) => Event::Kill,
            };
            let result = match event {
                Event::Router(Ok(notification)) => self.notified(notification).await,
                Event::Router(Err(error)) => Err(error),
                Event::Message(Some(message)) => self.forward(message, &mut queue).await,
                Event::Message(None) => {
                    open = false;
                    Ok(())
                }
                Event::Stuck => {
                    tracing::error!(shard = self.shard, "router gives nothing back");
                    self.restart().await;
                    Ok(())
                }
                Event::Kill => self.poison().await,
            };
            if let Err(error) = result {
                tracing::error!(shard = self.shard, %error, "router died");
                self.restart().await;
            }
            self.shard()
                .health
                .in_router
                .store(self.in_router.len(), Ordering::Relaxed);
        }
    }

    fn shard(&self) -> &Shard {
        self.core.shard_at(self.shard)
    }

    fn has_room(&self) -> bool {
        self.in_router.is_empty() || (self.in_router.len() < CREDITS && self.in_router_bytes < SEGMENT)
    }

    /// Hands `message` and as many more as there is room for to the router.
    async fn forward(
        &mut self,
        message: Arc<Message>,
        queue: &mut mpsc::Receiver<Arc<Message>>,
    ) -> Result<(), LinkError> {
        let already = self.in_router.len();
        if already == 0 {
            self.progress = Instant::now();
        }
        self.push(message);
        while self.has_room()
            && let Ok(message) = queue.try_recv()
        {
            self.push(message);
        }
        let Self { link, in_router, .. } = self;
        link.send(in_router.iter().skip(already)).await
    }

    fn push(&mut self, message: Arc<Message>) {
        self.in_router_bytes += size(&message);
        self.in_router.push_back(message);
    }

    async fn notified(&mut self, notification: Option<Notification>) -> Result<(), LinkError> {
        match notification {
            Some(Notification::Forward(forward)) => {
                self.returned(&forward.publish.payload);
                Ok(())
            }
            Some(Notification::Unschedule) => self.link.rx.wake().await,
            _ => Ok(()),
        }
    }

    /// A message came back: it is the oldest in the router. Should the router ever lose one, those before the one
    /// that came back are delivered all the same.
    fn returned(&mut self, payload: &Bytes) {
        let same = |message: &Arc<Message>| {
            message.payload.len() == payload.len() && message.payload.as_ptr() == payload.as_ptr()
        };
        let lost = self.in_router.iter().position(same).unwrap_or(0);
        if lost > 0 {
            tracing::error!(shard = self.shard, lost, "router lost messages");
        }
        self.progress = Instant::now();
        for _ in 0..=lost {
            let Some(message) = self.in_router.pop_front() else {
                return;
            };
            self.in_router_bytes -= size(&message);
            let lag = self.progress.saturating_duration_since(message.at);
            self.core.metrics.delivered(lag);
            self.shard()
                .deliver(&message, &self.core.config, &self.core.metrics);
        }
    }

    /// Replaces a dead router by a new one and sends it what the old one still had.
    async fn restart(&mut self) {
        self.shard().health.down.store(true, Ordering::Relaxed);
        loop {
            self.shard().health.restarts.fetch_add(1, Ordering::Relaxed);
            self.core.metrics.router_restarts.inc();
            let shard = self.shard;
            let started = tokio::task::spawn_blocking(move || Link::start(shard)).await;
            match started {
                Ok(Ok(link)) => self.link = link,
                Ok(Err(error)) => tracing::error!(shard, %error, "router did not start"),
                Err(error) => tracing::error!(shard, %error, "router did not start"),
            }
            let Self { link, in_router, .. } = self;
            if link.send(in_router.iter()).await.is_ok() {
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
        self.progress = Instant::now();
        self.shard().health.down.store(false, Ordering::Relaxed);
        tracing::info!(
            shard = self.shard,
            again = self.in_router.len(),
            "router restarted"
        );
    }

    /// Kills the router thread by a topic that it can't slice.
    async fn poison(&mut self) -> Result<(), LinkError> {
        let topic = Bytes::from_static("é/x".as_bytes());
        let packet = Packet::Publish(Publish::new(topic, Bytes::from_static(b"x"), false), None);
        self.link.tx.send(packet).await.map(drop)
    }
}

/// What rumqttd counts against a segment.
fn size(message: &Message) -> usize {
    4 + TOPIC.len() + message.payload.len()
}

#[cfg(feature = "testing")]
async fn killed(shard: &Shard) {
    shard.health.kill.notified().await;
}

#[cfg(not(feature = "testing"))]
async fn killed(_: &Shard) {
    std::future::pending().await
}
