//! Telemetry rows, encoded as COPY takes them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use setpoint_model::{DeviceId, telemetry::Value};

use super::rollups::Late;

/// Seconds from 1970 to 2000, where Postgres begins to count.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800 * 1_000_000;
const MINUTE_MICROS: i64 = 60 * 1_000_000;
const HOUR_MICROS: i64 = 60 * MINUTE_MICROS;

/// Rows of `telemetry` in the tuple format of `COPY .. (FORMAT binary)`, ready to be sent.
///
/// Encoding happens where a payload is parsed, on that session's own task, so that the writer only joins
/// buffers.
#[derive(Debug, Clone)]
pub struct Rows {
    tuples: Vec<u8>,
    count: usize,
    /// The oldest time among them, in microseconds since 1970.
    oldest: i64,
}

impl Default for Rows {
    fn default() -> Self {
        Self {
            tuples: Vec::new(),
            count: 0,
            oldest: i64::MAX,
        }
    }
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
            ..Self::default()
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
        self.oldest = self.oldest.min(at.timestamp_micros());
    }

    /// All rows of these lists, by series and time.
    ///
    /// In this order Postgres finds the place of most rows in the primary key on the page that it has just had in
    /// hand, and writers who bring the same rows at once never wait for each other in a circle. Of rows with the same
    /// key the first stays the first.
    #[must_use]
    pub fn gather<'a>(lists: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let mut keyed = Vec::with_capacity(lists.clone().map(Self::len).sum());
        let (mut bytes, mut oldest) = (0, i64::MAX);
        for list in lists {
            bytes += list.tuples.len();
            oldest = oldest.min(list.oldest);
            let mut rest = list.tuples.as_slice();
            loop {
                let before = rest;
                let Some(key) = key(&mut rest) else { break };
                let tuple = before.get(..before.len() - rest.len()).unwrap_or_default();
                keyed.push((key, tuple));
            }
        }
        keyed.sort_by_key(|(key, _)| *key);
        let mut tuples = Vec::with_capacity(bytes);
        for (_, tuple) in &keyed {
            tuples.extend_from_slice(tuple);
        }
        Self {
            tuples,
            count: keyed.len(),
            oldest,
        }
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

    /// Whose roll-ups change by rows from before `watermark`: by series and hour, from the first minute to the last.
    pub(super) fn late(&self, watermark: DateTime<Utc>) -> Vec<Late> {
        let watermark = watermark.timestamp_micros();
        if self.oldest >= watermark {
            return Vec::new();
        }
        let mut hours: BTreeMap<(i64, i64, i32), (i64, i64)> = BTreeMap::new();
        let mut tuples = self.tuples.as_slice();
        while let Some((device_id, metric_id, at)) = key(&mut tuples) {
            if at >= watermark {
                continue;
            }
            let since = at - at.rem_euclid(MINUTE_MICROS);
            let until = since + MINUTE_MICROS;
            let hour = at.div_euclid(HOUR_MICROS);
            hours
                .entry((hour, device_id, metric_id))
                .and_modify(|known| *known = (known.0.min(since), known.1.max(until)))
                .or_insert((since, until));
        }
        let late = hours
            .into_iter()
            .filter_map(|((_, device_id, metric_id), (since, until))| {
                Some(Late {
                    device_id,
                    metric_id,
                    since: DateTime::from_timestamp_micros(since)?,
                    until: DateTime::from_timestamp_micros(until)?,
                })
            });
        late.collect()
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

/// Takes one tuple: its device, metric and time, the latter in microseconds since 1970.
fn key(tuples: &mut &[u8]) -> Option<(i64, i32, i64)> {
    take::<2>(tuples)?;
    take::<4>(tuples)?;
    let device_id = i64::from_be_bytes(take(tuples)?);
    take::<4>(tuples)?;
    let metric_id = i32::from_be_bytes(take(tuples)?);
    take::<4>(tuples)?;
    let at = i64::from_be_bytes(take(tuples)?) + POSTGRES_EPOCH_MICROS;
    for _ in 0..3 {
        // A null's length is -1.
        let length = usize::try_from(i32::from_be_bytes(take(tuples)?)).unwrap_or(0);
        *tuples = tuples.get(length..)?;
    }
    Some((device_id, metric_id, at))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathered_rows_are_in_order_of_series_and_time_and_the_first_of_a_key_stays_first() {
        let of = |rows: &[(i64, i32, i64, Value<'_>)]| {
            let mut list = Rows::default();
            for (device, metric, second, value) in rows {
                let at = DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap();
                list.push(DeviceId(*device), *metric, at, value);
            }
            list
        };
        let (one, yes) = (Value::Number(1.0), Value::Flag(true));
        let (empty, text) = (Value::Text("".into()), Value::Text("a text".into()));
        let lists = [
            of(&[(2, 1, 5, text.clone()), (2, 2, 5, one.clone())]),
            of(&[]),
            of(&[(1, 9, 7, yes.clone()), (2, 1, 5, one.clone())]),
            of(&[(2, 1, 4, empty.clone()), (-3, 1, 8, one.clone())]),
        ];
        let gathered = Rows::gather(lists.iter());
        let expected = of(&[
            (-3, 1, 8, one.clone()),
            (1, 9, 7, yes),
            (2, 1, 4, empty),
            (2, 1, 5, text),
            (2, 1, 5, one.clone()),
            (2, 2, 5, one),
        ]);
        assert_eq!(gathered.to_copy(), expected.to_copy());
        assert_eq!((gathered.len(), gathered.oldest), (6, expected.oldest));
        assert!(Rows::gather([].into_iter()).is_empty());
    }

    #[test]
    fn late_rows_are_noted_by_series_and_hour() {
        let time = |text: &str| -> DateTime<Utc> { format!("2026-01-01T{text}Z").parse().unwrap() };
        let mut rows = Rows::default();
        for (device, metric, at, value) in [
            (1, 1, "10:59:59.5", Value::Text("late".into())),
            (1, 1, "10:07:30", Value::Flag(true)),
            (1, 1, "11:00:00", Value::Number(1.0)),
            (1, 2, "11:00:59", Value::Text("".into())),
            (1, 1, "12:00:00", Value::Number(1.0)),
        ] {
            rows.push(DeviceId(device), metric, time(at), &value);
        }
        let told = |watermark| -> Vec<_> {
            let late = rows.late(time(watermark)).into_iter();
            let told = late.map(|late| (late.metric_id, late.since, late.until));
            told.collect()
        };
        assert_eq!(
            told("12:00:00"),
            [
                (1, time("10:07:00"), time("11:00:00")),
                (1, time("11:00:00"), time("11:01:00")),
                (2, time("11:00:00"), time("11:01:00")),
            ]
        );
        assert_eq!(told("10:30:00"), [(1, time("10:07:00"), time("10:08:00"))]);
        assert_eq!(told("10:07:30"), []);
        assert_eq!(rows.late(time("13:00:00")).len(), 4);
    }
}
