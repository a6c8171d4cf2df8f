//! `setpoint sessions`.

use clap::Subcommand;
use serde_json::Value;
use uuid::Uuid;

use super::{
    Failure, output,
    rest::{Rest, Server},
};
use crate::config::Config;

/// Sessions asked for at once.
const PAGE: usize = 1_000;

/// Columns of the table: what stands above, and the field below.
const COLUMNS: [(&str, &str); 10] = [
    ("ID", "id"),
    ("WHO", "serial"),
    ("CLIENT ID", "client_id"),
    ("FROM", "address"),
    ("TRANSPORT", "transport"),
    ("MQTT", "version"),
    ("SINCE", "since"),
    ("KEEP-ALIVE", "keep_alive"),
    ("QUEUED", "queued"),
    ("IN FLIGHT", "in_flight"),
];

/// Shows who is connected to the running server over MQTT, newest first, and ends sessions.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    setpoint sessions                                 everybody, as a table\n  \
    setpoint sessions --transport tls --q 203.0.113.  by transport and a part of the address\n  \
    setpoint sessions --serial HOME-1 --json          a device's sessions, as JSON\n  \
    setpoint sessions end 0c1f6f0e-6f0e-4f7e-9d6b-3a2f1f0c9b11")]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Of exactly this device.
    #[arg(long)]
    serial: Option<String>,
    /// That came in this way: tcp, tls or websocket.
    #[arg(long)]
    transport: Option<String>,
    /// With this in the serial, the token's name, the client id or the address.
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// Prints a JSON array in place of the table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Ends a session. Its client may connect again; revoke its credential to keep it out.
    #[command(after_help = "Example:\n  setpoint sessions end 0c1f6f0e-6f0e-4f7e-9d6b-3a2f1f0c9b11")]
    End {
        /// The session's id.
        id: Uuid,
    },
}

impl Args {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let rest = self.server.client(&config)?;
        if let Some(What::End { id }) = self.what {
            rest.delete(&format!("/sessions/{id}")).await?;
            output::say(format_args!("ended {id}"));
            return Ok(());
        }
        let filters = [
            ("serial", self.serial),
            ("transport", self.transport),
            ("q", self.q),
        ];
        let filters = filters
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let sessions = all(&rest, filters.collect()).await?;
        if self.json {
            output::say(format_args!("{:#}", Value::Array(sessions)));
        } else {
            output::say(table(&sessions));
        }
        Ok(())
    }
}

/// Every page of the list.
async fn all(rest: &Rest, filters: Vec<(&str, String)>) -> Result<Vec<Value>, Failure> {
    let mut sessions = Vec::new();
    let mut next = None;
    loop {
        let mut query = filters.clone();
        query.push(("limit", PAGE.to_string()));
        query.extend(next.map(|cursor| ("cursor", cursor)));
        let mut page = rest.get("/sessions", &query).await?;
        if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
            sessions.extend(items);
        }
        next = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if next.is_none() {
            return Ok(sessions);
        }
    }
}

/// The sessions in columns, each as wide as its widest cell.
fn table(sessions: &[Value]) -> String {
    let head = COLUMNS.map(|(title, _)| title.to_owned());
    let rows = sessions
        .iter()
        .map(|session| COLUMNS.map(|(_, field)| cell(session, field)));
    let rows: Vec<[String; COLUMNS.len()]> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0; COLUMNS.len()];
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = text.chars().count().max(*width);
        }
    }
    let lines = rows.iter().map(|row| {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(text, width)| format!("{text:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn cell(session: &Value, field: &str) -> String {
    let value = match session.get(field) {
        Some(Value::Null) | None if field == "serial" => match session.get("token") {
            Some(Value::String(name)) => format!("token:{name}"),
            _ => String::new(),
        },
        // Fractions of a second are for programs.
        Some(Value::String(text)) if field == "since" => match text.split_once('.') {
            Some((seconds, _)) => format!("{seconds}Z"),
            None => text.clone(),
        },
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    // A client id may hold what a terminal obeys.
    value
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_lines_up_and_obeys_nobody() {
        let device =
            json!({"id": "1", "serial": "HOME-1", "token": null, "client_id": "HOME-1", "keep_alive": 60});
        let operator =
            json!({"id": "2", "serial": null, "token": "ci", "client_id": "a\u{1b}[2J", "keep_alive": 0});
        let table = table(&[device, operator]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        let column = lines[0].find("CLIENT ID").unwrap();
        let from_column = |line: usize| lines[line].get(column..).unwrap();
        assert!(from_column(1).starts_with("HOME-1 "), "{table}");
        assert!(from_column(2).starts_with("a?[2J"), "{table}");
        assert!(lines[2].contains("token:ci"), "{table}");
        assert!(!table.contains('\u{1b}'));
    }
}
