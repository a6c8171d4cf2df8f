//! Telemetry at QoS 1: how many acknowledgements a second, and how long each takes.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::Args;
use rmqtt_codec::v3::Packet;
use setpoint_model::{Channel, Clock, SystemClock};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Bench, BenchError, Report, Target, cpu::CpuTime, failed, idle::first_error, memory::resident_kib,
    session::KEEP_ALIVE, topic,
};
use crate::{
    summary::Latencies,
    weather::Weather,
    wire::{Login, Wire, WireError},
};

/// Sessions being made at once.
const CONNECTS: usize = 200;
/// How long the last acknowledgements may take.
const LAG: Duration = Duration::from_secs(10);

/// The bench `telemetry`.
#[derive(Debug, Clone, Args)]
pub struct TelemetryBench {
    /// Devices that send
    #[arg(long, default_value_t = 200)]
    pub publishers: usize,
    /// Messages each may have unacknowledged
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub in_flight: u16,
    /// Samples in each message; each sample holds two values
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub samples: u16,
    /// Messages a second of all devices together; 0 sends as fast as they are acknowledged
    #[arg(long, default_value_t = 0)]
    pub rate: u32,
    /// How long to count
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s")]
    pub time: Duration,
    /// How long to send before that
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s")]
    pub warm_up: Duration,
}

#[derive(Default)]
struct Counters {
    counting: std::sync::atomic::AtomicBool,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    acknowledged_in_time: AtomicU64,
    out_of_order: AtomicU64,
    latencies: Latencies,
}

impl Bench for TelemetryBench {
    fn devices(&self) -> usize {
        self.publishers
    }

    async fn run(&self, target: &Target) -> Result<Report, BenchError> {
        let counters = Arc::new(Counters::default());
        let ready = Arc::new(Semaphore::new(0));
        let slots = Arc::new(Semaphore::new(CONNECTS));
        let start = CancellationToken::new();
        let end = CancellationToken::new();
        let mut publishers = JoinSet::new();
        let addr = target.addr;
        for (index, login) in target.logins.iter().cloned().enumerate() {
            let (counters, ready, slots) = (Arc::clone(&counters), Arc::clone(&ready), Arc::clone(&slots));
            let (start, end, options) = (start.clone(), end.clone(), self.clone());
            publishers.spawn(async move {
                let slot = slots.acquire_owned().await;
                let wire = Wire::connect(addr, &login, true, KEEP_ALIVE)
                    .await
                    .map_err(failed(&login))?;
                drop(slot);
                ready.add_permits(1);
                start.cancelled().await;
                let publisher = Publisher::new(wire, &login, &options, index, counters);
                publisher.run(&end).await.map_err(failed(&login))
            });
        }
        let all = u32::try_from(self.publishers).unwrap_or(u32::MAX);
        tokio::select! {
            _ = ready.acquire_many(all) => {}
            error = first_error(&mut publishers) => return Err(error),
        }
        start.cancel();
        tokio::select! {
            () = sleep(self.warm_up) => {}
            error = first_error(&mut publishers) => return Err(error),
        }
        counters.counting.store(true, Ordering::Relaxed);
        let cpu = || target.pid.and_then(CpuTime::of);
        let (began, cpu_before) = (Instant::now(), cpu());
        tokio::select! {
            () = sleep(self.time) => {}
            error = first_error(&mut publishers) => return Err(error),
        }
        counters.counting.store(false, Ordering::Relaxed);
        let (counted, cpu_after) = (began.elapsed(), cpu());
        end.cancel();
        while let Some(ended) = publishers.join_next().await {
            ended??;
        }

        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let acknowledged = read(&counters.acknowledged_in_time);
        let mut report = Report::new("telemetry", &target.name);
        report.count("publishers", "publishers", u64::from(all));
        report.count("in_flight", "in flight each", u64::from(self.in_flight));
        report.count("samples", "samples a message", u64::from(self.samples));
        report.rate("acknowledged", "messages acknowledged", acknowledged, counted);
        report.rate(
            "samples",
            "samples acknowledged",
            acknowledged * u64::from(self.samples),
            counted,
        );
        report.latencies("puback", "PUBACK", counters.latencies.quantiles());
        if let (Some(before), Some(after)) = (cpu_before, cpu_after) {
            report.cpu("message", "message", acknowledged, after.since(before));
        }
        report.count(
            "out_of_order",
            "PUBACK out of order",
            read(&counters.out_of_order),
        );
        let missing = read(&counters.sent).saturating_sub(read(&counters.acknowledged));
        report.count("unacknowledged", "never acknowledged", missing);
        if let Some(kib) = target.pid.and_then(resident_kib) {
            report.memory(
                "memory",
                "memory held",
                u32::try_from(kib).map_or(f64::MAX, f64::from),
            );
        }
        Ok(report)
    }
}

struct Publisher {
    wire: Wire,
    topic: bytestring::ByteString,
    weather: Weather,
    in_flight: VecDeque<(u16, Instant)>,
    window: usize,
    samples: u16,
    /// Between two messages, when they are paced.
    pace: Option<Duration>,
    due: Instant,
    newest: DateTime<Utc>,
    counters: Arc<Counters>,
}

impl Publisher {
    fn new(
        wire: Wire,
        login: &Login,
        options: &TelemetryBench,
        index: usize,
        counters: Arc<Counters>,
    ) -> Self {
        let publishers = u32::try_from(options.publishers).unwrap_or(u32::MAX).max(1);
        let pace = (options.rate > 0).then(|| Duration::from_secs(1) * publishers / options.rate);
        // Paced publishers take turns.
        let turn = u32::try_from(index).unwrap_or_default();
        let due = Instant::now() + pace.map_or(Duration::ZERO, |pace| pace * turn / publishers);
        Self {
            wire,
            topic: topic(&login.serial, Channel::Telemetry),
            weather: Weather::around(&login.serial),
            in_flight: VecDeque::new(),
            window: usize::from(options.in_flight),
            samples: options.samples,
            pace,
            due,
            newest: SystemClock.now(),
            counters,
        }
    }

    async fn run(mut self, end: &CancellationToken) -> Result<(), WireError> {
        while !end.is_cancelled() {
            self.fill()?;
            self.wire.flush().await?;
            let has_room = self.in_flight.len() < self.window;
            tokio::select! {
                packet = self.wire.next() => self.hear(packet?),
                () = sleep_until(self.due), if self.pace.is_some() && has_room => {}
                () = end.cancelled() => {}
            }
            while let Some(packet) = self.wire.buffered()? {
                self.hear(packet);
            }
        }
        let until = Instant::now() + LAG;
        while !self.in_flight.is_empty() {
            tokio::select! {
                packet = self.wire.next() => self.hear(packet?),
                () = sleep_until(until) => break,
            }
        }
        self.wire.disconnect().await
    }

    /// Queues as many messages as the window and the pace allow.
    fn fill(&mut self) -> Result<(), WireError> {
        let now = Instant::now();
        while self.in_flight.len() < self.window && (self.pace.is_none() || self.due <= now) {
            let payload = self.payload();
            let id = self.wire.queue_publish(self.topic.clone(), payload, false)?;
            self.in_flight.push_back((id.get(), now));
            self.counters.sent.fetch_add(1, Ordering::Relaxed);
            if let Some(pace) = self.pace {
                self.due += pace;
            }
        }
        Ok(())
    }

    /// An object, or an array of several. No two samples of a device have the same time, since the server
    /// would take the second for a repetition of the first.
    fn payload(&mut self) -> Bytes {
        let mut text = String::with_capacity(usize::from(self.samples) * 80 + 2);
        let batch = self.samples > 1;
        text.push_str(if batch { "[" } else { "" });
        for index in 0..self.samples {
            self.newest = (self.newest + TimeDelta::microseconds(1)).max(SystemClock.now());
            let reading = self.weather.read(self.newest);
            let at = self.newest.to_rfc3339_opts(SecondsFormat::Micros, true);
            let comma = if index > 0 { "," } else { "" };
            // Writing to a string never fails.
            let _ = write!(
                text,
                r#"{comma}{{"temperature":{},"humidity":{},"at":"{at}"}}"#,
                reading.temperature, reading.humidity
            );
        }
        text.push_str(if batch { "]" } else { "" });
        text.into()
    }

    fn hear(&mut self, packet: Packet) {
        let Packet::PublishAck { packet_id } = packet else {
            return;
        };
        let Some(index) = self.in_flight.iter().position(|(id, _)| *id == packet_id.get()) else {
            return;
        };
        if let Some((_, sent)) = self.in_flight.remove(index) {
            self.counters.acknowledged.fetch_add(1, Ordering::Relaxed);
            if index > 0 {
                self.counters.out_of_order.fetch_add(1, Ordering::Relaxed);
            }
            if self.counters.counting.load(Ordering::Relaxed) {
                self.counters.acknowledged_in_time.fetch_add(1, Ordering::Relaxed);
                self.counters.latencies.record(sent.elapsed());
            }
        }
    }
}
