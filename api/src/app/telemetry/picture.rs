//! What a picture of a device's history shows, brought down to as many points as can be told apart in it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use setpoint_model::{
    DeviceId, Serial,
    settings::Document,
    telemetry::{Aggregate, Bucket, Value},
};
use setpoint_store::telemetry::{History, Reading};

use super::super::{Actor, App, Error};

/// The most metrics in one picture.
pub const MAX_DRAWN: usize = 12;

/// What a picture is wanted of.
#[derive(Debug, Clone)]
pub struct Sight {
    /// The metrics by name; `None` for all, as far as there is room.
    pub metrics: Option<Vec<String>>,
    /// The earliest time.
    pub from: DateTime<Utc>,
    /// The first time that is too late.
    pub to: DateTime<Utc>,
    /// The width of a bucket; `None` for what gives about `points` of them.
    pub bucket: Option<Bucket>,
    /// How many points side by side can be told apart.
    pub points: u32,
}

/// What is drawn.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The device's name, or its serial.
    pub title: String,
    /// Where the device takes its time from.
    pub zone: Tz,
    /// The earliest time.
    pub from: DateTime<Utc>,
    /// The first time that is too late.
    pub to: DateTime<Utc>,
    /// The width of a bucket.
    pub bucket: Bucket,
    /// A curve for each metric, in the order in which they were asked for, or by name.
    pub curves: Vec<Curve>,
    /// Metrics with values that are not drawn: texts, and those for which there is no room.
    pub left_out: Vec<String>,
}

/// One metric's curve.
#[derive(Debug, Clone)]
pub struct Curve {
    /// The metric's title, or its name.
    pub title: String,
    /// The unit of its values, if the model names one.
    pub unit: Option<String>,
    /// Its values.
    pub shape: Shape,
}

/// The values of a curve, oldest first.
#[derive(Debug, Clone)]
pub enum Shape {
    /// Numbers by bucket.
    Numbers(Vec<Spread>),
    /// Booleans: the last of each bucket.
    Flags(Vec<(DateTime<Utc>, bool)>),
}

/// The numbers of one bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The bucket's beginning.
    pub at: DateTime<Utc>,
    /// Their mean.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The newest.
    pub last: f64,
}

impl App {
    /// What a picture of a device's history shows.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `telemetry:read`, [`Error::NotFound`] for an unknown device, [`Error::Invalid`] for more
    /// points than are worked out at once.
    pub async fn telemetry_picture(
        &self,
        actor: &Actor,
        serial: &Serial,
        sight: &Sight,
    ) -> Result<Picture, Error> {
        let device_id = self.readable_device(actor, serial).await?;
        let found = self.store.device(serial).await?;
        let device = found.ok_or(Error::NotFound { what: "device" })?;
        let easy = || Bucket::easy(sight.from, sight.to, sight.points);
        let bucket = sight.bucket.unwrap_or_else(easy);
        let count = bucket.count(sight.from, sight.to);
        let drawn = u64::try_from(MAX_DRAWN).unwrap_or(u64::MAX);
        self.reading.check(count, drawn, "bucket")?;

        let last = self
            .brought_down(device_id, sight, bucket, Aggregate::Last)
            .await?;
        let (kinds, mut left_out) = kinds(&last, sight.metrics.as_deref());
        let mut curves = Vec::new();
        if !kinds.is_empty() {
            let narrowed = Sight {
                metrics: Some(kinds.iter().map(|(name, _)| name.clone()).collect()),
                ..sight.clone()
            };
            let mean = self
                .brought_down(device_id, &narrowed, bucket, Aggregate::Avg)
                .await?;
            let min = self
                .brought_down(device_id, &narrowed, bucket, Aggregate::Min)
                .await?;
            let max = self
                .brought_down(device_id, &narrowed, bucket, Aggregate::Max)
                .await?;
            let model = self.store.model(&device.description.model).await?;
            let told = model.map(|model| model.definition.telemetry).unwrap_or_default();
            for (name, flags) in kinds {
                let shape = if flags {
                    Shape::Flags(of(&last, &name, |value| match value {
                        Value::Flag(flag) => Some(*flag),
                        _ => None,
                    }))
                } else {
                    let [mean, min, max, last] = [&mean, &min, &max, &last].map(|all| of(all, &name, number));
                    Shape::Numbers(spreads(&mean, &min, &max, &last))
                };
                curves.push(Curve {
                    title: said(&told, &name, "title").unwrap_or_else(|| name.clone()),
                    unit: said(&told, &name, "unit"),
                    shape,
                });
            }
        }
        left_out.sort();
        let name = device.description.name;
        Ok(Picture {
            title: if name.is_empty() { serial.to_string() } else { name },
            zone: device.description.time_zone,
            from: sight.from,
            to: sight.to,
            bucket,
            curves,
            left_out,
        })
    }

    async fn brought_down(
        &self,
        device_id: DeviceId,
        sight: &Sight,
        bucket: Bucket,
        aggregate: Aggregate,
    ) -> Result<Vec<Reading>, Error> {
        let history = History {
            device_id,
            metrics: sight.metrics.as_deref(),
            from: sight.from,
            to: sight.to,
            after: None,
            // As many metrics may be more than are drawn; beyond this, the newest of them are not seen.
            limit: i64::try_from(self.reading.max_points).unwrap_or(i64::MAX),
        };
        Ok(self.store.telemetry_buckets(&history, bucket, aggregate).await?)
    }
}

/// Which metrics are drawn, and whether as booleans; and those that are not.
fn kinds(last: &[Reading], asked: Option<&[String]>) -> (Vec<(String, bool)>, Vec<String>) {
    let mut newest: BTreeMap<&str, &Value<'_>> = BTreeMap::new();
    for reading in last {
        newest.insert(&reading.metric, &reading.value);
    }
    let names: Vec<&str> = match asked {
        Some(asked) => asked.iter().map(String::as_str).collect(),
        None => newest.keys().copied().collect(),
    };
    let (mut drawn, mut left_out) = (Vec::new(), Vec::new());
    for name in names {
        match newest.get(name) {
            None => {}
            Some(Value::Text(_)) => left_out.push(name.to_owned()),
            Some(_) if drawn.len() >= MAX_DRAWN => left_out.push(name.to_owned()),
            Some(value) => drawn.push((name.to_owned(), matches!(value, Value::Flag(_)))),
        }
    }
    (drawn, left_out)
}

fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Flag(flag) => Some(f64::from(u8::from(*flag))),
        Value::Text(_) => None,
    }
}

fn of<T>(
    readings: &[Reading],
    metric: &str,
    read: impl Fn(&Value<'_>) -> Option<T>,
) -> Vec<(DateTime<Utc>, T)> {
    let own = readings.iter().filter(|reading| reading.metric == metric);
    own.filter_map(|reading| Some((reading.at, read(&reading.value)?)))
        .collect()
}

/// One after the other has been read: a bucket that is not in all of them is left for the next picture.
fn spreads(
    mean: &[(DateTime<Utc>, f64)],
    min: &[(DateTime<Utc>, f64)],
    max: &[(DateTime<Utc>, f64)],
    last: &[(DateTime<Utc>, f64)],
) -> Vec<Spread> {
    let find = |all: &[(DateTime<Utc>, f64)], at: DateTime<Utc>| {
        let place = all.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        all.get(place).map(|(_, value)| *value)
    };
    let spread = |(at, mean): &(DateTime<Utc>, f64)| {
        Some(Spread {
            at: *at,
            mean: *mean,
            min: find(min, *at)?,
            max: find(max, *at)?,
            last: find(last, *at)?,
        })
    };
    mean.iter().filter_map(spread).collect()
}

/// What the model says of a metric.
fn said(telemetry: &Document, metric: &str, field: &str) -> Option<String> {
    let text = telemetry.get(metric)?.get(field)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}
