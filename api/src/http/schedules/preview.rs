//! `.../schedules/preview`: its parameters, and its answer.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use setpoint_model::settings::Document;

use crate::{
    app::{
        Actor, App, Error, FieldErrors,
        schedules::{Forecast, Span, Whose},
    },
    http::{Json, Page, Problem},
};

/// The days that are shown when it isn't said how many.
const DEFAULT_DAYS: u16 = 14;
/// The largest `limit`, and the one when none is asked for.
const MAX_LIMIT: usize = 1_000;

/// Which time to show.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PreviewQuery {
    /// How many days of 24 hours: 14 by default.
    #[param(value_type = Option<u16>, example = 14)]
    days: Option<String>,
    /// Where to begin, RFC 3339; now without it.
    #[param(example = "2026-10-24T00:00:00Z")]
    from: Option<String>,
    /// For a group: the time zone of the members that are meant; UTC by default. A device has its own.
    #[param(example = "Europe/Oslo")]
    time_zone: Option<String>,
    /// How many items at most: 1 to 1000, which is the default.
    #[param(value_type = Option<u16>)]
    limit: Option<String>,
    /// Where to go on: the `next` of the page before. It also holds the end of the time that was asked for.
    cursor: Option<String>,
}

/// What schedules set together from one time to another.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ScheduleItem {
    /// The first instant, not before the time asked for.
    from: DateTime<Utc>,
    /// The first instant that is no longer in it, not behind the time asked for.
    to: DateTime<Utc>,
    /// What is set.
    #[schema(value_type = Object, example = json!({"privacyMode": true}))]
    settings: Document,
    /// The schedule that lies over all others.
    #[schema(example = "night")]
    schedule: String,
    /// The group it belongs to; null for the device's own.
    group: Option<String>,
    /// Key to the schedule its value comes from: `schedule:NAME`.
    #[schema(example = json!({"privacyMode": "schedule:night"}))]
    origins: BTreeMap<String, String>,
}

impl From<Forecast> for ScheduleItem {
    fn from(forecast: Forecast) -> Self {
        Self {
            from: forecast.from,
            to: forecast.to,
            settings: forecast.settings,
            schedule: forecast.schedule,
            group: forecast.group,
            origins: forecast.origins,
        }
    }
}

/// The parameters, understood.
#[derive(Debug, PartialEq)]
struct Asked {
    span: Span,
    zone: Option<Tz>,
    limit: usize,
}

impl Asked {
    fn parse(query: &PreviewQuery, now: DateTime<Utc>) -> Result<Self, Error> {
        let mut errors = FieldErrors::new();
        let days = field::<Days>(&mut errors, "days", query.days.as_deref());
        let limit = field::<Limit>(&mut errors, "limit", query.limit.as_deref());
        let from = field::<Moment>(&mut errors, "from", query.from.as_deref());
        let zone = field::<Zone>(&mut errors, "time_zone", query.time_zone.as_deref());
        let given = field::<Cursor>(&mut errors, "cursor", query.cursor.as_deref());
        if !errors.is_empty() {
            return Err(Error::Invalid { errors });
        }
        let from = from.map_or(now, |from| from.0);
        let days = days.map_or(DEFAULT_DAYS, |days| days.0);
        let until = from
            .checked_add_signed(TimeDelta::days(days.into()))
            .ok_or_else(|| Error::invalid("from", "is too late"))?;
        Ok(Self {
            span: given.map_or(Span { from, until }, |cursor| cursor.0),
            zone: zone.map(|zone| zone.0),
            limit: limit.map_or(MAX_LIMIT, |limit| limit.0),
        })
    }
}

fn field<T: FromStr<Err: Display>>(errors: &mut FieldErrors, name: &str, text: Option<&str>) -> Option<T> {
    match text?.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            errors.insert(name.to_owned(), error.to_string());
            None
        }
    }
}

/// A number of days; how many are too many is the use case's to say.
struct Days(u16);

impl FromStr for Days {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let days = text.parse().ok().filter(|days| *days > 0);
        days.map(Self).ok_or("a whole number of days, at least 1")
    }
}

struct Limit(usize);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
        limit.map(Self).ok_or_else(|| format!("1 to {MAX_LIMIT}"))
    }
}

struct Moment(DateTime<Utc>);

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // An unescaped `+` of `+01:00` arrives as a space.
        DateTime::parse_from_rfc3339(&text.replace(' ', "+"))
            .map(|at| Self(at.to_utc()))
            .map_err(|_| "a time in RFC 3339: 2026-01-01T12:00:00Z")
    }
}

struct Zone(Tz);

impl FromStr for Zone {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let zone = text.parse().map(Self);
        zone.map_err(|_| "must be an IANA time zone such as \"Europe/Oslo\"")
    }
}

/// The rest of the time that was asked for, so that "14 days from now" stand still from page to page.
struct Cursor(Span);

impl Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Span { from, until } = self.0;
        write!(f, "{}.{}", from.timestamp_micros(), until.timestamp_micros())
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = |text: &str| DateTime::from_timestamp_micros(text.parse().ok()?);
        let span = text.split_once('.').and_then(|(from, until)| {
            Some(Span {
                from: time(from)?,
                until: time(until)?,
            })
        });
        span.map(Self).ok_or("not the `next` of a page")
    }
}

pub(super) async fn answer(
    app: &App,
    actor: &Actor,
    whose: &Whose,
    query: &PreviewQuery,
) -> Result<Json<Page<ScheduleItem>>, Problem> {
    let Asked { span, zone, limit } = Asked::parse(query, app.clock.now())?;
    let mut items = app
        .preview_schedules(actor, whose, span, zone, limit.saturating_add(1))
        .await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| {
        let rest = Span {
            from: last.to,
            ..span
        };
        Cursor(rest).to_string()
    });
    let items = items.into_iter().map(ScheduleItem::from).collect();
    Ok(Json(Page { items, next }))
}
