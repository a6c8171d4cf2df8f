//! Telemetry at QoS 1: how many acknowledgements a second, how long each takes, and how many rows that stores.

mod publisher;

use std::{sync::atomic::Ordering, time::Duration};

use clap::Args;
use tokio::time::{Instant, sleep};

pub(in crate::bench) use self::publisher::{Counters, Publishers};
pub use self::publisher::{Load, VALUES};
use super::{Bench, BenchError, Report, Storage, Target, cpu::CpuTime};

/// How long what is acknowledged may take to be stored, where the one is not the other.
const LAG: Duration = Duration::from_secs(60);

/// The bench `telemetry`.
#[derive(Debug, Clone, Args)]
pub struct TelemetryBench {
    /// What is sent.
    #[command(flatten)]
    pub load: Load,
    /// Messages a second of all devices together; 0 sends as fast as they are acknowledged
    #[arg(long, default_value_t = 0)]
    pub rate: u32,
    /// Afterwards measure once more, at a tenth of the messages a second that were acknowledged
    #[arg(long)]
    pub tenth: bool,
    /// How long to count
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s")]
    pub time: Duration,
    /// How long to send before that
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s")]
    pub warm_up: Duration,
    /// Rows of the peer `copy`
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub copy_rows: u64,
}

impl Bench for TelemetryBench {
    fn devices(&self) -> usize {
        self.load.publishers
    }

    fn telemetry(&self) -> Option<&TelemetryBench> {
        Some(self)
    }

    async fn run(&self, target: &Target) -> Result<Report, BenchError> {
        let mut report = Report::new("telemetry", &target.name);
        report.count("publishers", "publishers", self.load.publishers as u64);
        report.count("in_flight", "in flight each", u64::from(self.load.in_flight));
        report.count("samples", "samples a message", u64::from(self.load.samples));
        let rate = (self.rate > 0).then_some(self.rate);
        let acknowledged = self.measure(target, rate, "", "", &mut report).await?;
        if self.tenth {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate of messages is a small positive number"
            )]
            let tenth = (acknowledged / 10.0).max(1.0) as u32;
            self.measure(target, Some(tenth), "tenth_", "at a tenth: ", &mut report)
                .await?;
        }
        report.resident(target.pid);
        Ok(report)
    }
}

impl TelemetryBench {
    /// One measurement, reported under names with these prefixes; messages acknowledged a second.
    async fn measure(
        &self,
        target: &Target,
        rate: Option<u32>,
        key: &str,
        label: &str,
        report: &mut Report,
    ) -> Result<f64, BenchError> {
        let stored = || match &target.storage {
            Storage::Counted(rows) => rows.load(Ordering::Relaxed),
            Storage::Nowhere | Storage::WhenAcknowledged => 0,
        };
        let stored_at_first = stored();
        let mut publishers = Publishers::start(target, &self.load, rate).await?;
        publishers.go_on(self.warm_up).await?;
        let cpu = || target.pid.and_then(CpuTime::of);
        publishers.counters.count(true);
        let (began, cpu_before, stored_before) = (Instant::now(), cpu(), stored());
        publishers.go_on(self.time).await?;
        publishers.counters.count(false);
        let (counted, cpu_after, stored_meanwhile) = (began.elapsed(), cpu(), stored());
        let counters = publishers.end().await?;

        let acknowledged = counters.acknowledged();
        let rows_a_message = u64::from(self.load.samples) * VALUES;
        let (key, label) = (
            |name: &str| format!("{key}{name}"),
            |name: &str| format!("{label}{name}"),
        );
        report.rate(
            &key("acknowledged"),
            &label("messages acknowledged"),
            acknowledged,
            counted,
        );
        let samples = acknowledged * u64::from(self.load.samples);
        report.rate(&key("samples"), &label("samples acknowledged"), samples, counted);
        match &target.storage {
            Storage::Nowhere => {}
            Storage::WhenAcknowledged => {
                report.rate(
                    &key("rows"),
                    &label("rows stored"),
                    acknowledged * rows_a_message,
                    counted,
                );
            }
            Storage::Counted(_) => {
                // It may go on after the devices have stopped: that counts for it too.
                let until = settle(stored).await.max(began + counted);
                let rows = stored().saturating_sub(stored_before);
                let took = until.saturating_duration_since(began);
                report.rate(&key("rows"), &label("rows stored"), rows, took);
                // While they send, it has the machine to share with them, as the server has.
                report.rate(
                    &key("rows_meanwhile"),
                    &label("rows stored meanwhile"),
                    stored_meanwhile.saturating_sub(stored_before),
                    counted,
                );
            }
        }
        report.latencies(&key("puback"), &label("PUBACK"), counters.latencies.quantiles());
        if let (Some(before), Some(after)) = (cpu_before, cpu_after) {
            report.cpu(
                &key("message"),
                &label("message"),
                acknowledged,
                after.since(before),
            );
        }
        report.count(
            &key("out_of_order"),
            &label("PUBACK out of order"),
            counters.out_of_order(),
        );
        report.count(
            &key("unacknowledged"),
            &label("never acknowledged"),
            counters.missing(),
        );
        if let Storage::Counted(_) = &target.storage {
            let safe = stored().saturating_sub(stored_at_first);
            let promised = counters.acknowledged_ever() * rows_a_message;
            report.count(
                &key("lost_rows"),
                &label("rows acknowledged, never stored"),
                promised.saturating_sub(safe),
            );
        }
        #[expect(clippy::cast_precision_loss, reason = "no bench counts to 2^52")]
        Ok(acknowledged as f64 / counted.as_secs_f64().max(1e-6))
    }
}

/// Waits until the number stands still for two seconds. Yields when it last rose.
async fn settle(read: impl Fn() -> u64) -> Instant {
    let until = Instant::now() + LAG;
    let (mut last, mut since) = (read(), Instant::now());
    while Instant::now() < until && since.elapsed() < Duration::from_secs(2) {
        sleep(Duration::from_millis(100)).await;
        let now = read();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    since
}
