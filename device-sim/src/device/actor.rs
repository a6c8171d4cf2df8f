//! The task behind a [`Device`](super::Device): one loop over its connection, its timers and its orders.

mod hearing;

use std::{collections::VecDeque, time::Duration};

use serde::Serialize;
use setpoint_model::{Channel, Topic};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    DeviceOptions, Ended, Order, PublishError, Session, State,
    sampler::Sampler,
    traffic::{Outgoing, Purpose, Traffic},
};
use crate::{
    behaviour::{Behaviour, FirmwareStatus},
    event::Event,
    link::{Heard, Link, Loss},
};

/// How long a leaving device waits for its DISCONNECT to be written, and for the server to close.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a session ended.
enum Left {
    Stopped,
    NotAuthorized,
    Lost {
        reason: String,
    },
    Away {
        reason: &'static str,
        away: Duration,
        keeps_link: bool,
    },
}

pub(super) struct Actor {
    options: DeviceOptions,
    orders: mpsc::Receiver<Order>,
    state: watch::Sender<State>,
    stop: CancellationToken,
    /// Since CONNACK.
    connected: bool,
    behaviour: Behaviour,
    sampler: Option<Sampler>,
    traffic: Traffic,
    firmware: VecDeque<FirmwareStatus>,
    firmware_at: Option<Instant>,
    subscribed_at: Option<Instant>,
    leave_at: Option<Instant>,
}

impl Actor {
    pub(super) fn new(
        options: DeviceOptions,
        orders: mpsc::Receiver<Order>,
        state: watch::Sender<State>,
        stop: CancellationToken,
    ) -> Self {
        let behaviour = Behaviour::new(options.refuse.iter().cloned());
        let sampler = options
            .telemetry
            .clone()
            .map(|plan| Sampler::new(plan, &options.serial));
        Self {
            options,
            orders,
            state,
            stop,
            connected: false,
            behaviour,
            sampler,
            traffic: Traffic::default(),
            firmware: VecDeque::new(),
            firmware_at: None,
            subscribed_at: None,
            leave_at: None,
        }
    }

    pub(super) async fn run(mut self) {
        let ended = self.live().await;
        self.traffic.forget();
        match ended {
            Ended::Stopped => self.tell(&Event::Stopped {
                was_connected: self.connected,
            }),
            Ended::NotAuthorized => self.tell(&Event::NotAuthorized),
        }
        self.state.send_modify(|state| {
            state.ready = false;
            state.ended = Some(ended);
        });
    }

    async fn live(&mut self) -> Ended {
        if !self.pause(self.options.start_after).await {
            return Ended::Stopped;
        }
        let mut link = Link::new(&self.options);
        let mut failures = 0;
        loop {
            let (reason, retry_in) = match self.session(&mut link).await {
                Left::Stopped => return Ended::Stopped,
                Left::NotAuthorized => return Ended::NotAuthorized,
                Left::Lost { reason } => {
                    failures = if self.connected { 1 } else { failures + 1 };
                    if self.options.session == Session::Clean {
                        self.traffic.forget();
                    }
                    (reason, self.options.backoff.wait(failures))
                }
                Left::Away {
                    reason,
                    away,
                    keeps_link,
                } => {
                    failures = 0;
                    if !keeps_link {
                        link = Link::new(&self.options);
                        self.traffic.forget();
                    }
                    (reason.to_owned(), away)
                }
            };
            let was_connected = std::mem::take(&mut self.connected);
            self.state.send_modify(|state| state.ready = false);
            self.tell(&Event::Disconnected {
                reason,
                was_connected,
                retry_in,
            });
            if !self.pause(retry_in).await {
                return Ended::Stopped;
            }
        }
    }

    /// Waits, refusing orders meanwhile; false if the device is to stop.
    async fn pause(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = sleep_until(until) => return true,
                Some(order) = self.orders.recv() => {
                    if let Order::Publish { done, .. } = order {
                        // Whoever ordered it may have stopped waiting.
                        let _ = done.send(Err(PublishError::NotSent));
                    }
                }
            }
        }
    }

    /// Dials, and lives through one session.
    async fn session(&mut self, link: &mut Link) -> Left {
        let dialled = Instant::now();
        self.leave_at = None;
        loop {
            let due = self.next_due();
            tokio::select! {
                () = self.stop.cancelled() => {
                    if self.connected {
                        self.say_goodbye(link).await;
                    }
                    return Left::Stopped;
                }
                heard = link.next() => match heard {
                    Heard::Connected { session_present } => {
                        self.begin_session(link, session_present, dialled.elapsed());
                    }
                    Heard::Lost(Loss::NotAuthorized) => return Left::NotAuthorized,
                    Heard::Lost(Loss::Other(reason)) => return Left::Lost { reason },
                    heard => self.hear(heard),
                },
                () = sleep_until(due) => {
                    let now = Instant::now();
                    if let (true, Some(absence)) = (self.leave_at.is_some_and(|at| at <= now), self.options.absence) {
                        let keeps_link = self.say_goodbye(link).await;
                        return Left::Away { reason: "offline for a while", away: absence.away, keeps_link };
                    }
                    self.report_firmware(now);
                    self.sample(now);
                }
                Some(order) = self.orders.recv() => match order {
                    Order::Cut { away } => return Left::Away { reason: "cut off", away, keeps_link: false },
                    Order::Leave { away } => {
                        let keeps_link = self.connected && self.say_goodbye(link).await;
                        return Left::Away { reason: "left", away, keeps_link };
                    }
                    Order::Publish { channel, at_least_once, payload, done } => {
                        let purpose = Purpose::Ordered { done };
                        if self.connected {
                            self.queue(Outgoing { channel, at_least_once, payload, purpose });
                        } else {
                            purpose.settle(Err(PublishError::NotSent));
                        }
                    }
                },
            }
            if self.connected {
                self.submit(link);
            }
        }
    }

    /// The next moment something is to be done; far away if nothing is.
    fn next_due(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        if !self.connected {
            return far;
        }
        [
            self.leave_at,
            self.firmware_at,
            self.sampler.as_ref().and_then(Sampler::due),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(far)
    }

    fn begin_session(&mut self, link: &Link, session_present: bool, took: Duration) {
        let now = Instant::now();
        self.connected = true;
        if !session_present {
            self.traffic.forget();
        }
        self.behaviour.session_began();
        let serial = &self.options.serial;
        let own = [Channel::Settings, Channel::Commands, Channel::Firmware];
        let filters = own.map(|channel| Topic::new(serial.clone(), channel).to_string());
        if !link.subscribe(filters) {
            tracing::warn!(%serial, "no room to subscribe");
        }
        self.subscribed_at = Some(now);
        self.leave_at = self
            .options
            .absence
            .map(|a| now + a.every.mul_f64(0.8 + 0.4 * fastrand::f64()));
        if let Some(sampler) = &mut self.sampler {
            sampler.session_began(now);
        }
        self.state.send_modify(|state| state.connects += 1);
        self.tell(&Event::Connected {
            session_present,
            took,
        });
    }

    fn sample(&mut self, now: Instant) {
        let asked = self.behaviour.report_interval();
        let at = self.options.clock.now();
        let Some(sampler) = &mut self.sampler else { return };
        if let Some(sample) = sampler.sample(asked, now, at) {
            let at_least_once = sampler.at_least_once();
            let payload = sample.to_string().into_bytes();
            let purpose = Purpose::Telemetry { sample };
            self.queue(Outgoing {
                channel: Channel::Telemetry,
                at_least_once,
                payload,
                purpose,
            });
        }
    }

    fn report(&mut self, channel: Channel, body: &impl Serialize, purpose: Purpose) {
        match serde_json::to_vec(body) {
            Ok(payload) => self.queue(Outgoing {
                channel,
                at_least_once: true,
                payload,
                purpose,
            }),
            Err(error) => tracing::error!(serial = %self.options.serial, %error, "cannot write a report"),
        }
    }

    fn queue(&mut self, outgoing: Outgoing) {
        if let Some(turned_away) = self.traffic.queue(outgoing) {
            if let Purpose::Telemetry { .. } = turned_away.purpose {
                self.tell(&Event::TelemetryDropped);
            }
            turned_away.purpose.settle(Err(PublishError::NotSent));
        }
    }

    fn submit(&mut self, link: &Link) {
        let serial = &self.options.serial;
        self.traffic.submit(|outgoing| {
            let topic = Topic::new(serial.clone(), outgoing.channel).to_string();
            link.publish(topic, outgoing.at_least_once, outgoing.payload.clone())
        });
    }

    /// Says DISCONNECT and waits for the server to close; true if it did, so that the link can be used on.
    async fn say_goodbye(&mut self, link: &mut Link) -> bool {
        let until = Instant::now() + GOODBYE;
        while !link.say_goodbye() {
            // The queue is full: let the connection make room.
            match timeout(until.saturating_duration_since(Instant::now()), link.next()).await {
                Ok(Heard::Lost(_)) => return true,
                Ok(heard) => self.hear(heard),
                Err(_) => return false,
            }
        }
        let mut written = false;
        loop {
            let patience = if written {
                Duration::from_millis(200)
            } else {
                GOODBYE
            };
            tokio::select! {
                heard = link.next() => match heard {
                    Heard::Lost(_) => return true,
                    Heard::SaidGoodbye => written = true,
                    heard => self.hear(heard),
                },
                () = sleep(patience) => return false,
            }
            if written && self.stop.is_cancelled() {
                return false;
            }
        }
    }

    fn tell(&self, event: &Event) {
        (self.options.observer)(&self.options.serial, event);
    }
}
