//! From a change to the device: how long, and how many a second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use serde_json::json;
use setpoint_model::Channel;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Bench, BenchError, Changes, Report, Target, failed,
    idle::first_error,
    publisher,
    session::{Heard, Session},
    topic,
};
use crate::{
    summary::Latencies,
    wire::{Login, Wire, WireError},
};

/// Sessions being made at once.
const CONNECTS: usize = 200;
/// How long deliveries may lag behind the last change.
const LAG: Duration = Duration::from_secs(10);

/// The bench `settings`.
#[derive(Debug, Clone, Args)]
pub struct SettingsBench {
    /// Devices connected; each is changed in turn
    #[arg(long, default_value_t = 1000)]
    pub devices: usize,
    /// Changes to make
    #[arg(long, default_value_t = 10_000)]
    pub changes: usize,
    /// Changes under way at once
    #[arg(long, default_value_t = 8)]
    pub in_flight: usize,
    /// Changes a second; 0 makes them as fast as they are accepted
    #[arg(long, default_value_t = 0)]
    pub rate: u32,
    /// Devices don't publish an acknowledgement of their settings
    #[arg(long)]
    pub no_ack: bool,
}

/// The part of a settings document that benches read: the label says which change it is.
#[derive(Deserialize)]
pub(in crate::bench) struct Document {
    pub(in crate::bench) settings: Labelled,
}

#[derive(Deserialize)]
pub(in crate::bench) struct Labelled {
    pub(in crate::bench) label: Option<String>,
}

/// When each change was asked for, and what came of it.
struct Ledger {
    began: Instant,
    /// Microseconds after `began`, by change; 0 until it is asked for and again once it was delivered.
    asked: Vec<AtomicU64>,
    delivered: AtomicU64,
    to_device: Latencies,
    answers: Latencies,
    /// Microseconds after `began` of the last delivery.
    last: AtomicU64,
}

impl Ledger {
    fn new(changes: usize) -> Self {
        Self {
            began: Instant::now(),
            asked: std::iter::repeat_with(AtomicU64::default).take(changes).collect(),
            delivered: AtomicU64::new(0),
            to_device: Latencies::default(),
            answers: Latencies::default(),
            last: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    fn asked(&self, change: usize) {
        if let Some(at) = self.asked.get(change) {
            at.store(self.now(), Ordering::Release);
        }
    }

    /// A message arrived; the repetition of a document counts once. False if it is no document.
    fn arrived(&self, payload: &[u8]) -> bool {
        let Ok(document) = serde_json::from_slice::<Document>(payload) else {
            return false;
        };
        let change = document.settings.label.as_deref().and_then(change_of);
        if let Some(asked) = change.and_then(|change| self.asked.get(change)) {
            let asked = asked.swap(0, Ordering::AcqRel);
            if asked > 0 {
                let now = self.now();
                self.to_device
                    .record(Duration::from_micros(now.saturating_sub(asked)));
                self.last.fetch_max(now, Ordering::Relaxed);
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
        }
        true
    }
}

fn label(change: usize) -> String {
    format!("bench-{change}")
}

fn change_of(label: &str) -> Option<usize> {
    label.strip_prefix("bench-")?.parse().ok()
}

impl Bench for SettingsBench {
    fn devices(&self) -> usize {
        self.devices
    }

    async fn run(&self, target: &Target) -> Result<Report, BenchError> {
        let ledger = Arc::new(Ledger::new(self.changes));
        let shared = Arc::new(target.clone());
        let ready = Arc::new(Semaphore::new(0));
        let slots = Arc::new(Semaphore::new(CONNECTS));
        let mut devices = JoinSet::new();
        for login in &target.logins {
            let login = login.clone();
            let (target, ledger) = (Arc::clone(&shared), Arc::clone(&ledger));
            let (ready, slots, acknowledges) = (Arc::clone(&ready), Arc::clone(&slots), !self.no_ack);
            devices.spawn(async move {
                let slot = slots.acquire_owned().await;
                let mut session = Session::subscribed(&target, &login)
                    .await
                    .map_err(failed(&login))?;
                drop(slot);
                ready.add_permits(1);
                let ended = device(&mut session, &login, &ledger, acknowledges).await;
                ended.map_err(failed(&login))
            });
        }
        let all = u32::try_from(self.devices).unwrap_or(u32::MAX);
        tokio::select! {
            _ = ready.acquire_many(all) => {}
            error = first_error(&mut devices) => return Err(error),
        }

        let began = Instant::now();
        let first = ledger.now();
        let next = Arc::new(AtomicU64::new(0));
        let mut changers = JoinSet::new();
        for worker in 0..self.in_flight.max(1) {
            let changer = Changer::new(&shared, worker).await?;
            let work = Work {
                target: Arc::clone(&shared),
                ledger: Arc::clone(&ledger),
                next: Arc::clone(&next),
                changes: self.changes,
                rate: self.rate,
                began,
            };
            changers.spawn(work.run(changer));
        }
        while let Some(ended) = changers.join_next().await {
            ended??;
        }
        let asking = began.elapsed();
        self.settle(&ledger).await;

        let delivered = ledger.delivered.load(Ordering::Relaxed);
        let asked = u64::try_from(self.changes).unwrap_or(u64::MAX);
        let until_last = Duration::from_micros(ledger.last.load(Ordering::Relaxed).saturating_sub(first));
        let mut report = Report::new("settings", &target.name);
        report.count("devices", "devices", u64::from(all));
        report.count("changes", "changes", asked);
        report.rate("accepted", "accepted", asked, asking);
        report.latencies("answer", "answer", ledger.answers.quantiles());
        report.rate("delivered", "delivered", delivered, until_last);
        report.latencies("to_device", "change to device", ledger.to_device.quantiles());
        // A change that a newer one of the same device overtook is never sent: the device wants the newest.
        report.count("overtaken", "overtaken or lost", asked.saturating_sub(delivered));
        report.resident(target.pid);
        Ok(report)
    }
}

impl SettingsBench {
    /// Waits until all changes arrived, or none has for a while.
    async fn settle(&self, ledger: &Ledger) {
        let until = Instant::now() + LAG;
        let mut seen = ledger.delivered.load(Ordering::Relaxed);
        let mut quiet = 0;
        while Instant::now() < until
            && quiet < 20
            && usize::try_from(seen).is_ok_and(|seen| seen < self.changes)
        {
            sleep(Duration::from_millis(50)).await;
            let now = ledger.delivered.load(Ordering::Relaxed);
            quiet = if now == seen { quiet + 1 } else { 0 };
            seen = now;
        }
    }
}

/// Hears documents, and acknowledges them as devices do, until the connection ends.
async fn device(
    session: &mut Session,
    login: &Login,
    ledger: &Ledger,
    acknowledges: bool,
) -> Result<(), WireError> {
    let ack = topic(&login.serial, Channel::SettingsAck);
    loop {
        if let Heard::Message(publish) = session.next().await?
            && ledger.arrived(&publish.payload)
            && acknowledges
        {
            // The device runs all it was sent: its acknowledgement has the document's own shape and content.
            session.wire.queue_publish(ack.clone(), publish.payload, false)?;
            session.wire.flush().await?;
        }
    }
}

/// What changes settings.
enum Changer {
    Rest(crate::rest::Rest),
    Publish(Box<Wire>, Channel),
}

impl Changer {
    async fn new(target: &Target, worker: usize) -> Result<Self, BenchError> {
        match &target.changes {
            Changes::Rest(rest) => Ok(Self::Rest(rest.clone())),
            Changes::Publish(token, channel) => {
                let login = publisher(worker, token.clone())?;
                let wire = Wire::connect(target.addr, &login, true, super::session::KEEP_ALIVE).await;
                Ok(Self::Publish(Box::new(wire.map_err(failed(&login))?), *channel))
            }
        }
    }

    /// Makes one change and waits until it is accepted.
    async fn change(&mut self, login: &Login, change: usize) -> Result<(), BenchError> {
        match self {
            Self::Rest(rest) => {
                rest.patch_settings(&login.serial, &json!({ "label": label(change) }))
                    .await?;
                Ok(())
            }
            Self::Publish(wire, channel) => {
                let publish = async {
                    let retain = *channel == Channel::Settings;
                    let document = document(change, &label(change));
                    wire.queue_publish(topic(&login.serial, *channel), document, retain)?;
                    wire.flush().await?;
                    wire.next().await
                };
                publish.await.map(|_| ()).map_err(failed(login))
            }
        }
    }
}

/// A settings document of the model `home`, as the server would send it.
pub(super) fn document(version: usize, label: &str) -> Bytes {
    let settings = json!({
        "label": label, "privacyMode": false, "reportInterval": 60, "temperatureUnit": "celsius"
    });
    json!({ "version": version, "settings": settings })
        .to_string()
        .into()
}

/// A worker's share of the changes.
struct Work {
    target: Arc<Target>,
    ledger: Arc<Ledger>,
    next: Arc<AtomicU64>,
    changes: usize,
    rate: u32,
    began: Instant,
}

impl Work {
    async fn run(self, mut changer: Changer) -> Result<(), BenchError> {
        let logins = &self.target.logins;
        loop {
            let ticket = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(change) = usize::try_from(ticket)
                .ok()
                .filter(|change| *change < self.changes)
            else {
                return Ok(());
            };
            let Some(login) = change
                .checked_rem(logins.len())
                .and_then(|index| logins.get(index))
            else {
                return Err(BenchError::Options(
                    "settings need at least one device".to_owned(),
                ));
            };
            if let (Ok(turn), true) = (u32::try_from(change), self.rate > 0) {
                sleep_until(self.began + Duration::from_secs(1) * turn / self.rate).await;
            }
            self.ledger.asked(change);
            let asked = Instant::now();
            changer.change(login, change).await?;
            self.ledger.answers.record(asked.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_found_again_in_the_document_and_counts_once() {
        let ledger = Ledger::new(10);
        ledger.asked(7);
        assert!(ledger.arrived(&document(3, &label(7))));
        assert!(ledger.arrived(&document(3, &label(7))));
        assert_eq!(ledger.delivered.load(Ordering::Relaxed), 1);
        assert_eq!(ledger.to_device.quantiles().count, 1);
    }

    #[test]
    fn documents_of_others_are_not_counted() {
        let ledger = Ledger::new(10);
        for text in ["HALL", "bench-", "bench-10", "bench-x"] {
            assert!(ledger.arrived(&document(1, text)));
        }
        assert!(ledger.arrived(br#"{"version":1,"settings":{}}"#));
        assert!(!ledger.arrived(b"no document"));
        assert_eq!(ledger.delivered.load(Ordering::Relaxed), 0);
    }
}
