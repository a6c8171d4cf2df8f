//! `/devices/{serial}/schedules`.

use axum::{extract::State, http::StatusCode, response::Response};
use setpoint_model::Serial;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    NewSchedule, ScheduleBody, ScheduleDefinition,
    preview::{self, PreviewQuery, ScheduleItem},
};
use crate::{
    app::{Actor, App, schedules::Whose},
    http::{
        Context, Json, Page, PageQuery, Path, Payload, Problem, Query, etag::IfMatch, params::DevicePath,
    },
};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(preview))
        .routes(routes!(read, put, patch, delete))
}

/// Lists a device's schedules by name.
///
/// Those of its groups are not among them, but in the preview.
#[utoipa::path(
    get, path = "/devices/{serial}/schedules", tag = "schedules", operation_id = "list_device_schedules",
    security(("bearer" = ["settings:read"])),
    params(DevicePath, PageQuery),
    responses(
        (status = 200, description = "A page of schedules", body = Page<ScheduleBody>),
        (status = 404, description = "There is no such device"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ScheduleBody>>, Problem> {
    super::list(&app, &actor, &Whose::Device(serial), query).await
}

/// Makes a schedule for a device.
///
/// It is judged as a change of the device's settings would be. While it holds, what it sets lies over everything else.
#[utoipa::path(
    post, path = "/devices/{serial}/schedules", tag = "schedules", operation_id = "create_device_schedule",
    security(("bearer" = ["settings:write"])),
    params(DevicePath),
    request_body(content = NewSchedule, content_type = "application/json", example = json!({
        "name": "night", "days": ["mon", "tue", "wed", "thu", "fri"], "from": "22:00", "to": "06:30",
        "settings": {"privacyMode": true}
    })),
    responses(
        (status = 201, description = "The schedule", body = ScheduleBody, headers(
            ("ETag" = String, description = "Its version, in quotes"),
            ("Location" = String, description = "Where it is"))),
        (status = 400, description = "Not a JSON object, too deep, or with a key twice"),
        (status = 404, description = "There is no such device"),
        (status = 409, description = "`schedule_exists`: the name is taken; `too_many_schedules`: there are as many as may be"),
        (status = 413, description = "Together with the others larger than a settings document"),
        (status = 422, description = "A field or a setting is not valid; `errors` says which and why"),
    )
)]
async fn create(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    let base = format!("/devices/{serial}/schedules");
    super::create(&app, &actor, &Whose::Device(serial), &base, &body).await
}

/// Shows what a device's schedules will do.
///
/// Its own schedules and those of its groups, in its time zone, overlaps resolved: `settings` is what they set together,
/// of what its model takes. Times in which none holds are left out.
#[utoipa::path(
    get, path = "/devices/{serial}/schedules/preview", tag = "schedules", operation_id = "preview_device_schedules",
    security(("bearer" = ["settings:read"])),
    params(DevicePath, PreviewQuery),
    responses(
        (status = 200, description = "What will hold when, in order", body = Page<ScheduleItem>),
        (status = 404, description = "There is no such device"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn preview(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Query(query): Query<PreviewQuery>,
) -> Result<Json<Page<ScheduleItem>>, Problem> {
    preview::answer(&app, &actor, &Whose::Device(serial), &query).await
}

/// Shows a device's schedule.
#[utoipa::path(
    get, path = "/devices/{serial}/schedules/{name}", tag = "schedules", operation_id = "read_device_schedule",
    security(("bearer" = ["settings:read"])),
    params(DevicePath, ("name" = String, Path, description = "The schedule's name", example = "night")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleBody,
         headers(("ETag" = String, description = "Its version, in quotes"))),
        (status = 404, description = "There is no such device or schedule"),
    )
)]
async fn read(
    State(app): State<App>,
    actor: Actor,
    Path((serial, name)): Path<(Serial, String)>,
) -> Result<Response, Problem> {
    super::read(&app, &actor, &Whose::Device(serial), &name).await
}

/// Makes a device's schedule of this name, or gives it another definition.
#[utoipa::path(
    put, path = "/devices/{serial}/schedules/{name}", tag = "schedules", operation_id = "put_device_schedule",
    security(("bearer" = ["settings:write"])),
    params(
        DevicePath,
        ("name" = String, Path, description = "The schedule's name", example = "night"),
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
        (status = 404, description = "There is no such device"),
        (status = 409, description = "`too_many_schedules`: there are as many as may be"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 413, description = "Together with the others larger than a settings document"),
        (status = 422, description = "A field or a setting is not valid; `errors` says which and why"),
    )
)]
async fn put(
    State(app): State<App>,
    actor: Actor,
    Path((serial, name)): Path<(Serial, String)>,
    IfMatch(precondition): IfMatch,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    super::put(&app, &actor, &Whose::Device(serial), &name, &precondition, &body).await
}

/// Changes a device's schedule.
///
/// The body is a merge patch (RFC 7396), also within `settings`: `{"enabled":false}` suspends it.
#[utoipa::path(
    patch, path = "/devices/{serial}/schedules/{name}", tag = "schedules", operation_id = "patch_device_schedule",
    security(("bearer" = ["settings:write"])),
    params(
        DevicePath,
        ("name" = String, Path, description = "The schedule's name", example = "night"),
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
        (status = 404, description = "There is no such device or schedule"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 413, description = "Together with the others larger than a settings document"),
        (status = 422, description = "A field or a setting is not valid; `errors` says which and why"),
    )
)]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path((serial, name)): Path<(Serial, String)>,
    IfMatch(precondition): IfMatch,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    super::patch(&app, &actor, &Whose::Device(serial), &name, &precondition, &body).await
}

/// Removes a device's schedule.
#[utoipa::path(
    delete, path = "/devices/{serial}/schedules/{name}", tag = "schedules", operation_id = "delete_device_schedule",
    security(("bearer" = ["settings:write"])),
    params(
        DevicePath,
        ("name" = String, Path, description = "The schedule's name", example = "night"),
        ("If-Match" = Option<String>, Header, description = "Only if this is its version: `\"7\"`"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such device or schedule"),
        (status = 412, description = "Another version is current: `current_version`"),
    )
)]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path((serial, name)): Path<(Serial, String)>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, Problem> {
    super::delete(&app, &actor, &Whose::Device(serial), &name, &precondition).await
}
