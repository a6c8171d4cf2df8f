//! The task behind a [`Device`](super::Device): one loop over its connection, its timers and its orders.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use setpoint_model::{Channel, Topic};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{DeviceOptions, Ended, Order, PublishError, State};
use crate::{
    behaviour::{
        self, Behaviour, Command, FirmwareOffer, FirmwareStatus, Heard as Outcome, SettingsDocument,
    },
    event::Event,
    link::{Heard, Link, Loss},
    weather::Weather,
};

/// Publishes that wait for room in the connection.
const OUTBOX: usize = 64;
/// How long a leaving device waits for its DISCONNECT to be written, and for the server to close.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a publish was for.
enum Purpose {
    Acknowledgement {
        version: u64,
    },
    Telemetry {
        sample: Value,
    },
    Report,
    Ordered {
        done: oneshot::Sender<Result<(), PublishError>>,
    },
}

struct Outgoing {
    channel: Channel,
    at_least_once: bool,
    payload: Vec<u8>,
    purpose: Purpose,
}

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
    weather: Weather,
    /// Not yet given to the connection.
    outbox: VecDeque<Outgoing>,
    /// Given to the connection, packet id not yet known; in the order of the requests.
    submitted: VecDeque<(Purpose, Instant)>,
    /// Written at QoS 1, PUBACK outstanding.
    in_flight: Vec<(u16, Purpose, Instant)>,
    firmware: VecDeque<FirmwareStatus>,
    firmware_at: Option<Instant>,
    telemetry_at: Option<Instant>,
    last_sample: Option<Instant>,
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
        let weather = Weather::around(&options.serial);
        Self {
            options,
            orders,
            state,
            stop,
            connected: false,
            behaviour,
            weather,
            outbox: VecDeque::new(),
            submitted: VecDeque::new(),
            in_flight: Vec::new(),
            firmware: VecDeque::new(),
            firmware_at: None,
            telemetry_at: None,
            last_sample: None,
            subscribed_at: None,
            leave_at: None,
        }
    }

    pub(super) async fn run(mut self) {
        let ended = self.live().await;
        self.forget_session();
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
                        self.forget_session();
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
                            fail(purpose, PublishError::NotSent);
                        }
                    }
                },
            }
            if self.connected {
                self.drain_outbox(link);
            }
        }
    }

    /// The next moment something is to be done; far away if nothing is.
    fn next_due(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        if !self.connected {
            return far;
        }
        [self.leave_at, self.firmware_at, self.telemetry_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(far)
    }

    fn begin_session(&mut self, link: &Link, session_present: bool, took: Duration) {
        let now = Instant::now();
        self.connected = true;
        if !session_present {
            self.forget_session();
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
        if let Some(plan) = &self.options.telemetry {
            let first = now + plan.first_after;
            self.telemetry_at = Some(self.telemetry_at.map_or(first, |at| at.max(now)));
        }
        self.state.send_modify(|state| state.connects += 1);
        self.tell(&Event::Connected {
            session_present,
            took,
        });
    }

    /// Whatever was on its way in a session that is gone for good.
    fn forget_session(&mut self) {
        let submitted = std::mem::take(&mut self.submitted)
            .into_iter()
            .map(|(purpose, _)| purpose);
        let in_flight = std::mem::take(&mut self.in_flight)
            .into_iter()
            .map(|(_, purpose, _)| purpose);
        for purpose in submitted.chain(in_flight) {
            fail(purpose, PublishError::Unknown);
        }
        for outgoing in std::mem::take(&mut self.outbox) {
            fail(outgoing.purpose, PublishError::NotSent);
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Subscribed { granted: true } => {
                self.state.send_modify(|state| state.ready = true);
                self.tell(&Event::Subscribed);
            }
            Heard::Subscribed { granted: false } => self.tell(&Event::SubscriptionRefused),
            Heard::Message { topic, payload } => self.hear_message(topic, &payload),
            Heard::Sent { id } => self.sent(id),
            Heard::Acknowledged { id, refused } => self.acknowledged(id, refused),
            Heard::SaidGoodbye | Heard::Nothing | Heard::Connected { .. } | Heard::Lost(_) => {}
        }
    }

    fn hear_message(&mut self, topic: String, payload: &Bytes) {
        let heard = match topic.parse::<Topic>().map(|topic| topic.channel) {
            Ok(Channel::Settings) => behaviour::read(payload).map(|document| self.hear_settings(document)),
            Ok(Channel::Commands) => behaviour::read(payload).map(|command| self.hear_command(command)),
            // An empty payload withdraws a firmware.
            Ok(Channel::Firmware) if payload.is_empty() => Ok(()),
            Ok(Channel::Firmware) => behaviour::read(payload).map(|offer| self.hear_firmware(offer)),
            _ => Ok(()),
        };
        if let Err(error) = heard {
            self.tell(&Event::Unreadable {
                topic,
                reason: error.to_string(),
            });
        }
    }

    fn hear_settings(&mut self, document: SettingsDocument) {
        let wanted = std::sync::Arc::new(document.settings.clone());
        match self.behaviour.hear_settings(document) {
            Outcome::Stale { version, current } => self.tell(&Event::StaleSettings { version, current }),
            Outcome::Applied(acknowledgement) => {
                let version = acknowledgement.version;
                let after_subscribe = self.subscribed_at.take().map(|at| at.elapsed());
                self.reschedule_telemetry();
                self.state.send_modify(|state| {
                    state.version = Some(version);
                    state.settings = std::sync::Arc::clone(&acknowledgement.settings);
                });
                let purpose = Purpose::Acknowledgement { version };
                self.report(Channel::SettingsAck, &acknowledgement, purpose);
                let refused = acknowledgement.errors;
                self.tell(&Event::Settings {
                    version,
                    settings: wanted,
                    refused,
                    after_subscribe,
                });
            }
        }
    }

    fn hear_command(&mut self, command: Command) {
        let result = self.behaviour.obey(&command, self.options.clock.now());
        self.report(Channel::CommandResult(command.id), &result, Purpose::Report);
        self.tell(&Event::Command {
            id: command.id,
            name: command.name,
            code: result.code,
        });
    }

    fn hear_firmware(&mut self, offer: FirmwareOffer) {
        self.firmware = self.behaviour.install(offer).into();
        self.firmware_at = Some(Instant::now());
    }

    fn report_firmware(&mut self, now: Instant) {
        if self.firmware_at.is_none_or(|at| at > now) {
            return;
        }
        if let Some(status) = self.firmware.pop_front() {
            self.report(Channel::FirmwareStatus, &status, Purpose::Report);
            self.tell(&Event::Firmware { status });
        }
        self.firmware_at = (!self.firmware.is_empty()).then(|| now + self.options.firmware_step);
    }

    /// The interval may have changed: the next sample is due that long after the last.
    fn reschedule_telemetry(&mut self) {
        let Some(plan) = &self.options.telemetry else {
            return;
        };
        if let (None, Some(last)) = (plan.every, self.last_sample) {
            self.telemetry_at = Some((last + self.behaviour.report_interval()).max(Instant::now()));
        }
    }

    fn sample(&mut self, now: Instant) {
        if self.telemetry_at.is_none_or(|at| at > now) {
            return;
        }
        let Some(plan) = &self.options.telemetry else {
            return;
        };
        let at_least_once = plan.at_least_once;
        let interval = plan.every.unwrap_or_else(|| self.behaviour.report_interval());
        self.last_sample = Some(now);
        self.telemetry_at = Some(now + interval);
        let at = self.options.clock.now();
        let reading = self.weather.read(at);
        let sample = json!({ "temperature": reading.temperature, "humidity": reading.humidity, "at": at });
        let payload = sample.to_string().into_bytes();
        let purpose = Purpose::Telemetry { sample };
        self.queue(Outgoing {
            channel: Channel::Telemetry,
            at_least_once,
            payload,
            purpose,
        });
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

    /// Queues a publish. When the server takes nothing for long, telemetry and orders are turned away first,
    /// and a report then costs the oldest thing that waits: the newest state matters most.
    fn queue(&mut self, outgoing: Outgoing) {
        if self.outbox.len() >= OUTBOX {
            let reports = matches!(
                outgoing.purpose,
                Purpose::Acknowledgement { .. } | Purpose::Report
            );
            let turned_away = if reports { self.outbox.pop_front() } else { None };
            let Some(turned_away) = turned_away else {
                return self.turn_away(outgoing);
            };
            self.turn_away(turned_away);
        }
        self.outbox.push_back(outgoing);
    }

    fn turn_away(&self, outgoing: Outgoing) {
        if let Purpose::Telemetry { .. } = outgoing.purpose {
            self.tell(&Event::TelemetryDropped);
        }
        fail(outgoing.purpose, PublishError::NotSent);
    }

    fn drain_outbox(&mut self, link: &Link) {
        while let Some(outgoing) = self.outbox.pop_front() {
            let Outgoing {
                channel,
                at_least_once,
                payload,
                purpose,
            } = outgoing;
            let topic = Topic::new(self.options.serial.clone(), channel).to_string();
            if !link.publish(topic, at_least_once, payload.clone()) {
                self.outbox.push_front(Outgoing {
                    channel,
                    at_least_once,
                    payload,
                    purpose,
                });
                return;
            }
            self.submitted.push_back((purpose, Instant::now()));
        }
    }

    /// rumqttc takes requests in order, so the oldest submitted is the one that was written; a packet id
    /// that is in flight already is a repetition after a reconnect.
    fn sent(&mut self, id: u16) {
        if id != 0 && self.in_flight.iter().any(|(known, ..)| *known == id) {
            return;
        }
        let Some((purpose, at)) = self.submitted.pop_front() else {
            return;
        };
        if let Purpose::Telemetry { sample } = &purpose {
            self.state.send_modify(|state| state.telemetry_sent += 1);
            self.tell(&Event::TelemetrySent {
                sample: sample.clone(),
            });
        }
        if id != 0 {
            self.in_flight.push((id, purpose, at));
        } else if let Purpose::Ordered { done } = purpose {
            // Whoever ordered it may have stopped waiting.
            let _ = done.send(Ok(()));
        }
    }

    fn acknowledged(&mut self, id: u16, refused: Option<String>) {
        let Some(index) = self.in_flight.iter().position(|(known, ..)| *known == id) else {
            return;
        };
        let (_, purpose, at) = self.in_flight.swap_remove(index);
        if let Some(reason) = refused {
            self.tell(&Event::PublishRefused { reason });
            return fail(purpose, PublishError::Refused);
        }
        let took = at.elapsed();
        match purpose {
            Purpose::Acknowledgement { version } => {
                self.state.send_modify(|state| state.acknowledged = Some(version));
                self.tell(&Event::Acknowledged { version, took });
            }
            Purpose::Telemetry { .. } => {
                self.state.send_modify(|state| state.telemetry_acknowledged += 1);
                self.tell(&Event::TelemetryAcknowledged { took });
            }
            Purpose::Ordered { done } => {
                // Whoever ordered it may have stopped waiting.
                let _ = done.send(Ok(()));
            }
            Purpose::Report => {}
        }
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

/// Tells whoever waits for a publish that it came to nothing.
fn fail(purpose: Purpose, error: PublishError) {
    if let Purpose::Ordered { done } = purpose {
        // Whoever ordered it may have stopped waiting.
        let _ = done.send(Err(error));
    }
}
