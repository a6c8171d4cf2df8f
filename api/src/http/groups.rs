//! `/groups` and `/groups/{name}`.

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use setpoint_model::{GroupName, Selector, settings::Document};
use setpoint_store::{
    devices::{DeviceFilter, DeviceSort, Position, SortKey},
    groups::Group,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Context, Json, Page, PageQuery, Path, Payload, Problem, Query, answer, devices::DeviceBody,
    etag::IfMatch, page, params::GroupPath,
};
use crate::app::{Actor, App, Error};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, put, patch, delete))
        .routes(routes!(devices))
}

/// Devices selected by their tags, with settings that they inherit.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Group)]
struct GroupBody {
    /// Its name.
    #[schema(example = "oslo")]
    name: String,
    /// Which devices belong to it, by their tags.
    #[schema(value_type = String, example = "site=oslo and floor in (1,2)")]
    selector: Selector,
    /// Of two groups that set the same key the higher priority wins, then the later name.
    #[schema(example = 10)]
    priority: i32,
    /// What its members inherit; a value set on a device itself goes before.
    #[schema(value_type = Object, example = json!({"reportInterval": 300}))]
    settings: Document,
    /// Rises with each change; also the `ETag`.
    #[schema(example = 3)]
    version: i64,
    /// How many devices belong to it now.
    #[schema(example = 120)]
    members: i64,
    /// Whether the last change is still on its way to devices.
    settling: bool,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

/// A group to be made.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "the shape for the documentation; `model::group` reads the body"
)]
struct NewGroup {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
    #[schema(example = "oslo", max_length = 64)]
    name: String,
    /// Which devices belong to it, by their tags.
    #[schema(example = "site=oslo and floor in (1,2)", max_length = 2000)]
    selector: String,
    /// Of two groups that set the same key the higher priority wins, then the later name; 0 without it.
    #[schema(required = false, example = 10)]
    priority: i32,
    /// What its members inherit. Each key must be known to some model, and its value accepted by one.
    #[schema(required = false, value_type = Object, example = json!({"reportInterval": 300}))]
    settings: Document,
}

/// What a group says.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "the shape for the documentation; `model::group` reads the body"
)]
struct GroupDescription {
    /// Which devices belong to it, by their tags.
    #[schema(example = "site=oslo and floor in (1,2)", max_length = 2000)]
    selector: String,
    /// Of two groups that set the same key the higher priority wins, then the later name; 0 without it.
    #[schema(required = false, example = 10)]
    priority: i32,
    /// What its members inherit.
    #[schema(required = false, value_type = Object, example = json!({"reportInterval": 300}))]
    settings: Document,
}

impl From<Group> for GroupBody {
    fn from(group: Group) -> Self {
        Self {
            name: group.name,
            selector: group.description.selector,
            priority: group.description.priority,
            settings: group.description.settings,
            version: group.version,
            members: group.members,
            settling: group.settling,
            created_at: group.created_at,
            updated_at: group.updated_at,
        }
    }
}

/// The group with its `ETag`.
fn shown(group: Group) -> Result<Response, Problem> {
    answer::versioned(group.version, GroupBody::from(group))
}

/// The group with its `ETag` and where it is.
fn made(group: Group) -> Result<Response, Problem> {
    let path = format!("/groups/{}", group.name);
    answer::at(StatusCode::CREATED, &path, shown(group)?)
}

/// Lists groups by name.
#[utoipa::path(
    get, path = "/groups", tag = "groups", security(("bearer" = ["groups:read"])), params(PageQuery),
    responses((status = 200, description = "A page of groups", body = Page<GroupBody>))
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<GroupBody>>, Problem> {
    let limit = query.limit()?;
    let after = page::after::<GroupName>(query.cursor.as_deref())?;
    let groups = app.groups(&actor, &after, limit + 1).await?;
    Ok(Json(
        Page::of(groups, limit, |last| last.name.clone()).map(GroupBody::from),
    ))
}

/// Makes a group.
///
/// Devices that its selector means inherit its settings at once; `settling` says whether all have been reached.
#[utoipa::path(
    post, path = "/groups", tag = "groups", security(("bearer" = ["groups:write"])), request_body = NewGroup,
    responses(
        (status = 201, description = "Made", body = GroupBody,
         headers(("Location" = String, description = "Where the group is"), ("ETag" = String, description = "The version, in quotes"))),
        (status = 409, description = "`group_exists`: the name is taken; `too_many_groups`"),
        (status = 413, description = "Larger than the limit"),
        (status = 422, description = "A field is not valid; `errors` says which and why, settings as `settings.KEY`"),
    )
)]
async fn create(State(app): State<App>, actor: Actor, Payload(body): Payload) -> Result<Response, Problem> {
    made(app.create_group(&actor, &body).await?)
}

/// Shows a group.
#[utoipa::path(
    get, path = "/groups/{name}", tag = "groups", security(("bearer" = ["groups:read"])),
    params(GroupPath),
    responses(
        (status = 200, description = "The group", body = GroupBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 404, description = "There is no such group"),
    )
)]
async fn read(State(app): State<App>, actor: Actor, Path(name): Path<String>) -> Result<Response, Problem> {
    shown(app.group(&actor, &known(&name)?).await?)
}

/// Makes a group, or replaces what it says.
#[utoipa::path(
    put, path = "/groups/{name}", tag = "groups", security(("bearer" = ["groups:write"])),
    params(GroupPath, IfMatch),
    request_body = GroupDescription,
    responses(
        (status = 200, description = "The group as it is now", body = GroupBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 201, description = "Made", body = GroupBody),
        (status = 409, description = "`too_many_groups`; `group_changed`: others keep changing it"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 413, description = "Larger than the limit"),
        (status = 422, description = "A field is not valid; `errors` says which and why, settings as `settings.KEY`"),
    )
)]
async fn put(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    IfMatch(precondition): IfMatch,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    let (group, is_new) = app
        .put_group(&actor, &known(&name)?, &body, &precondition)
        .await?;
    if is_new { made(group) } else { shown(group) }
}

/// Changes a group.
///
/// The body is a merge patch (RFC 7396): `null` for a setting drops it from the group.
#[utoipa::path(
    patch, path = "/groups/{name}", tag = "groups", security(("bearer" = ["groups:write"])),
    params(GroupPath, IfMatch),
    request_body(content(
        (GroupDescription = "application/merge-patch+json", example = json!({"settings": {"reportInterval": 300, "label": null}})),
        (GroupDescription = "application/json"),
    )),
    responses(
        (status = 200, description = "The group as it is now", body = GroupBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 404, description = "There is no such group"),
        (status = 409, description = "`group_changed`: others keep changing it"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 413, description = "Larger than the limit"),
        (status = 422, description = "A field is not valid; `errors` says which and why, settings as `settings.KEY`"),
    )
)]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    IfMatch(precondition): IfMatch,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    shown(
        app.patch_group(&actor, &known(&name)?, &body, &precondition)
            .await?,
    )
}

/// Deletes a group.
///
/// Its members inherit nothing more from it: values of the next lower layer return.
#[utoipa::path(
    delete, path = "/groups/{name}", tag = "groups", security(("bearer" = ["groups:write"])),
    params(GroupPath, IfMatch),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such group"),
        (status = 412, description = "Another version is current: `current_version`"),
    )
)]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, Problem> {
    app.delete_group(&actor, &known(&name)?, &precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the devices that belong to a group, by serial.
#[utoipa::path(
    get, path = "/groups/{name}/devices", tag = "groups", security(("bearer" = ["groups:read"])),
    params(GroupPath, PageQuery),
    responses(
        (status = 200, description = "A page of devices", body = Page<DeviceBody>),
        (status = 404, description = "There is no such group"),
    )
)]
async fn devices(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<DeviceBody>>, Problem> {
    let limit = query.limit()?;
    let group = app.group(&actor, &known(&name)?).await?;
    let filter = DeviceFilter {
        group: Some(group.name),
        ..DeviceFilter::default()
    };
    let by_serial = DeviceSort {
        key: SortKey::Serial,
        descending: false,
    };
    let after = query.cursor.map(|serial| Position::Text(serial.clone(), serial));
    if matches!(&after, Some(Position::Text(serial, _)) if serial.contains('\0')) {
        return Err(Error::invalid("cursor", "is not a cursor of this list").into());
    }
    let devices = app
        .devices(&actor, &filter, by_serial, after.as_ref(), limit + 1)
        .await?;
    let page = Page::of(devices, limit, |last| last.serial.to_string());
    Ok(Json(page.map(DeviceBody::from)))
}

/// A path's name; there is no group of any other.
pub(super) fn known(name: &str) -> Result<GroupName, Error> {
    name.parse().map_err(|_| Error::NotFound { what: "group" })
}
