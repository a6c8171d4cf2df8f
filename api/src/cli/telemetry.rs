//! `setpoint telemetry`.

use serde_json::{Value, json};
use setpoint_model::{Clock, SystemClock};
use setpoint_store::telemetry::{Storage, TableSize};

use super::{Failure, close, database, output, rest::Server};
use crate::config::Config;

/// Shows how much room telemetry takes, how fast it comes and how far its roll-ups are.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    setpoint telemetry          as a table\n  \
    setpoint telemetry --json   as a JSON object\n\n\
    Asks the database, and the running server, if there is one, what it has in hand.")]
pub(super) struct Args {
    /// Prints a JSON object in place of the table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// What a running server has in hand.
struct Live {
    queued: f64,
    /// The mean time of a commit, in seconds, since the server's start.
    commit: Option<f64>,
}

impl Args {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        // Before the database, which may be started for this command alone.
        let live = live(self.server, &config).await;
        let (store, embedded) = database(&config).await?;
        let storage = store.telemetry_storage().await;
        close(store, embedded).await;
        let storage = storage.map_err(|error| Failure::App(error.to_string()))?;
        let lag = (SystemClock.now() - storage.marks.rolled).num_seconds();
        if self.json {
            output::say(format_args!("{:#}", document(&storage, lag, live.as_ref())));
        } else {
            output::say(table(&storage, lag, live.as_ref()));
        }
        Ok(())
    }
}

/// `None` when no server answers: there need be none.
async fn live(server: Server, config: &Config) -> Option<Live> {
    let text = server.client(config).ok()?.metrics().await.ok()?;
    let value = |name: &str| -> Option<f64> {
        let of = |line: &str| {
            line.strip_prefix("setpoint_telemetry_")?
                .strip_prefix(name)?
                .trim()
                .parse()
                .ok()
        };
        text.lines().find_map(of)
    };
    let commits = value("commit_seconds_count ").filter(|count| *count > 0.0);
    Some(Live {
        queued: value("queue_samples ")?,
        commit: commits.and_then(|count| Some(value("commit_seconds_sum ")? / count)),
    })
}

fn document(storage: &Storage, lag: i64, live: Option<&Live>) -> Value {
    let of = |size: &TableSize| {
        json!({
            "rows": size.rows, "partitions": size.partitions, "table_bytes": size.table_bytes,
            "index_bytes": size.index_bytes, "bytes_per_row": size.bytes_per_row(),
        })
    };
    json!({
        "samples": of(&storage.samples),
        "days": storage.days.map(|(from, to)| json!({"from": from, "to": to})),
        "minutes": of(&storage.minutes),
        "hours": of(&storage.hours),
        "samples_per_second": storage.rate,
        "rollups": {"rolled": storage.marks.rolled, "lag_seconds": lag, "late_waiting": storage.late},
        "server": live.map(|live| json!({"queued_samples": live.queued, "commit_seconds": live.commit})),
    })
}

fn table(storage: &Storage, lag: i64, live: Option<&Live>) -> String {
    let mut lines = vec![format!(
        "{:<10}{:>16}{:>12}{:>12}{:>12}{:>12}",
        "", "ROWS (ABOUT)", "PARTITIONS", "TABLE", "INDEXES", "BYTES/ROW"
    )];
    for (name, size) in [
        ("samples", &storage.samples),
        ("minutes", &storage.minutes),
        ("hours", &storage.hours),
    ] {
        let each = size
            .bytes_per_row()
            .map_or("-".to_owned(), |bytes| bytes.to_string());
        lines.push(format!(
            "{name:<10}{:>16}{:>12}{:>12}{:>12}{each:>12}",
            size.rows,
            size.partitions,
            bytes(size.table_bytes),
            bytes(size.index_bytes),
        ));
    }
    lines.push(String::new());
    if let Some((from, to)) = storage.days {
        lines.push(format!("days      {from} to {to}"));
    }
    lines.push(format!("rate      {:.1} samples a second", storage.rate));
    let (lag, late) = (lag.max(0), storage.late);
    lines.push(format!(
        "roll-ups  {lag} s behind, {late} notes of late samples waiting"
    ));
    lines.push(match live {
        None => "server    not running, or not reached".to_owned(),
        Some(Live { queued, commit }) => {
            let commit = commit.map_or(String::new(), |seconds| {
                format!(", a commit takes {:.1} ms", seconds * 1_000.0)
            });
            format!("server    {queued} samples waiting for a commit{commit}")
        }
    });
    lines.join("\n")
}

fn bytes(count: i64) -> String {
    bytesize::ByteSize::b(count.unsigned_abs()).to_string()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use setpoint_store::telemetry::Marks;

    use super::*;

    #[test]
    fn the_table_lines_up() {
        let at = DateTime::UNIX_EPOCH;
        let size = TableSize {
            partitions: 9,
            rows: 1_000,
            table_bytes: 64 << 10,
            index_bytes: 32 << 10,
        };
        let storage = Storage {
            samples: size,
            days: None,
            minutes: size,
            hours: TableSize::default(),
            marks: Marks {
                announced: at,
                rolled: at,
                raw_from: at,
                minutes_from: at,
                hours_from: at,
            },
            late: 3,
            rate: 12.34,
        };
        let live = Live {
            queued: 5.0,
            commit: Some(0.0042),
        };
        let text = table(&storage, 130, Some(&live));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].len(), lines[0].len(), "{text}");
        assert_eq!(lines[3].len(), lines[0].len(), "{text}");
        assert!(lines[1].ends_with("98"), "{text}");
        assert!(lines[3].ends_with(" -"), "without rows: {text}");
        assert!(text.contains("12.3 samples a second"), "{text}");
        assert!(text.contains("130 s behind, 3 notes"), "{text}");
        assert!(
            text.ends_with("5 samples waiting for a commit, a commit takes 4.2 ms"),
            "{text}"
        );
    }
}
