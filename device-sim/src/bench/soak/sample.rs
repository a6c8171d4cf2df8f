//! One look at a server under load.

use std::{sync::Mutex, sync::PoisonError, time::Duration};

use serde_json::{Value, json};

use crate::{
    bench::{
        Changes, Target, cpu::CpuTime, memory::resident_kib, peer::database::Database, telemetry::Counters,
    },
    rest::Rest,
    summary::Quantiles,
};

/// The gauge of what waits to be committed.
const QUEUE: &str = "setpoint_telemetry_queue_samples";
/// The table with all of its partitions and their indexes.
const TABLE_BYTES: &str =
    "select coalesce(sum(pg_total_relation_size(relid)), 0)::bigint from pg_partition_tree('telemetry')";

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    pub(super) since_start: Duration,
    /// Messages acknowledged since the start.
    pub(super) acknowledged: u64,
    /// Of the messages acknowledged since the look before.
    pub(super) puback: Quantiles,
    /// Resident memory of the server.
    pub(super) memory_kib: Option<u64>,
    /// Samples that wait for a commit, or are in one.
    pub(super) queue: Option<u64>,
    pub(super) table_bytes: Option<u64>,
    /// Processor time since the look before, in hundredths of one processor: the server's, and its database's.
    pub(super) cpu_percent: Option<(f64, f64)>,
}

impl Sample {
    /// Adds what the devices saw since the look before.
    pub(super) fn count(&mut self, counters: &Counters) {
        self.acknowledged = counters.acknowledged();
        self.puback = counters.latencies.take();
    }

    pub(super) fn to_json(&self) -> Value {
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({
            "seconds": rounded(self.since_start.as_secs_f64()),
            "messages_acknowledged": self.acknowledged,
            "puback_p50_ms": self.puback.p50_ms,
            "puback_p99_ms": self.puback.p99_ms,
            "puback_max_ms": self.puback.max_ms,
            "memory_kib": self.memory_kib,
            "queue_samples": self.queue,
            "table_bytes": self.table_bytes,
            "server_cpu_percent": self.cpu_percent.map(|(own, _)| rounded(own)),
            "database_cpu_percent": self.cpu_percent.map(|(_, under)| rounded(under)),
        })
    }
}

/// Looks at a target; what can't be seen is left out.
pub(super) struct Reader<'a> {
    pid: Option<u32>,
    rest: Option<&'a Rest>,
    database: Option<&'a Database>,
    cpu: Mutex<Option<(Duration, CpuTime)>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(target: &'a Target) -> Self {
        Self {
            pid: target.pid,
            rest: match &target.changes {
                Changes::Rest(rest) => Some(rest),
                Changes::Publish(..) => None,
            },
            database: target.database.as_ref(),
            cpu: Mutex::default(),
        }
    }

    pub(super) async fn read(&self, since_start: Duration) -> Sample {
        let queue = match self.rest {
            Some(rest) => rest.metrics().await.ok().and_then(|text| gauge(&text, QUEUE)),
            None => None,
        };
        let table_bytes = match self.database {
            Some(database) => database.run(&[TABLE_BYTES]).await.ok(),
            None => None,
        };
        Sample {
            since_start,
            memory_kib: self.pid.and_then(resident_kib),
            queue,
            table_bytes: table_bytes.and_then(|text| text.trim().parse().ok()),
            cpu_percent: self.cpu(since_start),
            ..Sample::default()
        }
    }

    fn cpu(&self, now: Duration) -> Option<(f64, f64)> {
        let used = CpuTime::of(self.pid?)?;
        let mut last = self.cpu.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, before) = last.replace((now, used))?;
        let time = now.saturating_sub(then).as_secs_f64().max(1e-3);
        let since = used.since(before);
        let percent = |used: Duration| used.as_secs_f64() / time * 100.0;
        Some((percent(since.own), percent(since.under)))
    }
}

/// A gauge without labels, nought if it is below that.
fn gauge(text: &str, name: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value
        .trim()
        .parse::<i64>()
        .ok()
        .map(|value| u64::try_from(value).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_found_by_its_whole_name() {
        let text = "# TYPE a_b gauge\na_b_more 7\na_b 42\n";
        assert_eq!(gauge(text, "a_b"), Some(42));
        assert_eq!(gauge(text, "a"), None);
    }
}
