//! One simulated device: what it is given, and the handle to it.

mod actor;
mod sampler;
mod traffic;

use std::{sync::Arc, time::Duration};

use setpoint_model::{Channel, Clock, Serial, SystemClock};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    behaviour::Settings,
    credential::Token,
    endpoint::Endpoint,
    event::{Observer, nobody},
};

/// Orders that may wait for the device.
const ORDERS: usize = 16;

/// The protocol a device speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MqttVersion {
    /// MQTT 3.1.1.
    #[default]
    V3,
    /// MQTT 5.0.
    V5,
}

/// What the server keeps while the device is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Session {
    /// Nothing: Clean Session, or Clean Start without expiry.
    #[default]
    Clean,
    /// Subscriptions and QoS 1 messages; for a day in 5.0.
    Persistent,
}

/// When a device reports its temperature, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryPlan {
    /// How often; `None` follows the setting `reportInterval`.
    pub every: Option<Duration>,
    /// When first after connecting.
    pub first_after: Duration,
    /// QoS 1 if true, else QoS 0.
    pub at_least_once: bool,
}

impl Default for TelemetryPlan {
    fn default() -> Self {
        Self {
            every: None,
            first_after: Duration::ZERO,
            at_least_once: true,
        }
    }
}

/// Regular absences: connected for `every`, then away for `away`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// How long it stays connected; each turn varies by a fifth.
    pub every: Duration,
    /// How long it stays away.
    pub away: Duration,
}

/// How long a device waits before it dials again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(15),
        }
    }
}

impl Backoff {
    /// The wait after `failures` in a row: doubled each time, and anywhere in its upper half, so that a
    /// fleet that lost its server doesn't come back in step.
    pub fn wait(&self, failures: u32) -> Duration {
        let doubled = self
            .first
            .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
        let whole = doubled.min(self.longest);
        whole.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

/// Everything a device is given.
#[derive(Clone)]
pub struct DeviceOptions {
    /// Its name, and its MQTT username.
    pub serial: Serial,
    /// Its password; `None` with a client certificate, or against a broker that asks for none.
    pub token: Option<Token>,
    /// Where it connects.
    pub endpoint: Endpoint,
    /// The protocol it speaks.
    pub version: MqttVersion,
    /// What the server keeps while it is away.
    pub session: Session,
    /// Makes the client id `serial:suffix` instead of the serial alone.
    pub client_suffix: Option<String>,
    /// Settings it refuses to change.
    pub refuse: Vec<String>,
    /// Its telemetry; `None` sends only what [`Device::publish`] is given.
    pub telemetry: Option<TelemetryPlan>,
    /// Whether it goes away now and then.
    pub absence: Option<Absence>,
    /// How it comes back after a failure.
    pub backoff: Backoff,
    /// When it first dials.
    pub start_after: Duration,
    /// Between two reports while a firmware is installed.
    pub firmware_step: Duration,
    /// Told of every event.
    pub observer: Observer,
    /// Where the `at` of a sample comes from.
    pub clock: Arc<dyn Clock>,
}

impl DeviceOptions {
    /// A device with the defaults: 3.1.1, a clean session, telemetry as its settings say.
    pub fn new(serial: Serial, token: Option<Token>, endpoint: Endpoint) -> Self {
        Self {
            serial,
            token,
            endpoint,
            version: MqttVersion::default(),
            session: Session::default(),
            client_suffix: None,
            refuse: Vec::new(),
            telemetry: Some(TelemetryPlan::default()),
            absence: None,
            backoff: Backoff::default(),
            start_after: Duration::ZERO,
            firmware_step: Duration::from_millis(500),
            observer: nobody(),
            clock: Arc::new(SystemClock),
        }
    }

    pub(crate) fn client_id(&self) -> String {
        match &self.client_suffix {
            Some(suffix) => format!("{}:{suffix}", self.serial),
            None => self.serial.to_string(),
        }
    }
}

/// How a device stands, always the newest.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// Whether it is connected and has its subscriptions.
    pub ready: bool,
    /// How often it connected.
    pub connects: u64,
    /// The last settings version it applied.
    pub version: Option<u64>,
    /// What it runs.
    pub settings: Arc<Settings>,
    /// The last version whose acknowledgement the server has (PUBACK).
    pub acknowledged: Option<u64>,
    /// Samples written to the connection.
    pub telemetry_sent: u64,
    /// Samples the server has (PUBACK; QoS 1 alone).
    pub telemetry_acknowledged: u64,
    /// Set once it is over.
    pub ended: Option<Ended>,
}

/// How a device came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop, and said DISCONNECT if it could.
    Stopped,
    /// The server refused its credential.
    NotAuthorized,
}

/// Why a wait came to nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WaitError {
    /// Time ran out.
    #[error("still waiting after {waited:?}; the device stands at {state:?}")]
    TimedOut {
        /// How long it was waited for.
        waited: Duration,
        /// How the device stood then.
        state: Box<State>,
    },
    /// The device ended first.
    #[error("the device ended: {0:?}")]
    Ended(Ended),
}

/// Why a publish is not known to have reached the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The device isn't connected, or its queue is full: nothing was sent.
    #[error("not sent: the device is offline or its queue is full")]
    NotSent,
    /// The session ended before the PUBACK: the server may or may not have it.
    #[error("the session ended before the server acknowledged it")]
    Unknown,
    /// The server refused it (MQTT 5.0 alone).
    #[error("the server refused it")]
    Refused,
}

/// What the handle asks of the actor.
enum Order {
    Publish {
        channel: Channel,
        at_least_once: bool,
        payload: Vec<u8>,
        done: oneshot::Sender<Result<(), PublishError>>,
    },
    /// Cuts the connection without a word, and stays away.
    Cut { away: Duration },
    /// Says DISCONNECT, and stays away.
    Leave { away: Duration },
}

/// A running device. Dropping the handle stops it; [`Device::stop`] also waits for its DISCONNECT.
#[derive(Debug)]
pub struct Device {
    serial: Serial,
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    _stop_on_drop: tokio_util::sync::DropGuard,
}

impl Device {
    /// Starts a device on `tracker`, which shutdown waits for.
    pub fn start(options: DeviceOptions, tracker: &TaskTracker) -> Self {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (watched, state) = watch::channel(State::default());
        let stop = CancellationToken::new();
        let serial = options.serial.clone();
        let actor = actor::Actor::new(options, inbox, watched, stop.clone());
        tracker.spawn(Box::pin(actor.run()));
        Self {
            serial,
            orders,
            state,
            stop: stop.clone(),
            _stop_on_drop: stop.drop_guard(),
        }
    }

    /// Its serial.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// How it stands now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until the device stands as `wanted` says, at most for `limit`.
    ///
    /// # Errors
    /// When time runs out, or the device ends first.
    pub async fn wait(
        &self,
        limit: Duration,
        mut wanted: impl FnMut(&State) -> bool,
    ) -> Result<State, WaitError> {
        let mut state = self.state.clone();
        let reached = timeout(
            limit,
            state.wait_for(|state| wanted(state) || state.ended.is_some()),
        )
        .await;
        let state = match reached {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => return Err(WaitError::Ended(Ended::Stopped)),
            Err(_) => {
                return Err(WaitError::TimedOut {
                    waited: limit,
                    state: Box::new(self.state()),
                });
            }
        };
        match state.ended {
            Some(ended) if !wanted(&state) => Err(WaitError::Ended(ended)),
            _ => Ok(state),
        }
    }

    /// Waits until the device is connected and subscribed.
    ///
    /// # Errors
    /// As [`Device::wait`].
    pub async fn ready(&self, limit: Duration) -> Result<State, WaitError> {
        self.wait(limit, |state| state.ready).await
    }

    /// Waits until the device applied settings of this version or a later one.
    ///
    /// # Errors
    /// As [`Device::wait`].
    pub async fn applied(&self, version: u64, limit: Duration) -> Result<State, WaitError> {
        self.wait(limit, |state| {
            state.version.is_some_and(|applied| applied >= version)
        })
        .await
    }

    /// Publishes on one of the device's own topics. At QoS 1 this ends with the PUBACK, at QoS 0 once it is
    /// written.
    ///
    /// # Errors
    /// When it wasn't sent, was refused, or its fate is unknown.
    pub async fn publish(
        &self,
        channel: Channel,
        at_least_once: bool,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), PublishError> {
        let (done, outcome) = oneshot::channel();
        let order = Order::Publish {
            channel,
            at_least_once,
            payload: payload.into(),
            done,
        };
        self.orders.send(order).await.map_err(|_| PublishError::NotSent)?;
        outcome.await.unwrap_or(Err(PublishError::Unknown))
    }

    /// Cuts the connection without DISCONNECT, as a power cut does, and dials again after `away`.
    pub async fn cut(&self, away: Duration) {
        // A device that has ended is cut off already.
        let _ = self.orders.send(Order::Cut { away }).await;
    }

    /// Says DISCONNECT, and dials again after `away`.
    pub async fn leave(&self, away: Duration) {
        // A device that has ended has left already.
        let _ = self.orders.send(Order::Leave { away }).await;
    }

    /// Tells the device to say DISCONNECT and end, without waiting.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Says DISCONNECT and waits for the end of the device, a second or so at most.
    pub async fn stop(self) -> Ended {
        self.stop.cancel();
        let mut state = self.state.clone();
        let ended = match state.wait_for(|state| state.ended.is_some()).await {
            Ok(state) => state.ended,
            Err(_) => None,
        };
        ended.unwrap_or(Ended::Stopped)
    }
}

#[cfg(test)]
mod tests;
