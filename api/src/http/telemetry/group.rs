//! `/telemetry` and `/telemetry/latest`: many devices at once.

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use setpoint_model::{
    DeviceId, GroupName, Selector,
    telemetry::{Bucket, MetricList},
};

use super::{
    encode::Item,
    format::Format,
    page,
    query::{Asked, Wanted, field},
    stream::Streamed,
};
use crate::{
    app::{
        Actor, App, Error, FieldErrors,
        telemetry::{Buckets, Devices, FIRST, GroupQuery},
    },
    http::{Context, Json, Page, Problem, Query, page as paging},
};

/// About how many buckets there are when their width isn't given.
const BUCKETS: u32 = 100;

/// Which part of the history of many devices to read, and how.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupHistoryQuery {
    /// The devices of this group; without it and `selector`, all that you may read.
    #[param(example = "oslo")]
    group: Option<String>,
    /// The devices that this means by their tags.
    #[param(example = "site=oslo and floor in (1,2)")]
    selector: Option<String>,
    /// Metrics, with commas between; all without it.
    #[param(example = "temperature")]
    metric: Option<String>,
    /// The earliest time, RFC 3339 or so long ago: `-24h`; 24 hours before `to` without it.
    #[param(example = "-24h")]
    from: Option<String>,
    /// The first time that is too late, RFC 3339, so long ago, or `now`, which it is without it.
    to: Option<String>,
    /// The width of a bucket: `30s`, `5m`, `1h`, `1d`, `1w`, in UTC; without it, one of which about a hundred fit in.
    #[param(example = "1h")]
    bucket: Option<String>,
    /// `avg` (the default), `min`, `max`, `sum`, `count` or `last`.
    agg: Option<String>,
    /// What stands in a bucket without samples: `none` (the default: the bucket is left out), `null`, `previous`, `linear`, or
    /// a number.
    fill: Option<String>,
    /// `all` (the default): all samples of a bucket become one value, whoever sent them. `device`: each device has values of
    /// its own, with its `serial`.
    by: Option<String>,
    /// How many items at most. JSON: 1 to 10000, 1000 by default; CSV and NDJSON: all by default.
    limit: Option<i64>,
    /// Where to go on: the `next` of the page before. It also holds that page's `from` and `to`.
    cursor: Option<String>,
    /// `json`, `csv` or `ndjson`; without it, what `Accept` says.
    format: Option<String>,
}

/// Which newest values to read.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupLatestQuery {
    /// The devices of this group; without it and `selector`, all that you may read.
    #[param(example = "oslo")]
    group: Option<String>,
    /// The devices that this means by their tags.
    #[param(example = "site=oslo and floor in (1,2)")]
    selector: Option<String>,
    /// Metrics, with commas between; all without it.
    metric: Option<String>,
    /// How many items at most: 1 to 1000, 100 by default. A page may have fewer and yet not be the last: that is the one
    /// whose `next` is null.
    limit: Option<i64>,
    /// Where to go on: the `next` of the page before.
    cursor: Option<String>,
}

impl GroupHistoryQuery {
    fn asked(&self) -> Asked<'_> {
        Asked {
            metric: self.metric.as_deref(),
            from: self.from.as_deref(),
            to: self.to.as_deref(),
            bucket: self.bucket.as_deref(),
            agg: self.agg.as_deref(),
            fill: self.fill.as_deref(),
            limit: self.limit,
            cursor: self.cursor.as_deref(),
            always_in_buckets: true,
        }
    }
}

/// The devices that are meant, with what is wrong about them noted.
fn devices(errors: &mut FieldErrors, group: Option<&str>, selector: Option<&str>) -> Devices {
    let named = field::<GroupName>(errors, "group", group);
    let meant = field::<Selector>(errors, "selector", selector);
    if group.is_some() && selector.is_some() {
        errors.insert("selector".to_owned(), "not together with `group`".to_owned());
    }
    match (named, meant) {
        (Some(name), _) => Devices::Group(name),
        (None, Some(selector)) => Devices::Selector(selector),
        (None, None) => Devices::All,
    }
}

/// Reads the history of many devices in buckets, oldest first: over all of them, or of each.
///
/// Whoever may read only devices of their own gets those of them. Worked out as a whole, within a time and up to a number of
/// points that the server is configured with.
#[utoipa::path(
    get, path = "/telemetry", tag = "telemetry",
    security(("bearer" = ["telemetry:read"])),
    params(GroupHistoryQuery),
    responses(
        (status = 200, description = "A page of history; as CSV or NDJSON, all of it", content(
            (Page<Item> = "application/json"),
            (String = "text/csv", example = "at,metric,value\r\n2026-01-01T12:00:00Z,temperature,21.5\r\n"),
            (Item = "application/x-ndjson"),
        )),
        (status = 404, description = "No such group"),
        (status = 406, description = "There is no format that the client accepts"),
        (status = 422, description = "A parameter is not valid, or it would be too many points"),
        (status = 503, description = "Too many streams are open"),
        (status = 504, description = "It would take too long"),
    )
)]
pub(super) async fn history(
    State(context): State<Context>,
    actor: Actor,
    Query(query): Query<GroupHistoryQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let app = &context.app;
    let format = Format::wanted(query.format.as_deref(), &headers)?;
    let mut errors = FieldErrors::new();
    let devices = devices(&mut errors, query.group.as_deref(), query.selector.as_deref());
    let by_device = match query.by.as_deref() {
        None | Some("all") => false,
        Some("device") => true,
        Some(_) => {
            errors.insert("by".to_owned(), "one of all, device".to_owned());
            false
        }
    };
    let name = match &devices {
        Devices::Group(name) => name.to_string(),
        Devices::All | Devices::Selector(_) => "telemetry".to_owned(),
    };
    let wanted = match Wanted::parse(&query.asked(), format, app.clock.now()) {
        Ok(wanted) if errors.is_empty() => wanted,
        Err(Error::Invalid { errors: further }) => {
            errors.extend(further);
            return Err(Error::Invalid { errors }.into());
        }
        Err(other) => return Err(other.into()),
        Ok(_) => return Err(Error::Invalid { errors }.into()),
    };
    let easy = || Buckets {
        width: Bucket::easy(wanted.query.from, wanted.query.to, BUCKETS),
        aggregate: wanted.aggregate,
        fill: wanted.fill,
    };
    let asked = GroupQuery {
        devices,
        by_device,
        buckets: wanted.query.buckets.unwrap_or_else(easy),
        query: wanted.query.clone(),
    };
    if format == Format::Json {
        let pages = app.group_telemetry(&actor, &asked).await?;
        return page(pages, &wanted).await;
    }
    let export = app.export_group_telemetry(&actor, &asked, wanted.limit).await?;
    let streamed = Streamed {
        export,
        format,
        serials: by_device,
        name,
        stopping: context.stopping.clone(),
    };
    streamed.answer().await
}

/// Reads the newest value of each metric of many devices, by device.
#[utoipa::path(
    get, path = "/telemetry/latest", tag = "telemetry",
    security(("bearer" = ["telemetry:read"])),
    params(GroupLatestQuery),
    responses(
        (status = 200, description = "A page of newest values", body = Page<Item>),
        (status = 404, description = "No such group"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
pub(super) async fn latest(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<GroupLatestQuery>,
) -> Result<Response, Problem> {
    let mut errors = FieldErrors::new();
    let devices = devices(&mut errors, query.group.as_deref(), query.selector.as_deref());
    let metrics = field::<MetricList>(&mut errors, "metric", query.metric.as_deref());
    let after = match query.cursor.as_deref().map(series) {
        Some(None) => {
            errors.insert("cursor".to_owned(), "not the `next` of a page".to_owned());
            FIRST
        }
        after => after.flatten().unwrap_or(FIRST),
    };
    if !errors.is_empty() {
        return Err(Error::Invalid { errors }.into());
    }
    let limit = paging::limit(query.limit)?;
    let metrics = metrics.as_ref().map(MetricList::as_slice);
    let (points, next) = app.group_latest(&actor, &devices, metrics, after, limit).await?;
    let page = Page {
        items: points.into_iter().map(Item::from).collect(),
        next: next.map(|(device, metric)| format!("{}.{metric}", device.0)),
    };
    Ok(Json(page).into_response())
}

/// The series that a cursor names.
fn series(cursor: &str) -> Option<(DeviceId, i32)> {
    let (device, metric) = cursor.split_once('.')?;
    Some((DeviceId(device.parse().ok()?), metric.parse().ok()?))
}
