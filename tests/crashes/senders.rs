//! Clients that number their samples, keep what was not acknowledged, and send it again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use setpoint_model::{Clock as _, SystemClock};
use setpoint_tests::{Device, Mqtt, Version, wait};
use tokio::sync::watch;

/// Messages of one client that may be unacknowledged.
pub(super) const WINDOW: usize = 20;

/// Samples in one request.
pub(super) const BATCH: u64 = 5;

/// How a client sends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Mqtt(Version),
    Http,
}

/// How many samples were acknowledged, to all clients together, and how many are to be.
#[derive(Debug)]
pub(super) struct Progress {
    acknowledged: watch::Sender<u64>,
    enough: u64,
}

impl Progress {
    /// Clients send until so many were acknowledged.
    pub(super) fn until(enough: u64) -> Self {
        Self {
            acknowledged: watch::Sender::new(0),
            enough,
        }
    }

    /// Clients send until they are cut off.
    pub(super) fn endless() -> Self {
        Self::until(u64::MAX)
    }

    fn add(&self, samples: u64) {
        self.acknowledged.send_modify(|count| *count += samples);
    }

    /// How many were acknowledged so far.
    pub(super) fn count(&self) -> u64 {
        *self.acknowledged.borrow()
    }

    fn goes_on(&self) -> bool {
        self.count() < self.enough
    }

    /// Waits until so many were acknowledged.
    pub(super) async fn reaches(&self, count: u64) {
        let mut acknowledged = self.acknowledged.subscribe();
        let reached = acknowledged.wait_for(|seen| *seen >= count);
        wait::within(format!("{count} acknowledgements"), reached)
            .await
            .expect("clients that send");
    }
}

/// One client, with its own book of what it sent and what was acknowledged.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) device: Device,
    way: Way,
    begun: DateTime<Utc>,
    /// The first number that was not sent.
    next: u64,
    /// Sent, and not acknowledged.
    open: BTreeSet<u64>,
    pub(super) acknowledged: BTreeSet<u64>,
}

impl Sender {
    pub(super) fn new(device: Device, way: Way) -> Self {
        Self {
            device,
            way,
            begun: SystemClock.now(),
            next: 0,
            open: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    /// Sends, first again what was not acknowledged, until there is enough or the server is gone. Whether it is there.
    pub(super) async fn send(&mut self, progress: &Progress) -> bool {
        match self.way {
            Way::Mqtt(version) => {
                let Ok(session) = self.device.mqtt(version).attempt().await else {
                    return false;
                };
                self.publish(session, progress).await
            }
            Way::Http => self.post(progress).await,
        }
    }

    /// All of one session.
    async fn publish(&mut self, mut session: Mqtt, progress: &Progress) -> bool {
        let topic = self.device.topic("telemetry");
        let mut again: VecDeque<u64> = self.open.iter().copied().collect();
        let mut window = BTreeMap::new();
        loop {
            while window.len() < WINDOW {
                let number = match again.pop_front() {
                    Some(number) => number,
                    None if progress.goes_on() => self.number(),
                    None => break,
                };
                if !session
                    .send_or_ended(&topic, 1, self.sample(number).to_string())
                    .await
                {
                    return false;
                }
                let Some(packet) = session.sent_or_ended().await else {
                    return false;
                };
                window.insert(packet, number);
            }
            if window.is_empty() {
                return session.is_connected();
            }
            let Some(packet) = session.acknowledged().await else {
                return false;
            };
            let number = window
                .remove(&packet)
                .expect("an acknowledgement of what was sent");
            self.acknowledge(number, progress);
        }
    }

    /// Requests, one after another.
    async fn post(&mut self, progress: &Progress) -> bool {
        while !self.open.is_empty() || progress.goes_on() {
            if self.open.is_empty() {
                for _ in 0..BATCH {
                    self.number();
                }
            }
            let numbers: Vec<u64> = self.open.iter().copied().collect();
            let batch: Vec<Value> = numbers.iter().map(|number| self.sample(*number)).collect();
            let api = self.device.api.anonymous();
            let call = api.post(&self.device.path("/telemetry"));
            let call = call.basic(&self.device.serial, &self.device.token);
            let Some(answer) = call.json(&Value::from(batch)).attempt().await else {
                return false;
            };
            if answer.status == 503 {
                // Nothing of it may be taken for stored.
                wait::pause().await;
                continue;
            }
            assert_eq!(answer.expect(200)["stored"], numbers.len());
            for number in numbers {
                self.acknowledge(number, progress);
            }
        }
        true
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.open.insert(number);
        number
    }

    /// A number has one time, so what is sent again is a duplicate.
    fn sample(&self, number: u64) -> Value {
        let after = TimeDelta::milliseconds(i64::try_from(number).expect("a small number"));
        json!({"n": number, "at": self.begun + after})
    }

    fn acknowledge(&mut self, number: u64, progress: &Progress) {
        self.open.remove(&number);
        self.acknowledged.insert(number);
        progress.add(1);
    }

    /// Every stored value of `n`, as often as it is there, in order.
    async fn stored(&self) -> Vec<u64> {
        let (mut numbers, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/telemetry?metric=n&limit=1000{cursor}");
            let page = self.device.api.get(&self.device.path(&path)).await.expect(200);
            let items = page["items"].as_array().unwrap();
            numbers.extend(items.iter().map(|item| item["value"].as_u64().unwrap()));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        numbers.sort_unstable();
        numbers
    }

    /// Every sample is stored once at most, those that were acknowledged all are, and nothing else is but what was sent.
    pub(super) async fn check(&self, when: &str) {
        let serial = &self.device.serial;
        let stored = self.stored().await;
        let once: BTreeSet<u64> = stored.iter().copied().collect();
        assert_eq!(stored.len(), once.len(), "{when}: {serial} has samples twice");
        let lost: Vec<&u64> = self.acknowledged.difference(&once).collect();
        let count = self.acknowledged.len();
        assert!(
            lost.is_empty(),
            "{when}: {serial} lost {lost:?} of {count} acknowledged"
        );
        let sent = once.iter().all(|number| *number < self.next);
        assert!(sent, "{when}: {serial} has samples that nobody sent");
    }
}
