//! `/groups/{name}/schedules`.

use axum::{extract::State, http::StatusCode, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    NewSchedule, ScheduleBody, ScheduleDefinition,
    preview::{self, PreviewQuery, ScheduleItem},
};
use crate::{
    app::{Actor, App, schedules::Whose},
    http::{
        Context, Json, Page, PageQuery, Path, Payload, Problem, Query, etag::IfMatch, groups::known,
        params::GroupPath,
    },
};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(preview))
        .routes(routes!(read, put, patch, delete))
}

/// Lists a group's schedules by name.
#[utoipa::path(
    get, path = "/groups/{name}/schedules", tag = "schedules", operation_id = "list_group_schedules",
    security(("bearer" = ["settings:read"])),
    params(GroupPath, PageQuery),
    responses(
        (status = 200, description = "A page of schedules", body = Page<ScheduleBody>),
        (status = 404, description = "There is no such group"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ScheduleBody>>, Problem> {
    super::list(&app, &actor, &Whose::Group(known(&name)?), query).await
}

/// Makes a schedule for a group.
///
/// It holds for each of its members, in that device's time zone. A setting must be known and valid for at least one
/// model; a device whose model doesn't take it is left as it is.
#[utoipa::path(
    post, path = "/groups/{name}/schedules", tag = "schedules", operation_id = "create_group_schedule",
    security(("bearer" = ["settings:write"])),
    params(GroupPath),
    request_body(content = NewSchedule, content_type = "application/json", example = json!({
        "name": "night", "days": ["mon", "tue", "wed", "thu", "fri"], "from": "22:00", "to": "06:30",
        "settings": {"privacyMode": true}
    })),
    responses(
        (status = 201, description = "The schedule", body = ScheduleBody, headers(
            ("ETag" = String, description = "Its version, in quotes"),
            ("Location" = String, description = "Where it is"))),
        (status = 400, description = "Not a JSON object, too deep, or with a key twice"),
        (status = 404, description = "There is no such group"),
        (status = 409, description = "`schedule_exists`: the name is taken; `too_many_schedules`: there are as many as may be"),
        (status = 413, description = "Together with the others larger than a settings document"),
        (status = 422, description = "A field or a setting is not valid; `errors` says which and why"),
    )
)]
async fn create(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    let name = known(&name)?;
    let base = format!("/groups/{name}/schedules");
    super::create(&app, &actor, &Whose::Group(name), &base, &body).await
}

/// Shows what a group's schedules will do.
///
/// For a member in the time zone `time_zone` that has no other schedules.
#[utoipa::path(
    get, path = "/groups/{name}/schedules/preview", tag = "schedules", operation_id = "preview_group_schedules",
    security(("bearer" = ["settings:read"])),
    params(GroupPath, PreviewQuery),
    responses(
        (status = 200, description = "What will hold when, in order", body = Page<ScheduleItem>),
        (status = 404, description = "There is no such group"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn preview(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    Query(query): Query<PreviewQuery>,
) -> Result<Json<Page<ScheduleItem>>, Problem> {
    preview::answer(&app, &actor, &Whose::Group(known(&name)?), &query).await
}

/// Shows a group's schedule.
#[utoipa::path(
    get, path = "/groups/{name}/schedules/{schedule}", tag = "schedules", operation_id = "read_group_schedule",
    security(("bearer" = ["settings:read"])),
    params(GroupPath, ("schedule" = String, Path, description = "The schedule's name", example = "night")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleBody,
         headers(("ETag" = String, description = "Its version, in quotes"))),
        (status = 404, description = "There is no such group or schedule"),
    )
)]
async fn read(
    State(app): State<App>,
    actor: Actor,
    Path((name, schedule)): Path<(String, String)>,
) -> Result<Response, Problem> {
    super::read(&app, &actor, &Whose::Group(known(&name)?), &schedule).await
}

/// Makes a group's schedule of this name, or gives it another definition.
#[utoipa::path(
    put, path = "/groups/{name}/schedules/{schedule}", tag = "schedules", operation_id = "put_group_schedule",
    security(("bearer" = ["settings:write"])),
    params(
        GroupPath,
        ("schedule" = String, Path, description = "The schedule's name", example = "night"),
        ("If-Match" = Option<String>, Header, description = "Only if this is its version: `\"7\"`"),
    ),
    request_body(content = ScheduleDefinition, content_type = "application/json", example = json!({
        "days": ["sat", "sun"], "from": "23:00", "to": "08:00", "settings": {"privacyMode": true}
    })),
    responses(
        (status = 200, description = "The schedule as it is now", body = ScheduleBody,
         headers(("ETag" = String, description = "Its version, in quotes"))),
        (status = 201, description = "It is new", body = ScheduleBody,
         headers(("ETag" = String, description = "Its version, in quotes"))),
        (status = 400, description = "Not a JSON object, too deep, or with a key twice"),
        (status = 404, description = "There is no such group"),
        (status = 409, description = "`too_many_schedules`: there are as many as may be"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 413, description = "Together with the others larger than a settings document"),
        (status = 422, description = "A field or a setting is not valid; `errors` says which and why"),
    )
)]
async fn put(
    State(app): State<App>,
    actor: Actor,
    Path((name, schedule)): Path<(String, String)>,
    IfMatch(precondition): IfMatch,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    super::put(
        &app,
        &actor,
        &Whose::Group(known(&name)?),
        &schedule,
        &precondition,
        &body,
    )
    .await
}

/// Changes a group's schedule.
///
/// The body is a merge patch (RFC 7396), also within `settings`: `{"enabled":false}` suspends it.
#[utoipa::path(
    patch, path = "/groups/{name}/schedules/{schedule}", tag = "schedules", operation_id = "patch_group_schedule",
    security(("bearer" = ["settings:write"])),
    params(
        GroupPath,
        ("schedule" = String, Path, description = "The schedule's name", example = "night"),
        ("If-Match" = Option<String>, Header, description = "Only if this is its version: `\"7\"`"),
    ),
    request_body(content(
        (Object = "application/merge-patch+json", example = json!({"enabled": false})),
        (Object = "application/json", example = json!({"to": "07:00"})),
    )),
    responses(
        (status = 200, description = "The schedule as it is now", body = ScheduleBody,
         headers(("ETag" = String, description = "Its version, in quotes"))),
        (status = 400, description = "Not a JSON object, too deep, or with a key twice"),
        (status = 404, description = "There is no such group or schedule"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 413, description = "Together with the others larger than a settings document"),
        (status = 422, description = "A field or a setting is not valid; `errors` says which and why"),
    )
)]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path((name, schedule)): Path<(String, String)>,
    IfMatch(precondition): IfMatch,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    super::patch(
        &app,
        &actor,
        &Whose::Group(known(&name)?),
        &schedule,
        &precondition,
        &body,
    )
    .await
}

/// Removes a group's schedule.
#[utoipa::path(
    delete, path = "/groups/{name}/schedules/{schedule}", tag = "schedules", operation_id = "delete_group_schedule",
    security(("bearer" = ["settings:write"])),
    params(
        GroupPath,
        ("schedule" = String, Path, description = "The schedule's name", example = "night"),
        ("If-Match" = Option<String>, Header, description = "Only if this is its version: `\"7\"`"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such group or schedule"),
        (status = 412, description = "Another version is current: `current_version`"),
    )
)]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path((name, schedule)): Path<(String, String)>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, Problem> {
    super::delete(
        &app,
        &actor,
        &Whose::Group(known(&name)?),
        &schedule,
        &precondition,
    )
    .await
}
