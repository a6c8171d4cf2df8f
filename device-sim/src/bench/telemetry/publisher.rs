//! Devices that send telemetry, and count what comes back.

use std::{
    collections::VecDeque,
    fmt,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use rmqtt_codec::v3::Packet;
use setpoint_model::{Channel, Clock, SystemClock};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    bench::{BenchError, Target, failed, idle::first_error, session::KEEP_ALIVE, topic},
    summary::Latencies,
    weather::Weather,
    wire::{Login, Wire, WireError},
};

/// Sessions being made at once.
const CONNECTS: usize = 200;
/// How long the last acknowledgements may take.
const LAG: Duration = Duration::from_secs(10);
/// The values in each sample: temperature and humidity, a row each.
pub const VALUES: u64 = 2;

/// How telemetry is sent.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// Devices that send
    #[arg(long, default_value_t = 200)]
    pub publishers: usize,
    /// Messages each may have unacknowledged; with few, the time of a commit bounds the rate
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub in_flight: u16,
    /// Samples in each message; each sample holds two values
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub samples: u16,
}

#[derive(Debug, Default)]
pub(in crate::bench) struct Counters {
    counting: AtomicBool,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    acknowledged_in_time: AtomicU64,
    out_of_order: AtomicU64,
    pub(in crate::bench) latencies: Latencies,
}

impl Counters {
    /// From now on, or no longer, acknowledgements count.
    pub(in crate::bench) fn count(&self, counting: bool) {
        self.counting.store(counting, Ordering::Relaxed);
    }

    /// Messages acknowledged while it counted.
    pub(in crate::bench) fn acknowledged(&self) -> u64 {
        self.acknowledged_in_time.load(Ordering::Relaxed)
    }

    /// Messages acknowledged at all.
    pub(in crate::bench) fn acknowledged_ever(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Messages sent and not acknowledged.
    pub(in crate::bench) fn missing(&self) -> u64 {
        let sent = self.sent.load(Ordering::Relaxed);
        sent.saturating_sub(self.acknowledged.load(Ordering::Relaxed))
    }

    pub(in crate::bench) fn out_of_order(&self) -> u64 {
        self.out_of_order.load(Ordering::Relaxed)
    }
}

/// Publishers at work.
pub(in crate::bench) struct Publishers {
    pub(in crate::bench) counters: Arc<Counters>,
    tasks: JoinSet<Result<(), BenchError>>,
    end: CancellationToken,
}

impl Publishers {
    /// Connects all, and lets them send `rate` messages a second together, or as fast as they are acknowledged.
    pub(in crate::bench) async fn start(
        target: &Target,
        load: &Load,
        rate: Option<u32>,
    ) -> Result<Self, BenchError> {
        let counters = Arc::new(Counters::default());
        let ready = Arc::new(Semaphore::new(0));
        let slots = Arc::new(Semaphore::new(CONNECTS));
        let start = CancellationToken::new();
        let end = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let addr = target.addr;
        for (index, login) in target.logins.iter().cloned().enumerate() {
            let (counters, ready, slots) = (Arc::clone(&counters), Arc::clone(&ready), Arc::clone(&slots));
            let (start, end, load) = (start.clone(), end.clone(), load.clone());
            tasks.spawn(async move {
                let slot = slots.acquire_owned().await;
                let wire = Wire::connect(addr, &login, true, KEEP_ALIVE)
                    .await
                    .map_err(failed(&login))?;
                drop(slot);
                ready.add_permits(1);
                start.cancelled().await;
                let publisher = Publisher::new(wire, &login, &load, rate, index, counters);
                publisher.run(&end).await.map_err(failed(&login))
            });
        }
        let all = u32::try_from(load.publishers).unwrap_or(u32::MAX);
        tokio::select! {
            _ = ready.acquire_many(all) => {}
            error = first_error(&mut tasks) => return Err(error),
        }
        start.cancel();
        Ok(Self { counters, tasks, end })
    }

    /// Lets them send for a while.
    pub(in crate::bench) async fn go_on(&mut self, time: Duration) -> Result<(), BenchError> {
        tokio::select! {
            () = sleep(time) => Ok(()),
            error = first_error(&mut self.tasks) => Err(error),
        }
    }

    /// The first that fails; never, if none does.
    pub(in crate::bench) async fn failed(&mut self) -> BenchError {
        first_error(&mut self.tasks).await
    }

    /// Ends them, with what is under way acknowledged if it comes in time.
    pub(in crate::bench) async fn end(mut self) -> Result<Arc<Counters>, BenchError> {
        self.end.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.counters)
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
    second: Second,
    /// The payload being made.
    text: Vec<u8>,
    /// What was acknowledged and not counted yet.
    heard: Vec<Duration>,
    counters: Arc<Counters>,
}

/// A second in RFC 3339 up to the dot: a device that sends thousands of samples in it writes it once.
#[derive(Debug, Default)]
struct Second {
    at: i64,
    text: String,
}

impl Second {
    fn of(&mut self, at: DateTime<Utc>) -> &str {
        if self.text.is_empty() || self.at != at.timestamp() {
            self.at = at.timestamp();
            self.text = at.format("%Y-%m-%dT%H:%M:%S").to_string();
        }
        &self.text
    }
}

impl Publisher {
    fn new(
        wire: Wire,
        login: &Login,
        load: &Load,
        rate: Option<u32>,
        index: usize,
        counters: Arc<Counters>,
    ) -> Self {
        let publishers = u32::try_from(load.publishers).unwrap_or(u32::MAX).max(1);
        let pace = rate.map(|rate| Duration::from_secs(1) * publishers / rate.max(1));
        // Paced publishers take turns.
        let turn = u32::try_from(index).unwrap_or_default();
        let due = Instant::now() + pace.map_or(Duration::ZERO, |pace| pace * turn / publishers);
        Self {
            wire,
            topic: topic(&login.serial, Channel::Telemetry),
            weather: Weather::around(&login.serial),
            in_flight: VecDeque::new(),
            window: usize::from(load.in_flight),
            samples: load.samples,
            pace,
            due,
            newest: SystemClock.now(),
            second: Second::default(),
            text: Vec::new(),
            heard: Vec::new(),
            counters,
        }
    }

    async fn run(mut self, end: &CancellationToken) -> Result<(), WireError> {
        while !end.is_cancelled() {
            self.fill()?;
            self.wire.flush().await?;
            let has_room = self.in_flight.len() < self.window;
            tokio::select! {
                packet = self.wire.next() => self.hear_all(packet?)?,
                () = sleep_until(self.due), if self.pace.is_some() && has_room => {}
                () = end.cancelled() => {}
            }
        }
        let until = Instant::now() + LAG;
        while !self.in_flight.is_empty() {
            tokio::select! {
                packet = self.wire.next() => self.hear_all(packet?)?,
                () = sleep_until(until) => break,
            }
        }
        self.wire.disconnect().await
    }

    /// Queues as many messages as the window and the pace allow.
    fn fill(&mut self) -> Result<(), WireError> {
        let now = Instant::now();
        let mut sent = 0;
        while self.in_flight.len() < self.window && (self.pace.is_none() || self.due <= now) {
            let payload = self.payload();
            if sent == 0 && self.pace.is_none() {
                let packet = payload.len() + self.topic.len() + 16;
                self.wire.make_room(packet * (self.window - self.in_flight.len()));
            }
            let id = self.wire.queue_publish(self.topic.clone(), payload, false)?;
            self.in_flight.push_back((id.get(), now));
            sent += 1;
            if let Some(pace) = self.pace {
                self.due += pace;
            }
        }
        if sent > 0 {
            self.counters.sent.fetch_add(sent, Ordering::Relaxed);
        }
        Ok(())
    }

    /// An object, or an array of several. No two samples of a device have the same time, since the server
    /// would take the second for a repetition of the first.
    fn payload(&mut self) -> Bytes {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let batch = self.samples > 1;
        text.extend_from_slice(if batch { b"[" } else { b"" });
        for index in 0..self.samples {
            self.newest = (self.newest + TimeDelta::microseconds(1)).max(SystemClock.now());
            let reading = self.weather.read(self.newest);
            let (second, micros) = (self.second.of(self.newest), self.newest.timestamp_subsec_micros());
            let comma = if index > 0 { "," } else { "" };
            // Writing to memory never fails.
            let _ = write!(
                text,
                r#"{comma}{{"temperature":{},"humidity":{},"at":"{second}.{micros:06}Z"}}"#,
                Tenths(reading.temperature),
                reading.humidity
            );
        }
        text.extend_from_slice(if batch { b"]" } else { b"" });
        let payload = Bytes::copy_from_slice(&text);
        self.text = text;
        payload
    }

    /// Heeds this packet and all that were read with it.
    fn hear_all(&mut self, packet: Packet) -> Result<(), WireError> {
        let now = Instant::now();
        let mut packet = Some(packet);
        let mut out_of_order = 0;
        while let Some(heard) = packet {
            if let Packet::PublishAck { packet_id } = heard
                && let Some(index) = self.in_flight.iter().position(|(id, _)| *id == packet_id.get())
                && let Some((_, sent)) = self.in_flight.remove(index)
            {
                out_of_order += u64::from(index > 0);
                self.heard.push(now.saturating_duration_since(sent));
            }
            packet = self.wire.buffered()?;
        }
        let count = u64::try_from(self.heard.len()).unwrap_or(u64::MAX);
        let counters = &self.counters;
        counters.acknowledged.fetch_add(count, Ordering::Relaxed);
        if out_of_order > 0 {
            counters.out_of_order.fetch_add(out_of_order, Ordering::Relaxed);
        }
        if counters.counting.load(Ordering::Relaxed) {
            counters.acknowledged_in_time.fetch_add(count, Ordering::Relaxed);
            counters.latencies.record_all(self.heard.drain(..));
        } else {
            self.heard.clear();
        }
        Ok(())
    }
}

/// A number to a tenth, which is cheaper to write than the shortest text of any number.
struct Tenths(f64);

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_possible_truncation, reason = "a temperature")]
        let tenths = (self.0 * 10.0).round() as i32;
        let sign = if tenths < 0 { "-" } else { "" };
        let tenths = tenths.unsigned_abs();
        write!(f, "{sign}{}.{}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_written_as_it_is() {
        for (number, text) in [(21.5, "21.5"), (20.0, "20.0"), (-0.3, "-0.3"), (-12.0, "-12.0")] {
            assert_eq!(Tenths(number).to_string(), text);
        }
    }

    #[test]
    fn a_second_is_written_anew_when_it_is_another() {
        let mut second = Second::default();
        for (at, text) in [
            ("2026-01-01T00:00:59.999999Z", "2026-01-01T00:00:59"),
            ("2026-01-01T00:01:00.000001Z", "2026-01-01T00:01:00"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00"),
        ] {
            assert_eq!(second.of(at.parse().unwrap()), text);
        }
    }
}
