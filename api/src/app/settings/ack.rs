//! Acknowledgements: taken from sessions, settled in batches.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::json;
use setpoint_broker::{Ack as Completion, Outcome as Answer};
use setpoint_model::{
    DeviceId, Serial,
    event::SettingsStage,
    settings::{Ack, Rejection, Schema, ack::Issued},
    timeline::{Entry, Facts},
};
use setpoint_store::settings::{AckedVersion, LockedSettings, Outcome, Reported, Settings};
use tokio::sync::mpsc;

use crate::app::{App, Error};

/// An acknowledgement as it came from a session.
#[derive(Debug)]
pub struct Acknowledgement {
    /// The device, by its session (or the topic, when an operator speaks for it).
    pub serial: Serial,
    /// The payload, unread.
    pub payload: Bytes,
    /// When the edge read it.
    pub at: DateTime<Utc>,
    /// Completed when it is settled.
    pub done: Completion,
}

/// The way to be settled. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Acknowledgements(mpsc::Sender<Acknowledgement>);

impl Acknowledgements {
    pub(super) fn new(capacity: usize) -> (Self, mpsc::Receiver<Acknowledgement>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self(sender), receiver)
    }

    /// Hands an acknowledgement over. Waits while too many wait already. At shutdown it is dropped, unanswered, and
    /// the device sends it again.
    pub async fn submit(&self, acknowledgement: Acknowledgement) {
        if self.0.send(acknowledgement).await.is_err() {
            tracing::debug!("an acknowledgement came too late");
        }
    }
}

/// An acknowledgement that was read.
struct Item {
    serial: Serial,
    at: DateTime<Utc>,
    ack: Result<Ack, Rejection>,
}

/// A device's settings while the acknowledgements of a batch are applied to them, one after the other.
struct Working {
    settings: Settings,
    schema: Arc<Schema>,
    reported_at: Option<DateTime<Utc>>,
}

/// What a batch is to write.
#[derive(Default)]
struct Writes {
    versions: HashMap<(DeviceId, i64), AckedVersion>,
    entries: Vec<Entry>,
}

impl App {
    /// Settles acknowledgements in their order, in one transaction. Each is then completed, unless the database
    /// failed: then nothing was done, and the same batch can be settled again.
    ///
    /// An acknowledgement that makes no sense changes nothing; it is counted and stands in the device's timeline.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn settle(&self, batch: &mut Vec<Acknowledgement>) -> Result<(), Error> {
        let items: Vec<Item> = batch
            .iter()
            .map(|acknowledgement| self.read(acknowledgement))
            .collect();
        let verdicts = self.settle_read(items).await?;
        for (item, verdict) in batch.drain(..).zip(verdicts) {
            item.done.complete(self.answer(&item.serial, item.at, verdict));
        }
        Ok(())
    }

    fn read(&self, acknowledgement: &Acknowledgement) -> Item {
        let Acknowledgement {
            serial, payload, at, ..
        } = acknowledgement;
        Item {
            serial: serial.clone(),
            at: *at,
            ack: Ack::parse(payload, self.settings.limits),
        }
    }

    async fn settle_read(&self, items: Vec<Item>) -> Result<Vec<Verdict>, Error> {
        let good = items.iter().filter(|item| item.ack.is_ok());
        let serials: Vec<&str> = good.map(|item| item.serial.as_str()).collect();
        if serials.is_empty() {
            return Ok(items
                .into_iter()
                .filter_map(|item| item.ack.err())
                .map(Verdict::Rejected)
                .collect());
        }
        let mut locked = self.store.lock_settings(&serials).await?;
        let mut devices = self.working(&mut locked).await?;
        let mut writes = Writes::default();
        let apply = |item: Item| match (item.ack, devices.get_mut(&item.serial)) {
            (Err(rejection), _) => Verdict::Rejected(rejection),
            (Ok(ack), Some(device)) => device.apply(ack, item.at, &mut writes),
            (Ok(_), None) => Verdict::NoDevice,
        };
        let verdicts: Vec<Verdict> = items.into_iter().map(apply).collect();
        let reported: Vec<Reported> = devices.into_values().filter_map(Working::into_reported).collect();
        if reported.is_empty() {
            locked.release().await?;
            return Ok(verdicts);
        }
        let versions: Vec<AckedVersion> = writes.versions.into_values().collect();
        locked.write_acks(&reported, &versions).await?;
        locked.commit().await?;
        for entry in writes.entries {
            self.tell_answer(&entry);
            self.timeline.record(entry);
        }
        Ok(verdicts)
    }

    /// Tells those who listen what a device made of its settings.
    fn tell_answer(&self, Entry { serial, at, facts }: &Entry) {
        let (version, stage, told) = match facts {
            Facts::SettingsApplied { version } => (version, SettingsStage::Applied, json!({})),
            Facts::SettingsRefused { version, errors } => {
                (version, SettingsStage::Refused, json!({"errors": errors}))
            }
            _ => return,
        };
        self.events.settings(serial, *version, stage, *at, told);
    }

    async fn working(&self, locked: &mut LockedSettings) -> Result<HashMap<Serial, Working>, Error> {
        let settings = locked.devices().to_vec();
        let mut devices = HashMap::with_capacity(settings.len());
        for settings in settings {
            let schema = self
                .schema_of(locked, &settings.model, settings.model_version)
                .await?;
            devices.insert(
                settings.serial.clone(),
                Working {
                    settings,
                    schema,
                    reported_at: None,
                },
            );
        }
        Ok(devices)
    }

    /// Counts a verdict, tells the timeline, and says what the session is to hear.
    fn answer(&self, serial: &Serial, at: DateTime<Utc>, verdict: Verdict) -> Answer {
        let metrics = &self.settings.metrics;
        let rejection = match verdict {
            Verdict::Settled(outcome) => {
                metrics.acknowledged(outcome);
                return Answer::Accepted;
            }
            Verdict::NoDevice => {
                metrics.acknowledged("no_device");
                return Answer::Invalid("there is no such device".to_owned());
            }
            Verdict::Rejected(rejection) => rejection,
        };
        metrics.acknowledged(rejection.code());
        let reason = rejection.to_string();
        tracing::debug!(%serial, reason, "settings acknowledgement rejected");
        let facts = Facts::AckRejected {
            reason: reason.clone(),
        };
        self.timeline.record(Entry {
            serial: serial.clone(),
            at,
            facts,
        });
        Answer::Invalid(reason)
    }
}

/// What became of one acknowledgement.
enum Verdict {
    Settled(&'static str),
    NoDevice,
    Rejected(Rejection),
}

impl Working {
    fn apply(&mut self, ack: Ack, at: DateTime<Utc>, writes: &mut Writes) -> Verdict {
        let Self {
            settings,
            schema,
            reported_at,
        } = self;
        let issued = Issued {
            first: settings.first_version,
            current: settings.version,
            acknowledged: settings.reported_version,
        };
        let known = |key: &str| schema.contains(key) || settings.document.contains_key(key);
        if let Err(rejection) = ack.check(issued, known) {
            return Verdict::Rejected(rejection);
        }
        let status = settings.status.acknowledged(&settings.document, &ack, at);
        let running = ack.running(settings.reported.as_ref(), &settings.document, &status);
        let first = settings.reported_version != Some(ack.version);
        if !first && status == settings.status && settings.reported.as_ref() == Some(&running) {
            return Verdict::Settled("repeated");
        }
        let version = ack.version;
        let (name, outcome, facts) = if !ack.errors.is_empty() {
            let errors = serde_json::to_value(&ack.errors).unwrap_or_default();
            (
                "refused",
                Outcome::Refused(ack.errors),
                Some(Facts::SettingsRefused { version, errors }),
            )
        } else if status.in_place(version) {
            (
                "applied",
                Outcome::Applied,
                Some(Facts::SettingsApplied { version }),
            )
        } else {
            ("differing", Outcome::Heard, None)
        };
        let device_id = settings.device_id;
        let acked = AckedVersion {
            device_id,
            version,
            outcome,
            at,
        };
        writes.add(acked);
        let serial = settings.serial.clone();
        writes
            .entries
            .extend(facts.map(|facts| Entry { serial, at, facts }));
        settings.status = status;
        settings.reported = Some(running);
        settings.reported_version = Some(version);
        *reported_at = Some(at);
        Verdict::Settled(name)
    }

    fn into_reported(self) -> Option<Reported> {
        let Settings {
            device_id,
            status,
            reported,
            reported_version,
            ..
        } = self.settings;
        let (at, settings, version) = (self.reported_at?, reported?, reported_version?);
        Some(Reported {
            device_id,
            version,
            settings,
            status,
            at,
        })
    }
}

impl Writes {
    /// Adds an outcome; of two for the same version the later counts, unless it says nothing.
    fn add(&mut self, acked: AckedVersion) {
        let key = (acked.device_id, acked.version);
        if acked.outcome != Outcome::Heard || !self.versions.contains_key(&key) {
            self.versions.insert(key, acked);
        }
    }
}
