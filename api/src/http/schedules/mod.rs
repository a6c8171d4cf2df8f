//! `/devices/{serial}/schedules` and `/groups/{name}/schedules`: what both have in common. The routes of each are in a
//! file of their own.

mod devices;
mod groups;
mod preview;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use setpoint_model::{
    schedule::{ScheduleName, State},
    settings::Document,
};
use utoipa_axum::router::OpenApiRouter;

use super::{Context, Json, Page, PageQuery, Problem, answer};
use crate::app::{
    Actor, App, Error, Precondition,
    schedules::{Shown, Whose},
};

pub(super) fn routes() -> OpenApiRouter<Context> {
    devices::routes().merge(groups::routes())
}

/// Settings that hold at certain times: weekly, with `days`, `from` and `to`, or once, with `starts_at` and `ends_at`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Schedule)]
struct ScheduleBody {
    /// Its name: unique among those of the device or group.
    #[schema(example = "night")]
    name: String,
    /// The days on which a weekly window begins.
    #[schema(value_type = Option<Vec<String>>, example = json!(["mon", "tue", "wed", "thu", "fri"]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    days: Option<Value>,
    /// When it begins, by the device's clock.
    #[schema(value_type = Option<String>, example = "22:00")]
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Value>,
    /// When it ends: on the next day, unless it is later than `from`; equal to `from` it is a whole day.
    #[schema(value_type = Option<String>, example = "06:30")]
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Value>,
    /// When a single period begins: RFC 3339, or without an offset by the device's clock.
    #[schema(value_type = Option<String>, example = "2026-12-24T16:00:00Z")]
    #[serde(skip_serializing_if = "Option::is_none")]
    starts_at: Option<Value>,
    /// When it ends.
    #[schema(value_type = Option<String>, example = "2026-12-27T08:00:00Z")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<Value>,
    /// What it sets while it holds.
    #[schema(value_type = Object, example = json!({"privacyMode": true}))]
    settings: Document,
    /// Whether it holds at all.
    enabled: bool,
    /// Of schedules that hold at once the one with the highest wins.
    priority: i32,
    /// Rises with each change; also the `ETag`.
    #[schema(example = 7)]
    version: i64,
    /// Where a device's schedule stands now: `disabled`, `waiting`, `active` or `over`. A group's has none, since its
    /// members may be in several time zones.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

/// A schedule to be made.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "described here, read by the model")]
struct NewSchedule {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit; not `preview`.
    #[schema(example = "night")]
    name: String,
    /// The rest of it.
    #[schema(inline)]
    #[serde(flatten)]
    definition: ScheduleDefinition,
}

/// All of a schedule but its name.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "described here, read by the model")]
struct ScheduleDefinition {
    /// The days on which a weekly window begins: `mon` to `sun`.
    #[schema(example = json!(["mon", "tue", "wed", "thu", "fri"]))]
    days: Option<Vec<String>>,
    /// When it begins, by the device's clock.
    #[schema(example = "22:00")]
    from: Option<String>,
    /// When it ends: on the next day, unless it is later than `from`; equal to `from` it is a whole day.
    #[schema(example = "06:30")]
    to: Option<String>,
    /// When a single period begins: RFC 3339, or without an offset by the device's clock.
    starts_at: Option<String>,
    /// When it ends.
    ends_at: Option<String>,
    /// What it sets while it holds.
    #[schema(value_type = Object, example = json!({"privacyMode": true}))]
    settings: Document,
    /// Whether it holds at all: true by default.
    enabled: Option<bool>,
    /// Of schedules that hold at once the one with the highest wins: 0 by default.
    priority: Option<i32>,
}

impl From<Shown> for ScheduleBody {
    fn from(Shown { schedule, state }: Shown) -> Self {
        let mut plan = schedule.definition.plan.to_document();
        Self {
            name: schedule.name.to_string(),
            days: plan.remove("days"),
            from: plan.remove("from"),
            to: plan.remove("to"),
            starts_at: plan.remove("starts_at"),
            ends_at: plan.remove("ends_at"),
            settings: schedule.definition.settings,
            enabled: schedule.definition.enabled,
            priority: schedule.definition.priority,
            version: schedule.version,
            state,
            created_at: schedule.created_at,
            updated_at: schedule.updated_at,
        }
    }
}

/// A schedule with its `ETag`.
fn shown(schedule: Shown) -> Result<Response, Problem> {
    answer::versioned(schedule.schedule.version, ScheduleBody::from(schedule))
}

/// The name in a path; one that can't be a schedule's names nothing that exists.
fn named(name: &str) -> Result<ScheduleName, Error> {
    name.parse().map_err(|_| Error::NotFound { what: "schedule" })
}

async fn list(
    app: &App,
    actor: &Actor,
    whose: &Whose,
    query: PageQuery,
) -> Result<Json<Page<ScheduleBody>>, Problem> {
    let limit = query.limit()?;
    let after = query.cursor.unwrap_or_default();
    if after.contains('\0') {
        return Err(Error::invalid("cursor", "is none of this list").into());
    }
    let schedules = app.schedules(actor, whose, &after, limit + 1).await?;
    let page = Page::of(schedules, limit, |last| last.schedule.name.to_string());
    Ok(Json(page.map(ScheduleBody::from)))
}

/// `base` is the path of the list, under [`super::BASE`].
async fn create(
    app: &App,
    actor: &Actor,
    whose: &Whose,
    base: &str,
    body: &Bytes,
) -> Result<Response, Problem> {
    let made = app.create_schedule(actor, whose, body).await?;
    let path = format!("{base}/{}", made.schedule.name);
    answer::at(StatusCode::CREATED, &path, shown(made)?)
}

async fn read(app: &App, actor: &Actor, whose: &Whose, name: &str) -> Result<Response, Problem> {
    shown(app.schedule(actor, whose, &named(name)?).await?)
}

async fn put(
    app: &App,
    actor: &Actor,
    whose: &Whose,
    name: &str,
    precondition: &Precondition,
    body: &Bytes,
) -> Result<Response, Problem> {
    let name = name
        .parse::<ScheduleName>()
        .map_err(|error| Error::invalid("name", error.to_string()))?;
    let (schedule, is_new) = app.put_schedule(actor, whose, &name, body, precondition).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, shown(schedule)?).into_response())
}

async fn patch(
    app: &App,
    actor: &Actor,
    whose: &Whose,
    name: &str,
    precondition: &Precondition,
    body: &Bytes,
) -> Result<Response, Problem> {
    let schedule = app
        .patch_schedule(actor, whose, &named(name)?, body, precondition)
        .await?;
    shown(schedule)
}

async fn delete(
    app: &App,
    actor: &Actor,
    whose: &Whose,
    name: &str,
    precondition: &Precondition,
) -> Result<StatusCode, Problem> {
    app.delete_schedule(actor, whose, &named(name)?, precondition)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
