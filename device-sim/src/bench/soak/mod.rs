//! Telemetry for long: whether memory, queue and latency stay where they are, and how the table grows.

mod picture;
mod sample;

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::sample::{Reader, Sample};
use super::{
    Bench, BenchError, Report, Target,
    telemetry::{Counters, Load, Publishers, VALUES},
};

/// How long the most that the server takes is measured, and how long it is sent before that.
const MAXIMUM: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(2));
/// Memory at the start is what the first minute, or the first tenth of a shorter soak, ends with.
const SETTLED: Duration = Duration::from_secs(60);

/// The bench `soak`.
#[derive(Debug, Clone, Args)]
pub struct SoakBench {
    /// What is sent.
    #[command(flatten)]
    pub load: Load,
    /// Messages a second of all devices together; `half` measures the maximum first
    #[arg(long, default_value = "half", value_name = "half|N")]
    pub rate: Rate,
    /// How long
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "15m")]
    pub time: Duration,
    /// How often the server is looked at
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "5s")]
    pub every: Duration,
    /// Write each look as a line of JSON
    #[arg(long, value_name = "FILE")]
    pub lines: Option<PathBuf>,
    /// Draw all of them
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// How fast to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// Half of the most that the server acknowledges.
    Half,
    /// So many messages a second.
    Fixed(u32),
}

impl FromStr for Rate {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "half" {
            return Ok(Self::Half);
        }
        text.parse().map(Self::Fixed)
    }
}

impl Bench for SoakBench {
    fn devices(&self) -> usize {
        self.load.publishers
    }

    async fn run(&self, target: &Target) -> Result<Report, BenchError> {
        let mut lines = self.lines.as_deref().map(create).transpose()?;
        let mut report = Report::new("soak", &target.name);
        let rate = match self.rate {
            Rate::Fixed(rate) => rate.max(1),
            Rate::Half => self.half_of_maximum(target, &mut report).await?,
        };
        let reader = Reader::new(target);
        let before = reader.read(Duration::ZERO).await;
        let mut publishers = Publishers::start(target, &self.load, Some(rate)).await?;
        publishers.counters.count(true);
        let began = Instant::now();
        let mut samples = Vec::new();
        let mut overall = Extremes::default();
        let mut ticks = interval(self.every.max(Duration::from_millis(100)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        while began.elapsed() < self.time {
            let next = async {
                ticks.tick().await;
                reader.read(began.elapsed()).await
            };
            let mut sample = tokio::select! {
                sample = next => sample,
                error = publishers.failed() => return Err(error),
            };
            sample.count(&publishers.counters);
            overall.see(&sample);
            if let (Some(lines), Some(path)) = (&mut lines, &self.lines) {
                writeln!(lines, "{}", sample.to_json()).map_err(|error| output(path, error))?;
            }
            samples.push(sample);
        }
        publishers.counters.count(false);
        let took = began.elapsed();
        let counters = publishers.end().await?;

        self.tell(&mut report, &counters, rate, took);
        overall.tell(&mut report, &before, &samples, self.time);
        if let Some(path) = &self.svg {
            let drawn = picture::draw(&samples).map_err(|message| BenchError::Program {
                program: "the picture".to_owned(),
                message,
            })?;
            std::fs::write(path, drawn).map_err(|error| output(path, error))?;
        }
        Ok(report)
    }
}

impl SoakBench {
    /// The messages a second that are half of what the server acknowledges at most.
    async fn half_of_maximum(&self, target: &Target, report: &mut Report) -> Result<u32, BenchError> {
        let (time, warm_up) = MAXIMUM;
        let mut publishers = Publishers::start(target, &self.load, None).await?;
        publishers.go_on(warm_up).await?;
        publishers.counters.count(true);
        let began = Instant::now();
        publishers.go_on(time).await?;
        publishers.counters.count(false);
        let took = began.elapsed();
        let counters = publishers.end().await?;
        report.rate("maximum", "messages at most", counters.acknowledged(), took);
        let seconds = took.as_secs().max(1);
        let half = counters.acknowledged() / seconds / 2;
        Ok(u32::try_from(half).unwrap_or(u32::MAX).max(1))
    }

    fn tell(&self, report: &mut Report, counters: &Arc<Counters>, rate: u32, took: Duration) {
        report.count("publishers", "publishers", self.load.publishers as u64);
        report.rate(
            "sent",
            "messages to be sent",
            u64::from(rate),
            Duration::from_secs(1),
        );
        report.seconds("time", "time", took);
        report.rate(
            "acknowledged",
            "messages acknowledged",
            counters.acknowledged(),
            took,
        );
        let rows = counters.acknowledged() * u64::from(self.load.samples) * VALUES;
        report.count("rows", "rows stored", rows);
        report.count("unacknowledged", "never acknowledged", counters.missing());
        report.count("out_of_order", "PUBACK out of order", counters.out_of_order());
    }
}

/// The worst of all looks.
#[derive(Default)]
struct Extremes {
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    memory_kib: u64,
    queue: u64,
}

impl Extremes {
    fn see(&mut self, sample: &Sample) {
        self.p50_ms = self.p50_ms.max(sample.puback.p50_ms);
        self.p99_ms = self.p99_ms.max(sample.puback.p99_ms);
        self.max_ms = self.max_ms.max(sample.puback.max_ms);
        self.memory_kib = self.memory_kib.max(sample.memory_kib.unwrap_or(0));
        self.queue = self.queue.max(sample.queue.unwrap_or(0));
    }

    #[expect(clippy::cast_precision_loss, reason = "no bench counts to 2^52")]
    fn tell(&self, report: &mut Report, before: &Sample, samples: &[Sample], time: Duration) {
        let mut p99: Vec<f64> = samples.iter().map(|sample| sample.puback.p99_ms).collect();
        p99.sort_by(f64::total_cmp);
        if let Some(median) = p99.get(p99.len() / 2) {
            report.milliseconds("puback_p99", "PUBACK p99, usual look", *median);
        }
        report.milliseconds("puback_worst_p50", "PUBACK p50, worst look", self.p50_ms);
        report.milliseconds("puback_worst_p99", "PUBACK p99, worst look", self.p99_ms);
        report.milliseconds("puback_max", "PUBACK max", self.max_ms);
        report.count("queue_max", "samples queued at most", self.queue);
        let settled = SETTLED.min(time / 10);
        let early = samples.iter().find(|sample| sample.since_start >= settled);
        let memory = |sample: Option<&Sample>| sample.and_then(|sample| sample.memory_kib);
        if let (Some(early), Some(last)) = (memory(early), memory(samples.last())) {
            report.memory("memory_early", "memory, settled", early as f64);
            report.memory("memory_last", "memory at the end", last as f64);
            report.memory("memory_max", "memory at most", self.memory_kib as f64);
        }
        let table = |sample: Option<&Sample>| sample.and_then(|sample| sample.table_bytes);
        if let (Some(first), Some(last)) = (table(Some(before)), table(samples.last())) {
            report.memory(
                "table_grown",
                "table grown by",
                last.saturating_sub(first) as f64 / 1024.0,
            );
        }
    }
}

fn create(path: &Path) -> Result<File, BenchError> {
    File::create(path).map_err(|error| output(path, error))
}

fn output(path: &Path, error: std::io::Error) -> BenchError {
    BenchError::Output {
        path: path.display().to_string(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_half_or_a_number() {
        assert_eq!("half".parse(), Ok(Rate::Half));
        assert_eq!("5000".parse(), Ok(Rate::Fixed(5000)));
        assert!("fast".parse::<Rate>().is_err());
    }
}
