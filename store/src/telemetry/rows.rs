//! Telemetry rows, encoded as COPY takes them.

use chrono::{DateTime, Utc};
use setpoint_model::{DeviceId, telemetry::Value};

/// Seconds from 1970 to 2000, where Postgres begins to count.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800 * 1_000_000;

/// Rows of `telemetry` in the tuple format of `COPY .. (FORMAT binary)`, ready to be sent.
///
/// Encoding happens where a payload is parsed, on that session's own task, so that the writer only joins
/// buffers.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    tuples: Vec<u8>,
    count: usize,
}

/// Signature, flags and header extension (PostgreSQL documentation, COPY, "Binary Format").
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

/// What a row with a number takes.
const USUAL_ROW: usize = 54;

impl Rows {
    /// An empty list with room for `rows` numbers.
    #[must_use]
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            tuples: Vec::with_capacity(rows * USUAL_ROW),
            count: 0,
        }
    }

    /// Adds a row. `text` values must be free of NUL, which Postgres can't hold.
    pub fn push(&mut self, device_id: DeviceId, metric_id: i32, at: DateTime<Utc>, value: &Value<'_>) {
        let tuples = &mut self.tuples;
        tuples.extend_from_slice(&6_i16.to_be_bytes());
        field(tuples, &device_id.0.to_be_bytes());
        field(tuples, &metric_id.to_be_bytes());
        field(
            tuples,
            &(at.timestamp_micros() - POSTGRES_EPOCH_MICROS).to_be_bytes(),
        );
        match value {
            Value::Number(number) => {
                field(tuples, &number.to_be_bytes());
                null(tuples);
                null(tuples);
            }
            Value::Flag(flag) => {
                null(tuples);
                field(tuples, &[u8::from(*flag)]);
                null(tuples);
            }
            Value::Text(text) => {
                null(tuples);
                null(tuples);
                field(tuples, text.as_bytes());
            }
        }
        self.count += 1;
    }

    /// Takes all rows of `other`.
    pub fn append(&mut self, other: &Self) {
        self.tuples.extend_from_slice(&other.tuples);
        self.count += other.count;
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bytes they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tuples.len()
    }

    /// The whole COPY stream: header, rows, trailer.
    #[must_use]
    pub fn to_copy(&self) -> Vec<u8> {
        [HEADER, &self.tuples, TRAILER].concat()
    }
}

fn field(tuples: &mut Vec<u8>, bytes: &[u8]) {
    // A field is at most a short text: its length fits.
    tuples.extend_from_slice(&i32::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
    tuples.extend_from_slice(bytes);
}

fn null(tuples: &mut Vec<u8>) {
    tuples.extend_from_slice(&(-1_i32).to_be_bytes());
}
