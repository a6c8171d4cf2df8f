//! Many sessions that do nothing: what connecting costs, and what each holds of the server's memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Bench, BenchError, Report, Target, cpu::CpuTime, failed, memory::resident_kib, session::Session,
};
use crate::summary::Latencies;

/// The bench `idle`.
#[derive(Debug, Clone, Args)]
pub struct Idle {
    /// Sessions to hold, each subscribed to its settings
    #[arg(long, default_value_t = 1000)]
    pub sessions: usize,
    /// Connections being made at once
    #[arg(long, default_value_t = 100)]
    pub connects_at_once: usize,
    /// How long to hold them before memory is read
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "3s")]
    pub hold: Duration,
}

impl Bench for Idle {
    fn devices(&self) -> usize {
        self.sessions
    }

    async fn run(&self, target: &Target) -> Result<Report, BenchError> {
        let before = target.pid.and_then(resident_kib);
        // Whoever is measured first would pay for the memory that this process takes for its own end of so many
        // sessions. So every target has a round that isn't counted.
        self.connect(target).await?.leave().await?;
        sleep(self.hold).await;

        let cpu = || target.pid.and_then(CpuTime::of);
        let (began, cpu_before) = (Instant::now(), cpu());
        let held = self.connect(target).await?;
        let connecting = began.elapsed();
        sleep(self.hold).await;
        let after = target.pid.and_then(resident_kib);

        // What connecting left to be written is written by now, and counts.
        let (connects, lost) = (Arc::clone(&held.connects), Arc::clone(&held.lost));
        let (leaving, cpu_held) = (Instant::now(), cpu());
        held.leave().await?;
        let left = leaving.elapsed();
        if cpu_held.is_some() {
            sleep(self.hold).await;
        }
        let cpu_after = cpu();

        let sessions = u64::try_from(self.sessions).unwrap_or(u64::MAX);
        let mut report = Report::new("idle", &target.name);
        report.count("sessions", "sessions", sessions);
        report.rate("connects", "connects", sessions, connecting);
        report.latencies("connect", "connect and subscribe", connects.quantiles());
        report.rate("disconnects", "disconnects", sessions, left);
        if let (Some(before), Some(held), Some(after)) = (cpu_before, cpu_held, cpu_after) {
            report.cpu("connect", "connect and subscribe", sessions, held.since(before));
            report.cpu("disconnect", "disconnect", sessions, after.since(held));
        }
        report.count("lost", "sessions lost", lost.load(Ordering::Relaxed));
        if let (Some(before), Some(after)) = (before, after) {
            let kib = |count: u64| u32::try_from(count).map_or(f64::MAX, f64::from);
            report.memory("memory", "memory held", kib(after));
            report.memory(
                "memory_per_session",
                "memory a session",
                kib(after.saturating_sub(before)) / kib(sessions),
            );
        }
        Ok(report)
    }
}

/// Devices that are connected, each in a task of its own.
struct Held {
    devices: JoinSet<Result<(), BenchError>>,
    end: CancellationToken,
    connects: Arc<Latencies>,
    lost: Arc<AtomicU64>,
}

impl Idle {
    /// Connects every device. A device that can't connect ends the bench: the figures would be of fewer sessions than
    /// they say.
    async fn connect(&self, target: &Target) -> Result<Held, BenchError> {
        let mut held = Held {
            devices: JoinSet::new(),
            end: CancellationToken::new(),
            connects: Arc::default(),
            lost: Arc::default(),
        };
        let slots = Arc::new(Semaphore::new(self.connects_at_once.max(1)));
        let connected = Arc::new(Semaphore::new(0));
        let shared = Arc::new(target.clone());
        for login in &target.logins {
            let login = login.clone();
            let (slots, connected) = (Arc::clone(&slots), Arc::clone(&connected));
            let (target, connects, lost, end) = (
                Arc::clone(&shared),
                Arc::clone(&held.connects),
                Arc::clone(&held.lost),
                held.end.clone(),
            );
            held.devices.spawn(async move {
                let slot = slots.acquire_owned().await;
                let dialled = Instant::now();
                let mut session = Session::subscribed(&target, &login)
                    .await
                    .map_err(failed(&login))?;
                connects.record(dialled.elapsed());
                drop(slot);
                connected.add_permits(1);
                loop {
                    tokio::select! {
                        () = end.cancelled() => {
                            return session.wire.disconnect().await.map_err(failed(&login));
                        }
                        heard = session.next() => if heard.is_err() {
                            lost.fetch_add(1, Ordering::Relaxed);
                            return Ok(());
                        }
                    }
                }
            });
        }
        let all = u32::try_from(self.sessions).unwrap_or(u32::MAX);
        tokio::select! {
            _ = connected.acquire_many(all) => Ok(held),
            error = first_error(&mut held.devices) => Err(error),
        }
    }
}

impl Held {
    /// Lets every device say DISCONNECT.
    async fn leave(mut self) -> Result<(), BenchError> {
        self.end.cancel();
        while let Some(ended) = self.devices.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Waits for the first task that fails; forever if none does.
pub(super) async fn first_error(tasks: &mut JoinSet<Result<(), BenchError>>) -> BenchError {
    loop {
        match tasks.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => return error,
            Some(Err(error)) => return error.into(),
            None => std::future::pending().await,
        }
    }
}
