//! Telemetry of many devices at once: brought down to buckets over all of them or of each, and the newest values.

use std::collections::HashMap;

use setpoint_model::{DeviceId, GroupName, Selector, Serial, telemetry::Fill};
use setpoint_store::telemetry::{Buckets as StoredBuckets, Fleet};
use tokio::time::timeout;

use super::{
    super::{
        Actor, App, Error,
        policy::{Action, Reach},
    },
    Export,
    grid::{Column, Grid},
    read::{Buckets, Pages, Point, Query},
};

/// Which devices are meant, among those that the actor may read.
#[derive(Debug, Clone, PartialEq)]
pub enum Devices {
    /// All of them.
    All,
    /// Those of this group.
    Group(GroupName),
    /// Those that this means by their tags.
    Selector(Selector),
}

/// What is wanted of many devices.
#[derive(Debug, Clone)]
pub struct GroupQuery {
    /// The devices.
    pub devices: Devices,
    /// Whether each has values of its own; otherwise all samples of a bucket become one value, whoever sent them.
    pub by_device: bool,
    /// Which part of their history.
    pub query: Query,
    /// In which buckets.
    pub buckets: Buckets,
}

impl App {
    /// The history of many devices in buckets, oldest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `telemetry:read`, [`Error::NotFound`] for an unknown group, [`Error::Invalid`] for more
    /// points than are worked out at once, [`Error::TooSlow`].
    pub async fn group_telemetry(&self, actor: &Actor, wanted: &GroupQuery) -> Result<Pages, Error> {
        let fleet = self.fleet(actor, &wanted.devices).await?;
        let Some(fleet) = fleet else {
            let grid = Grid::new(&wanted.query, wanted.buckets);
            return Ok(Pages::of_grid(self.store.clone(), grid, None));
        };
        let budget = self.reading.group_timeout;
        let grid = timeout(budget, self.group_grid(&fleet, wanted)).await;
        let Ok(Ok(Some(grid))) = grid else {
            return match grid {
                Ok(Err(error)) => Err(error),
                _ => {
                    self.reading.metrics.too_slow.inc();
                    Err(Error::TooSlow { budget })
                }
            };
        };
        Ok(Pages::of_grid(self.store.clone(), grid, wanted.query.after))
    }

    /// The same as a stream, at most `limit` points.
    ///
    /// # Errors
    /// Those of [`Self::group_telemetry`]; [`Error::Busy`] while there are too many streams.
    pub async fn export_group_telemetry(
        &self,
        actor: &Actor,
        wanted: &GroupQuery,
        limit: Option<i64>,
    ) -> Result<Export, Error> {
        let place = self.export_place()?;
        let pages = self.group_telemetry(actor, wanted).await?;
        Ok(self.export(pages, None, limit, place))
    }

    /// A page of the newest values of many devices, by device and metric, behind `after`: as many as there are of the next
    /// `limit` series, and where those end, if there are more.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `telemetry:read`, [`Error::NotFound`] for an unknown group.
    pub async fn group_latest(
        &self,
        actor: &Actor,
        devices: &Devices,
        metrics: Option<&[String]>,
        after: (DeviceId, i32),
        limit: i64,
    ) -> Result<(Vec<Point>, Option<(DeviceId, i32)>), Error> {
        let Some(fleet) = self.fleet(actor, devices).await? else {
            return Ok((Vec::new(), None));
        };
        let most = limit.saturating_add(1);
        let now = self.clock.now();
        let mut found = self
            .store
            .latest_of_fleet(&fleet, metrics, after, most, now)
            .await?;
        let more = i64::try_from(found.len()).is_ok_and(|count| count > limit);
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let last = found.last().map(|last| (last.device.id, last.metric_id));
        let points = found.into_iter().filter_map(|latest| {
            let (at, value) = latest.newest?;
            Some(Point {
                at,
                device: Some((latest.device.id, latest.device.serial)),
                metric: latest.metric.into(),
                metric_id: latest.metric_id,
                value: Some(value),
            })
        });
        Ok((points.collect(), last.filter(|_| more)))
    }

    /// The devices that are meant; `None` for somebody who has none.
    async fn fleet(&self, actor: &Actor, devices: &Devices) -> Result<Option<Fleet>, Error> {
        let owner = match self.authorize(actor, Action::ReadTelemetry)? {
            Reach::All => None,
            Reach::Own | Reach::None => match actor.user() {
                Some(user) => Some(user),
                None => return Ok(None),
            },
        };
        let selector = match devices {
            Devices::All => None,
            Devices::Selector(selector) => Some(selector.clone()),
            Devices::Group(name) => match self.store.group(name.as_str(), self.clock.now()).await? {
                Some(group) => Some(group.description.selector),
                // Which groups there are is not for owners to find out.
                None if owner.is_some() => return Ok(None),
                None => return Err(Error::NotFound { what: "group" }),
            },
        };
        Ok(Some(Fleet { selector, owner }))
    }

    /// The buckets as a table; `None` if the database took too long.
    async fn group_grid(&self, fleet: &Fleet, wanted: &GroupQuery) -> Result<Option<Grid>, Error> {
        let GroupQuery { query, buckets, .. } = wanted;
        let count = buckets.width.count(query.from, query.to);
        self.reading.check(count, 1, "bucket")?;
        let most = self.reading.max_group_devices;
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let devices = self.store.fleet(fleet, limit).await?;
        if devices.len() > most {
            self.reading.metrics.too_large.inc();
            let field = match wanted.devices {
                Devices::Group(_) => "group",
                Devices::All | Devices::Selector(_) => "selector",
            };
            return Err(Error::invalid(field, format!("more than {most} devices")));
        }
        let serials: HashMap<DeviceId, Serial> = devices
            .iter()
            .map(|device| (device.id, device.serial.clone()))
            .collect();
        let ids: Vec<DeviceId> = devices.into_iter().map(|device| device.id).collect();
        let metrics = query.metrics.as_deref();
        let counted = self.store.count_series(&ids, metrics).await?;
        let series = if wanted.by_device {
            counted.series
        } else {
            counted.metrics
        };
        self.reading
            .check(count, u64::try_from(series).unwrap_or(u64::MAX), "bucket")?;
        let stored = StoredBuckets {
            devices: &ids,
            by_device: wanted.by_device,
            metrics,
            from: query.from,
            to: query.to,
            bucket: buckets.width,
            aggregate: buckets.aggregate,
            after: None,
            limit: i64::try_from(self.reading.max_points)
                .unwrap_or(i64::MAX)
                .saturating_add(1),
        };
        let budget = self.reading.group_timeout;
        let Some(found) = self.store.telemetry_in_buckets_within(&stored, budget).await? else {
            return Ok(None);
        };
        let mut grid = Grid::new(query, *buckets);
        for reading in found {
            let position = reading.position;
            let id = position.device_id.unwrap_or(DeviceId(0));
            let device = position
                .device_id
                .and_then(|id| Some((id, serials.get(&id)?.clone())));
            let make = || Column::new(device, position.metric_id, reading.metric.into());
            // How many series there may be was counted above.
            grid.put((id, position.metric_id), position.at, reading.value, make);
        }
        Ok(Some(if buckets.fill == Fill::None {
            grid
        } else {
            grid.filled(buckets.fill)
        }))
    }
}

/// Where a page of newest values begins that is the first.
pub const FIRST: (DeviceId, i32) = (DeviceId(0), 0);
