//! A bare COPY: one statement that fills the server's own table, with its indexes and partitions.

use std::io::{self, BufWriter, Write};

use setpoint_model::{Clock, SystemClock};
use tempfile::NamedTempFile;

use super::database::Database;
use crate::bench::{
    BenchError, Report,
    telemetry::{TelemetryBench, VALUES},
};

/// The table and its columns, in the order of [`row`].
const TABLE: &str = "telemetry (device_id, metric_id, at, number)";
/// Signature, flags and header extension (PostgreSQL documentation, COPY, "Binary Format").
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
/// Microseconds from 1970 to 2000, where Postgres begins to count.
const POSTGRES_EPOCH: i64 = 946_684_800 * 1_000_000;
/// Far above the ids of devices that there are.
const FIRST_DEVICE: i64 = 1 << 50;
/// The same for metrics.
const FIRST_METRIC: i32 = 1 << 30;

/// Copies as many rows as the bench says, of as many devices as it has, in the order in which they would send them;
/// the transaction is rolled back, so nobody ever sees them.
///
/// # Errors
/// When the file can't be written, or `psql` fails.
pub async fn run(bench: &TelemetryBench, database: &Database) -> Result<Report, BenchError> {
    let (rows, devices) = (bench.copy_rows, bench.load.publishers as u64);
    let file = tokio::task::spawn_blocking(move || write(rows, devices)).await?;
    let file = file.map_err(BenchError::Peer)?;
    let took = database.copy_and_take_back(TABLE, file.path()).await?;
    let mut report = Report::new("telemetry", "bare copy");
    report.rate("rows", "rows stored", rows, took);
    Ok(report)
}

fn write(rows: u64, devices: u64) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    let mut out = BufWriter::new(&mut file);
    let now = SystemClock.now().timestamp_micros() - POSTGRES_EPOCH;
    out.write_all(HEADER)?;
    for number in 0..rows {
        let (sample, value) = (number / VALUES, number % VALUES);
        out.write_all(&row(sample, value, devices.max(1), now))?;
    }
    out.write_all(&TRAILER)?;
    out.flush()?;
    drop(out);
    Ok(file)
}

/// A tuple of four fields. Devices take turns, and each round is a microsecond later.
fn row(sample: u64, value: u64, devices: u64, now: i64) -> Vec<u8> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let device = FIRST_DEVICE + signed(sample % devices);
    let metric = FIRST_METRIC + i32::try_from(value).unwrap_or(0);
    let at = now + signed(sample / devices);
    let reading = 20.0 + f64::from(u8::try_from(sample % 100).unwrap_or(0)) / 10.0;
    let mut row = Vec::with_capacity(46);
    row.extend_from_slice(&4_i16.to_be_bytes());
    for field in [
        &device.to_be_bytes()[..],
        &metric.to_be_bytes(),
        &at.to_be_bytes(),
        &reading.to_be_bytes(),
    ] {
        row.extend_from_slice(&i32::try_from(field.len()).unwrap_or(0).to_be_bytes());
        row.extend_from_slice(field);
    }
    row
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs};

    use super::*;

    #[test]
    fn every_row_is_whole_and_no_two_are_the_same_sample() {
        let file = write(1000, 7).unwrap();
        let bytes = fs::read(file.path()).unwrap();
        let rows = bytes
            .strip_prefix(HEADER)
            .unwrap()
            .strip_suffix(&TRAILER)
            .unwrap();
        assert_eq!(rows.len(), 1000 * 46);
        // Device, metric and time: all but the value.
        let keys: HashSet<&[u8]> = rows.chunks(46).map(|row| &row[..34]).collect();
        assert_eq!(keys.len(), 1000);
    }
}
