//! All connections drop at once and all devices come back: how long until each holds its settings.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use setpoint_model::Channel;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Bench, BenchError, Changes, Report, Target, failed,
    idle::first_error,
    publisher,
    session::{Heard, KEEP_ALIVE, Session},
    settings::document,
    topic,
};
use crate::{
    summary::Latencies,
    wire::{Login, Wire, WireError},
};

/// Sessions being made at once before the storm.
const CONNECTS: usize = 200;
/// How long the devices may take to say DISCONNECT afterwards.
const GOODBYE: Duration = Duration::from_secs(5);
/// The shortest and longest wait before a failed dial is repeated.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// The bench `storm`.
#[derive(Debug, Clone, Args)]
pub struct Storm {
    /// Devices
    #[arg(long, default_value_t = 1000)]
    pub devices: usize,
    /// Sessions outlive their connection, and the bench: the server keeps them until they expire
    #[arg(long)]
    pub persistent: bool,
    /// Dials under way at once; 0 for all
    #[arg(long, default_value_t = 0)]
    pub dials_at_once: usize,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "60s")]
    pub limit: Duration,
}

#[derive(Default)]
struct Counters {
    retries: AtomicU64,
    connected: Latencies,
    settled: Latencies,
}

impl Bench for Storm {
    fn devices(&self) -> usize {
        self.devices
    }

    async fn run(&self, target: &Target) -> Result<Report, BenchError> {
        if let Changes::Publish(token, channel) = &target.changes {
            retain_documents(target, publisher(0, token.clone())?, *channel).await?;
        }
        let shared = Arc::new(target.clone());
        let counters = Arc::new(Counters::default());
        let slots = Arc::new(Semaphore::new(CONNECTS));
        let dials = match self.dials_at_once {
            0 => Semaphore::MAX_PERMITS,
            dials => dials,
        };
        let dials = Arc::new(Semaphore::new(dials));
        let (ready, cut, settled) = (
            Arc::new(Semaphore::new(0)),
            Arc::new(Semaphore::new(0)),
            Arc::new(Semaphore::new(0)),
        );
        let (blackout, power, end) = (
            CancellationToken::new(),
            CancellationToken::new(),
            CancellationToken::new(),
        );
        let mut devices = JoinSet::new();
        let clean = !self.persistent;
        for login in &target.logins {
            let login = login.clone();
            let (target, counters) = (Arc::clone(&shared), Arc::clone(&counters));
            let (slots, dials) = (Arc::clone(&slots), Arc::clone(&dials));
            let (ready, cut, settled) = (Arc::clone(&ready), Arc::clone(&cut), Arc::clone(&settled));
            let (blackout, power, end) = (blackout.clone(), power.clone(), end.clone());
            devices.spawn(async move {
                let slot = slots.acquire_owned().await;
                let mut session = Session::open(&target, &login, clean)
                    .await
                    .map_err(failed(&login))?;
                first_document(&mut session).await.map_err(failed(&login))?;
                drop(slot);
                ready.add_permits(1);
                // It goes on answering, so that nothing is outstanding when the power goes.
                let ended = async { while session.next().await.is_ok() {} };
                tokio::select! {
                    () = blackout.cancelled() => {}
                    () = ended => return Err(failed(&login)(WireError::Closed)),
                }
                session.wire.cut().map_err(failed(&login))?;
                cut.add_permits(1);
                power.cancelled().await;
                let since = Instant::now();
                let session = come_back(&target, &login, clean, &dials, &counters, since).await;
                settled.add_permits(1);
                end.cancelled().await;
                session.wire.disconnect().await.map_err(failed(&login))
            });
        }
        let all = u32::try_from(self.devices).unwrap_or(u32::MAX);
        let reach =
            async |semaphore: &Semaphore| timeout(self.limit, semaphore.acquire_many(all)).await.is_ok();
        tokio::select! {
            reached = reach(&ready) => if !reached {
                let have = ready.available_permits();
                return Err(BenchError::TimedOut(format!("only {have} of {all} devices got their settings")));
            },
            error = first_error(&mut devices) => return Err(error),
        }
        blackout.cancel();
        tokio::select! {
            _ = reach(&cut) => {}
            error = first_error(&mut devices) => return Err(error),
        }
        let began = Instant::now();
        power.cancel();
        let in_time = tokio::select! {
            reached = reach(&settled) => reached,
            error = first_error(&mut devices) => return Err(error),
        };
        let took = began.elapsed();

        let mut report = Report::new("storm", &target.name);
        report.count("devices", "devices", u64::from(all));
        report.seconds("settled", "all hold their settings", took);
        report.latencies("connected", "connected", counters.connected.quantiles());
        report.latencies("settled", "settings", counters.settled.quantiles());
        report.count(
            "retries",
            "dials repeated",
            counters.retries.load(Ordering::Relaxed),
        );
        let missing = if in_time {
            0
        } else {
            u64::from(all) - counters.settled.quantiles().count
        };
        report.count("missing", "without settings in time", missing);
        report.resident(target.pid);
        end.cancel();
        // Those that are still dialling need not arrive any more.
        let goodbyes = async { while devices.join_next().await.is_some() {} };
        if timeout(GOODBYE, goodbyes).await.is_err() {
            devices.shutdown().await;
        }
        Ok(report)
    }
}

/// Dials until it is connected and has its settings.
async fn come_back(
    target: &Target,
    login: &Login,
    clean: bool,
    dials: &Semaphore,
    counters: &Counters,
    since: Instant,
) -> Session {
    loop {
        let slot = dials.acquire().await;
        if let Ok(mut session) = Session::open(target, login, clean).await {
            drop(slot);
            let connected = since.elapsed();
            if first_document(&mut session).await.is_ok() {
                counters.connected.record(connected);
                counters.settled.record(since.elapsed());
                return session;
            }
        } else {
            drop(slot);
        }
        counters.retries.fetch_add(1, Ordering::Relaxed);
        let (shortest, longest) = RETRY;
        sleep(shortest + (longest - shortest).mul_f64(fastrand::f64())).await;
    }
}

async fn first_document(session: &mut Session) -> Result<(), WireError> {
    while !matches!(session.next().await?, Heard::Message(_)) {}
    Ok(())
}

/// A plain broker has no settings of its own: one document is retained for each device.
async fn retain_documents(target: &Target, login: Login, channel: Channel) -> Result<(), BenchError> {
    let publish = async {
        let mut wire = Wire::connect(target.addr, &login, true, KEEP_ALIVE).await?;
        for device in &target.logins {
            let topic = topic(&device.serial, channel);
            wire.queue_publish(topic, document(1, "HALL"), channel == Channel::Settings)?;
            wire.flush().await?;
            wire.next().await?;
        }
        wire.disconnect().await
    };
    publish.await.map_err(failed(&login))
}
