//! One change of many devices at once: how long until all of them have it, and what single changes feel of it.

mod ledger;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};
use setpoint_model::Channel;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use uuid::Uuid;

use self::ledger::Ledger;
use super::{
    Bench, BenchError, Changes, Report, Target, failed,
    idle::first_error,
    session::{Heard, Session},
    topic,
};
use crate::{
    rest::Rest,
    wire::{Login, WireError},
};

/// Sessions being made at once.
const CONNECTS: usize = 200;
/// Devices being given their tag at once.
const TAGGINGS: usize = 32;
/// How often a count is looked at that can only be asked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The bench `changes`.
#[derive(Debug, Clone, Args)]
pub struct ChangesBench {
    /// Devices that the change is for, all connected
    #[arg(long, default_value_t = 1000)]
    pub devices: usize,
    /// Change a group's settings, instead of beginning a bulk change
    #[arg(long)]
    pub group: bool,
    /// Further devices, which are changed one by one before and meanwhile
    #[arg(long, default_value_t = 20)]
    pub singles: usize,
    /// Single changes a second
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub single_rate: u32,
    /// How long single changes are measured before the change of many, in seconds
    #[arg(long, default_value_t = 3)]
    pub quiet: u64,
    /// How long to wait for the last device, in seconds
    #[arg(long, default_value_t = 300)]
    pub patience: u64,
}

/// How the many are changed.
enum Many {
    Bulk { serials: Vec<String> },
    Group { name: String },
}

impl Many {
    /// Gets everything ready but the change itself. A group gets its members by a tag of its own.
    async fn prepare(
        bench: &ChangesBench,
        rest: &Rest,
        run: &str,
        logins: &[Login],
    ) -> Result<Self, BenchError> {
        let serials: Vec<String> = logins.iter().map(|login| login.serial.to_string()).collect();
        if !bench.group {
            return Ok(Self::Bulk { serials });
        }
        let mut taggings = JoinSet::new();
        let tags = json!({"tags": {"bench": run}});
        for serial in &serials {
            if taggings.len() >= TAGGINGS {
                taggings.join_next().await.transpose()?.transpose()?;
            }
            let (rest, path, tags) = (rest.clone(), format!("/devices/{serial}"), tags.clone());
            taggings.spawn(async move { rest.send::<Value>(Method::PATCH, &path, Some(&tags)).await });
        }
        while let Some(tagged) = taggings.join_next().await {
            tagged??;
        }
        let name = format!("bench-{run}");
        let group = json!({"name": name, "selector": format!("bench={run}"), "priority": 1, "settings": {}});
        rest.send::<Value>(Method::POST, "/groups", Some(&group)).await?;
        let path = format!("/groups/{name}");
        let until = Instant::now() + Duration::from_secs(bench.patience);
        while Instant::now() < until {
            let group: Value = rest.send(Method::GET, &path, None).await?;
            let settled = group.get("settling").and_then(Value::as_bool) == Some(false);
            if settled && group.get("members").and_then(Value::as_u64) == u64::try_from(serials.len()).ok() {
                return Ok(Self::Group { name });
            }
            sleep(LOOK_EVERY).await;
        }
        Err(BenchError::TimedOut(
            "the group did not get its members".to_owned(),
        ))
    }

    /// Changes them all.
    async fn change(&self, rest: &Rest, label: &str) -> Result<(), BenchError> {
        let settings = json!({"label": label});
        match self {
            Self::Bulk { serials } => {
                let change = json!({"serials": serials, "settings": settings});
                rest.send::<Value>(Method::POST, "/changes", Some(&change))
                    .await?;
            }
            Self::Group { name } => {
                let group = json!({"settings": settings});
                rest.send::<Value>(Method::PATCH, &format!("/groups/{name}"), Some(&group))
                    .await?;
            }
        }
        Ok(())
    }
}

impl Bench for ChangesBench {
    fn devices(&self) -> usize {
        self.devices.saturating_add(self.singles)
    }

    async fn run(&self, target: &Target) -> Result<Report, BenchError> {
        let Changes::Rest(rest) = &target.changes else {
            let message = "a plain broker has nothing like it: this bench has no peer";
            return Err(BenchError::Options(message.to_owned()));
        };
        let many = self.devices.min(target.logins.len());
        let (many, singles) = target.logins.split_at_checked(many).unwrap_or((&[], &[]));
        let run = Uuid::new_v4().simple().to_string();
        let prepared = Many::prepare(self, rest, &run, many).await?;
        let ledger = Arc::new(Ledger::new(format!("all-{run}"), many.len()));
        let mut devices = self.connect(target, &ledger).await?;
        let single = SingleChanges {
            rest: rest.clone(),
            logins: singles.to_vec(),
            ledger: Arc::clone(&ledger),
            every: Duration::from_secs(1) / self.single_rate.max(1),
            enough: Arc::new(AtomicBool::new(false)),
        };
        let enough = Arc::clone(&single.enough);
        let mut changing = JoinSet::new();
        changing.spawn(single.run());
        sleep(Duration::from_secs(self.quiet)).await;

        ledger.begin();
        let asked = Instant::now();
        prepared.change(rest, ledger.label()).await?;
        let answered = asked.elapsed();
        let all = async { ledger.all().await };
        tokio::select! {
            () = all => {}
            error = first_error(&mut devices) => return Err(error),
            () = sleep(Duration::from_secs(self.patience)) => {
                return Err(BenchError::TimedOut(format!("not all devices have it: {}", ledger.standing())));
            }
        }
        enough.store(true, Ordering::Relaxed);
        while let Some(ended) = changing.join_next().await {
            ended??;
        }
        Ok(self.report(&target.name, &ledger, answered, many.len()))
    }
}

impl ChangesBench {
    /// Connects every device, and has it answer what it hears.
    async fn connect(
        &self,
        target: &Target,
        ledger: &Arc<Ledger>,
    ) -> Result<JoinSet<Result<(), BenchError>>, BenchError> {
        let shared = Arc::new(target.clone());
        let ready = Arc::new(Semaphore::new(0));
        let slots = Arc::new(Semaphore::new(CONNECTS));
        let mut devices = JoinSet::new();
        for login in &target.logins {
            let (login, target, ledger) = (login.clone(), Arc::clone(&shared), Arc::clone(ledger));
            let (ready, slots) = (Arc::clone(&ready), Arc::clone(&slots));
            devices.spawn(async move {
                let slot = slots.acquire_owned().await;
                let mut session = Session::subscribed(&target, &login)
                    .await
                    .map_err(failed(&login))?;
                drop(slot);
                ready.add_permits(1);
                let ended = device(&mut session, &login, &ledger).await;
                ended.map_err(failed(&login))
            });
        }
        let all = u32::try_from(target.logins.len()).unwrap_or(u32::MAX);
        tokio::select! {
            _ = ready.acquire_many(all) => {}
            error = first_error(&mut devices) => return Err(error),
        }
        Ok(devices)
    }

    fn report(&self, target: &str, ledger: &Ledger, answered: Duration, devices: usize) -> Report {
        let name = if self.group { "changes --group" } else { "changes" };
        let devices = u64::try_from(devices).unwrap_or(u64::MAX);
        let mut report = Report::new(name, target);
        report.count("devices", "devices", devices);
        report.seconds("answered", "answered", answered);
        report.seconds("all_published", "all published", ledger.all_published());
        report.seconds("all_acknowledged", "all acknowledged", ledger.all_acknowledged());
        report.rate("published", "published", devices, ledger.all_published());
        report.latencies(
            "quiet_answer",
            "single answer, before",
            ledger.quiet.answers.quantiles(),
        );
        report.latencies(
            "quiet_to_device",
            "single to device, before",
            ledger.quiet.to_device.quantiles(),
        );
        report.latencies(
            "busy_answer",
            "single answer, during",
            ledger.busy.answers.quantiles(),
        );
        report.latencies(
            "busy_to_device",
            "single to device, during",
            ledger.busy.to_device.quantiles(),
        );
        report
    }
}

/// Hears documents and acknowledges them as devices do, until the connection ends.
async fn device(session: &mut Session, login: &Login, ledger: &Ledger) -> Result<(), WireError> {
    let ack = topic(&login.serial, Channel::SettingsAck);
    // Of the acknowledgements under way, in their order, which are of the change of all.
    let mut under_way = std::collections::VecDeque::new();
    loop {
        match session.next().await? {
            Heard::Message(publish) => {
                under_way.push_back(ledger.arrived(&publish.payload));
                // The device runs all it was sent: its acknowledgement has the document's own shape and content.
                session.wire.queue_publish(ack.clone(), publish.payload, false)?;
                session.wire.flush().await?;
            }
            Heard::Acknowledged => {
                if under_way.pop_front() == Some(true) {
                    ledger.acknowledged();
                }
            }
            Heard::Subscribed => {}
        }
    }
}

/// Changes devices one by one.
struct SingleChanges {
    rest: Rest,
    logins: Vec<Login>,
    ledger: Arc<Ledger>,
    every: Duration,
    enough: Arc<AtomicBool>,
}

impl SingleChanges {
    async fn run(self) -> Result<(), BenchError> {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for login in self.logins.iter().cycle() {
            ticks.tick().await;
            if self.enough.load(Ordering::Relaxed) {
                break;
            }
            let (phase, label) = self.ledger.single();
            let asked = Instant::now();
            self.rest
                .patch_settings(&login.serial, &json!({"label": label}))
                .await?;
            phase.answers.record(asked.elapsed());
        }
        Ok(())
    }
}
