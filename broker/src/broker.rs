//! The broker as a whole: what everything in the edge shares, and how it starts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::registry::Registry;
use setpoint_model::{Clock, Serial, TopicFilter, filter::Reach};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::{Connections, Logins},
    backend::Backend,
    bus::{self, Bus, Link},
    config::Config,
    edge::Edge,
    error::Error,
    handle::Handle,
    message::Message,
    metrics::{Metrics, Waiting},
    operators::Operators,
    session::{Session, Subscription},
    shard::Shard,
};

/// How often what expired is looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What everything in the edge shares.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    shards: Vec<Shard>,
    pub(crate) operators: Operators,
    pub(crate) connections: Arc<Connections>,
    pub(crate) logins: Logins,
    numbers: AtomicU64,
    /// Connections, each with its session.
    pub(crate) sessions: TaskTracker,
    /// Everything else.
    pub(crate) tasks: TaskTracker,
    /// No new connections.
    pub(crate) closing: CancellationToken,
    /// No new messages.
    pub(crate) stop: CancellationToken,
}

impl Core {
    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The shard with this number, which must be one.
    #[expect(
        clippy::indexing_slicing,
        reason = "numbers of shards come from the list of shards alone"
    )]
    pub(crate) fn shard_at(&self, index: usize) -> &Shard {
        &self.shards[index]
    }

    /// The shard of a device.
    pub(crate) fn shard(&self, serial: &Serial) -> &Shard {
        self.shard_at(Shard::of(serial, self.shards.len()))
    }

    /// A number that nothing else in this process has.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Hands a message to its shard. Waits while that is busy.
    pub(crate) async fn publish(&self, message: Message) -> Result<(), crate::error::ShuttingDown> {
        let shard = self.shard(&message.topic.serial);
        shard
            .publish(message, &self.config, &self.metrics)
            .await
            .map(drop)
    }

    /// Subscribes a session wherever its filter reaches.
    pub(crate) fn subscribe(
        &self,
        session: &Arc<Session>,
        subscription: &Arc<Subscription>,
        reach: &Reach,
        replay: bool,
    ) {
        match reach {
            Reach::Device(serial) => {
                self.shard(serial)
                    .subscribe(Some(serial), session, subscription, replay);
            }
            Reach::Fleet | Reach::Discovery => {
                for shard in &self.shards {
                    shard.subscribe(None, session, subscription, replay);
                }
            }
            // Answers go to the session that asked, without a shard.
            Reach::Responses | Reach::Nothing => {}
        }
    }

    /// Takes a subscription back.
    pub(crate) fn unsubscribe(&self, session: u64, filter: &TopicFilter) {
        match filter.reach(&self.config.discovery) {
            Reach::Device(serial) => self.shard(&serial).unsubscribe(Some(&serial), session, filter),
            Reach::Fleet | Reach::Discovery => self
                .shards
                .iter()
                .for_each(|shard| shard.unsubscribe(None, session, filter)),
            Reach::Responses | Reach::Nothing => {}
        }
    }

    /// Takes back all subscriptions of an operator's session that is over. What others share with it goes to them.
    pub(crate) fn forget_operator(&self, session: &Session) {
        let subscriptions = std::mem::take(&mut session.lock().subscriptions);
        for subscription in subscriptions {
            self.unsubscribe(session.id, &subscription.filter);
        }
        let rest = session.lock().take_shared();
        for delivery in rest {
            let message = &delivery.message;
            if let Some(shared) = &delivery.shared {
                self.shard(&message.topic.serial)
                    .pass_on(message, shared, &self.config, &self.metrics);
            }
        }
    }

    /// Looks for what expired, now and then.
    async fn sweep(self: Arc<Self>, backend: Arc<dyn Backend>) {
        let mut interval = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            let now = Instant::now();
            let mut waiting = Waiting::default();
            for shard in &self.shards {
                let over = {
                    let mut state = shard.lock();
                    let over = state.sweep(now);
                    let sessions = state.devices.values().flat_map(|device| &device.sessions);
                    sessions.for_each(|session| session.lock().count_waiting(&mut waiting));
                    over
                };
                for session in over {
                    crate::session::wind_up(&self, &backend, &session).await;
                }
                tokio::task::yield_now().await;
            }
            for session in self.operators.sweep(now) {
                self.forget_operator(&session);
                crate::session::wind_up(&self, &backend, &session).await;
            }
            for session in self.operators.sessions() {
                session.lock().count_waiting(&mut waiting);
            }
            self.metrics.queued(waiting);
            self.logins.sweep(&self.config);
            let deepest = self.shards.iter().map(Shard::depth).max().unwrap_or(0);
            self.metrics
                .queue_depth
                .set(i64::try_from(deepest).unwrap_or(i64::MAX));
        }
    }
}

/// The router shards and everything that sessions share, before any session.
pub struct Broker {
    core: Arc<Core>,
}

impl Broker {
    /// Starts the router shards. Must be called within a Tokio runtime; blocks for as long as it takes to start a
    /// thread per shard.
    ///
    /// # Errors
    /// When the configuration makes no sense, or a router can't be started.
    pub fn new(config: Config, clock: Arc<dyn Clock>, metrics: &mut Registry) -> Result<Self, Error> {
        config.check().map_err(Error::Config)?;
        let mut shards = Vec::with_capacity(config.shards);
        let mut links: Vec<(Link, mpsc::Receiver<Arc<Message>>)> = Vec::with_capacity(config.shards);
        for index in 0..config.shards {
            let (shard, queue) = Shard::new(index, bus::QUEUE);
            shards.push(shard);
            links.push((Link::start(index)?, queue));
        }
        let core = Arc::new(Core {
            config,
            clock,
            metrics: Metrics::register(metrics),
            shards,
            operators: Operators::default(),
            connections: Arc::default(),
            logins: Logins::default(),
            numbers: AtomicU64::new(1),
            sessions: TaskTracker::new(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        for (index, (link, queue)) in links.into_iter().enumerate() {
            core.tasks
                .spawn(Bus::new(Arc::clone(&core), index, link).run(queue));
        }
        Ok(Self { core })
    }

    /// The server's side of the edge.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.core))
    }

    /// Opens the edge for sessions, which `backend` serves.
    pub fn start(self, backend: Arc<dyn Backend>) -> Edge {
        self.core
            .tasks
            .spawn(Arc::clone(&self.core).sweep(Arc::clone(&backend)));
        Edge::new(self.core, backend)
    }
}
