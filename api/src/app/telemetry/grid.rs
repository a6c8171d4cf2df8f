//! Buckets of several series as a table: each bucket of each series, whether it has samples or not.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use setpoint_model::{
    DeviceId, Serial,
    telemetry::{Bucket, Fill, Value},
};

use super::read::{Buckets, Place, Point, Query};

/// By what series are told apart, and sorted.
type Key = (DeviceId, i32);

/// The table.
#[derive(Debug)]
pub(super) struct Grid {
    begin: DateTime<Utc>,
    width: Bucket,
    count: usize,
    columns: BTreeMap<Key, Column>,
    /// Whether a page leaves out what is empty.
    sparse: bool,
}

/// One series.
#[derive(Debug)]
pub(super) struct Column {
    device: Option<(DeviceId, Serial)>,
    metric_id: i32,
    metric: Arc<str>,
    values: Vec<Option<Value<'static>>>,
}

impl Column {
    pub(super) fn new(device: Option<(DeviceId, Serial)>, metric_id: i32, metric: Arc<str>) -> Self {
        Self {
            device,
            metric_id,
            metric,
            values: Vec::new(),
        }
    }
}

impl Grid {
    /// An empty table over the query's range.
    pub(super) fn new(query: &Query, buckets: Buckets) -> Self {
        Self {
            begin: buckets.width.begin(query.from),
            width: buckets.width,
            count: usize::try_from(buckets.width.count(query.from, query.to)).unwrap_or(usize::MAX),
            columns: BTreeMap::new(),
            sparse: buckets.fill == Fill::None,
        }
    }

    /// Puts a value in its place. How many series there are now, if this is the first of one: to be judged before the
    /// next, as each takes room for all of its buckets.
    pub(super) fn put(
        &mut self,
        key: Key,
        at: DateTime<Utc>,
        value: Value<'static>,
        make: impl FnOnce() -> Column,
    ) -> Option<u64> {
        let place = self.index(at);
        let before = self.columns.len();
        let column = self.columns.entry(key).or_insert_with(make);
        if column.values.is_empty() {
            column.values.resize(self.count, None);
        }
        if let Some(place) = column.values.get_mut(place) {
            *place = Some(value);
        }
        let series = self.columns.len();
        (series > before).then(|| u64::try_from(series).unwrap_or(u64::MAX))
    }

    /// The same with its empty places filled.
    pub(super) fn filled(mut self, fill: Fill) -> Self {
        for column in self.columns.values_mut() {
            fill.apply(&mut column.values);
        }
        self
    }

    fn index(&self, at: DateTime<Utc>) -> usize {
        let seconds = (at - self.begin).num_seconds();
        let index = seconds.checked_div(i64::from(self.width.seconds()));
        index.and_then(|index| usize::try_from(index).ok()).unwrap_or(0)
    }

    /// The number of the first cell behind a place; cells are counted bucket by bucket.
    pub(super) fn behind(&self, after: Place) -> usize {
        if after.at < self.begin {
            return 0;
        }
        let until = self.columns.range(..=(after.device, after.metric_id)).count();
        self.index(after.at)
            .saturating_mul(self.columns.len())
            .saturating_add(until)
    }

    /// The points from cell `begin` on, at most `limit`, and the first cell behind them.
    pub(super) fn page(&self, begin: usize, limit: usize) -> (Vec<Point>, usize) {
        let columns: Vec<&Column> = self.columns.values().collect();
        let end = self.count.saturating_mul(columns.len());
        let mut points = Vec::new();
        let mut next = begin;
        while next < end && points.len() < limit {
            let (Some(row), Some(place)) = (next.checked_div(columns.len()), next.checked_rem(columns.len()))
            else {
                break;
            };
            next = next.saturating_add(1);
            let Some(column) = columns.get(place) else { break };
            let value = column.values.get(row).cloned().flatten();
            if self.sparse && value.is_none() {
                continue;
            }
            let steps = i32::try_from(row).unwrap_or(i32::MAX);
            let into = self.width.width().checked_mul(steps).unwrap_or_default();
            points.push(Point {
                at: self.begin.checked_add_signed(into).unwrap_or(self.begin),
                device: column.device.clone(),
                metric: Arc::clone(&column.metric),
                metric_id: column.metric_id,
                value,
            });
        }
        (points, next)
    }
}
