//! `/devices` and `/devices/{serial}`.

mod list;

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use setpoint_model::{Serial, device::Tags};
use setpoint_store::devices::Device;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Context, Json, Page, Path, Payload, Problem, Query, answer, credentials::Credential, params::DevicePath,
};
use crate::app::{Actor, App};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, patch, delete))
}

/// A device.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Device)]
pub(super) struct DeviceBody {
    /// Its serial.
    #[schema(value_type = String, example = "HOME-1")]
    serial: Serial,
    /// A name for people.
    #[schema(example = "Hall")]
    name: String,
    /// Its model.
    #[schema(example = "home")]
    model: String,
    /// Tags by which groups select it.
    #[schema(value_type = Object, example = json!({"site": "oslo", "floor": 2}))]
    tags: Tags,
    /// Its IANA time zone.
    #[schema(example = "Europe/Oslo")]
    time_zone: &'static str,
    /// Where it is: a text, or an object with `latitude` and `longitude`.
    #[schema(value_type = Object, nullable, example = json!({"latitude": 59.9, "longitude": 10.7}))]
    location: Option<Value>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When its description last changed.
    updated_at: DateTime<Utc>,
    /// Whether it is connected.
    online: bool,
    /// When it was last heard of.
    last_seen: Option<DateTime<Utc>>,
    /// Why its last session ended; null while it is online.
    #[schema(example = "keep_alive_timeout")]
    disconnect_reason: Option<String>,
    /// The newest version of its settings.
    #[schema(example = 42)]
    settings_version: i64,
    /// Whether it was reported stolen: it is refused, and every attempt is in its timeline.
    stolen: bool,
    /// Its credential, with the token only in the answer that makes the device; null if it has none and can't sign in.
    credential: Option<Credential>,
}

/// A device to be made. Only `serial` is needed.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "the shape for the documentation; `model::device` reads the body"
)]
struct NewDevice {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
    #[schema(example = "HOME-1", max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    serial: String,
    /// A name for people, up to 200 characters.
    #[schema(required = false, example = "Hall", max_length = 200)]
    name: String,
    /// Its model; `home` without it.
    #[schema(required = false, example = "home")]
    model: String,
    /// Up to 32 tags: a short text, a number or a boolean each.
    #[schema(required = false, value_type = Object, example = json!({"site": "oslo", "floor": 2}))]
    tags: Value,
    /// An IANA time zone; `UTC` without it.
    #[schema(required = false, example = "Europe/Oslo")]
    time_zone: String,
    /// A text, or an object with `latitude` and `longitude`.
    #[schema(required = false, value_type = Object, example = json!({"latitude": 59.9, "longitude": 10.7}))]
    location: Option<Value>,
}

/// A merge patch (RFC 7396) of a device's description: `null` brings a field's default back.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "the shape for the documentation; `model::device` reads the body"
)]
struct DevicePatch {
    /// A name for people, up to 200 characters.
    name: Option<String>,
    /// Its model. It must take what was set on the device itself.
    model: Option<String>,
    /// Tags to set; `null` drops one.
    #[schema(value_type = Object, nullable, example = json!({"floor": 3, "site": null}))]
    tags: Option<Value>,
    /// An IANA time zone.
    time_zone: Option<String>,
    /// A text, or an object with `latitude` and `longitude`.
    #[schema(value_type = Object, nullable)]
    location: Option<Value>,
    /// `true` ends its sessions and refuses it, until it is `false` again.
    stolen: Option<bool>,
}

impl From<Device> for DeviceBody {
    fn from(device: Device) -> Self {
        let made = device.credential_created_at;
        let credential = made.map(|created_at| Credential::held(device.serial.clone(), created_at));
        Self {
            serial: device.serial,
            name: device.description.name,
            model: device.description.model,
            tags: device.description.tags,
            time_zone: device.description.time_zone.name(),
            location: device.description.location,
            created_at: device.created_at,
            updated_at: device.updated_at,
            online: device.online,
            last_seen: device.last_seen,
            disconnect_reason: device.disconnect_reason,
            settings_version: device.settings_version,
            stolen: device.stolen_at.is_some(),
            credential,
        }
    }
}

/// Makes a device.
///
/// Its token is in this answer alone.
#[utoipa::path(
    post, path = "/devices", tag = "devices", security(("bearer" = ["devices:write"])), request_body = NewDevice,
    responses(
        (status = 201, description = "Made; `credential.token` is shown this once", body = DeviceBody,
         headers(("Location" = String, description = "Where the device is"))),
        (status = 409, description = "`device_exists`: the serial is taken"),
        (status = 422, description = "A field is not valid; `errors` says which and why"),
    )
)]
async fn create(State(app): State<App>, actor: Actor, Payload(body): Payload) -> Result<Response, Problem> {
    let (device, secret) = app.create_device(&actor, &body).await?;
    let path = format!("/devices/{}", device.serial);
    let credential = Credential::made(device.serial.clone(), device.created_at, &secret);
    let body = DeviceBody {
        credential: Some(credential),
        ..device.into()
    };
    answer::at(StatusCode::CREATED, &path, Json(body))
}

/// Lists devices.
///
/// Filters go by field name: `model=home`, `online=true`, `tag.site=oslo`; several must all hold.
#[utoipa::path(
    get, path = "/devices", tag = "devices", security(("bearer" = ["devices:read"])), params(list::ListQuery),
    responses(
        (status = 200, description = "A page of devices", body = Page<DeviceBody>),
        (status = 422, description = "A parameter is unknown or not valid"),
    )
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<Page<DeviceBody>>, Problem> {
    let asked = list::Asked::parse(parameters)?;
    let devices = app
        .devices(
            &actor,
            &asked.filter,
            asked.sort,
            asked.after.as_ref(),
            asked.limit + 1,
        )
        .await?;
    let page = Page::of(devices, asked.limit, |last| list::cursor(asked.sort, last));
    Ok(Json(page.map(DeviceBody::from)))
}

/// Shows a device.
#[utoipa::path(
    get, path = "/devices/{serial}", tag = "devices", security(("bearer" = ["devices:read"])),
    params(DevicePath),
    responses(
        (status = 200, description = "The device", body = DeviceBody),
        (status = 404, description = "There is no such device"),
    )
)]
async fn read(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
) -> Result<Json<DeviceBody>, Problem> {
    Ok(Json(app.device(&actor, &serial).await?.into()))
}

/// Changes a device's description.
///
/// The body is a merge patch (RFC 7396). Another model brings its own settings, and a new version of them.
#[utoipa::path(
    patch, path = "/devices/{serial}", tag = "devices", security(("bearer" = ["devices:write"])),
    params(DevicePath),
    request_body(content(
        (DevicePatch = "application/merge-patch+json", example = json!({"name": "Hall", "tags": {"floor": 3}})),
        (DevicePatch = "application/json"),
    )),
    responses(
        (status = 200, description = "The device as it is now", body = DeviceBody),
        (status = 404, description = "There is no such device"),
        (status = 422, description = "A field is not valid; `errors` says which and why"),
    )
)]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Payload(body): Payload,
) -> Result<Json<DeviceBody>, Problem> {
    Ok(Json(app.patch_device(&actor, &serial, &body).await?.into()))
}

/// Deletes a device with all that is known of it.
///
/// Its sessions end, its token is dead, its retained messages are cleared.
#[utoipa::path(
    delete, path = "/devices/{serial}", tag = "devices", security(("bearer" = ["devices:write"])),
    params(DevicePath),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such device"),
    )
)]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
) -> Result<StatusCode, Problem> {
    app.delete_device(&actor, &serial).await?;
    Ok(StatusCode::NO_CONTENT)
}
