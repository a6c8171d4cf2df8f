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
        let connects = Arc::new(Latencies::default());
        let lost = Arc::new(AtomicU64::new(0));
        let slots = Arc::new(Semaphore::new(self.connects_at_once.max(1)));
        let connected = Arc::new(Semaphore::new(0));
        let end = CancellationToken::new();
        let shared = Arc::new(target.clone());
        let mut devices = JoinSet::new();
        let cpu = || target.pid.and_then(CpuTime::of);
        let (began, cpu_before) = (Instant::now(), cpu());
        for login in &target.logins {
            let login = login.clone();
            let (slots, connected) = (Arc::clone(&slots), Arc::clone(&connected));
            let (target, connects, lost, end) = (
                Arc::clone(&shared),
                Arc::clone(&connects),
                Arc::clone(&lost),
                end.clone(),
            );
            devices.spawn(async move {
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
        // A device that can't connect ends the bench: the figures would be of fewer sessions than they say.
        tokio::select! {
            _ = connected.acquire_many(all) => {}
            error = first_error(&mut devices) => return Err(error),
        }
        let connecting = began.elapsed();
        sleep(self.hold).await;
        let after = target.pid.and_then(resident_kib);

        // What connecting left to be written is written by now, and counts.
        let (leaving, cpu_held) = (Instant::now(), cpu());
        end.cancel();
        while let Some(ended) = devices.join_next().await {
            ended??;
        }
        let left = leaving.elapsed();
        if cpu_held.is_some() {
            sleep(self.hold).await;
        }
        let cpu_after = cpu();

        let sessions = u64::from(all);
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
            let grown = u32::try_from(after.saturating_sub(before)).map_or(f64::MAX, f64::from);
            report.memory(
                "memory",
                "memory held",
                u32::try_from(after).map_or(f64::MAX, f64::from),
            );
            report.memory("memory_per_session", "memory a session", grown / f64::from(all));
        }
        Ok(report)
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
