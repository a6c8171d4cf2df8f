//! `/devices/{serial}/settings`.

mod versions;

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use setpoint_model::{
    Serial,
    settings::{Document, Source, State as KeyState},
};
use setpoint_store::settings::Settings;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, Path, Payload, Problem, answer, etag::IfMatch, params::DevicePath};
use crate::app::{Actor, App, Error};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(read, patch, replace))
        .merge(versions::routes())
}

/// What a device should run, and what it says it runs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Settings)]
struct SettingsBody {
    /// The newest version; also the `ETag`.
    #[schema(example = 42)]
    version: i64,
    /// The whole effective document, as the device gets it.
    #[schema(value_type = Object, example = json!({"privacyMode": true, "reportInterval": 60}))]
    settings: Document,
    /// What was set on the device itself.
    #[schema(value_type = Object, example = json!({"privacyMode": true}))]
    overrides: Document,
    /// Key to the layer its value came from: `model`, `group:NAME`, `device` or `schedule:NAME`.
    #[schema(example = json!({"privacyMode": "device", "reportInterval": "model"}))]
    origins: BTreeMap<String, String>,
    /// What the device says it runs; null before its first acknowledgement.
    #[schema(value_type = Object, nullable, example = json!({"privacyMode": true, "reportInterval": 60}))]
    reported: Option<Document>,
    /// The last version that the device acknowledged.
    #[schema(example = 42)]
    reported_version: Option<i64>,
    /// Key to where it stands.
    status: BTreeMap<String, KeyStatus>,
}

/// Where one key stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct KeyStatus {
    /// `synced`: the device runs the value; `pending`: it hasn't said so; `refused`: it won't.
    state: KeyState,
    /// Since when.
    since: DateTime<Utc>,
    /// The device's own words, or what it runs instead.
    #[schema(example = "10..300 only")]
    message: Option<String>,
}

impl From<Settings> for SettingsBody {
    fn from(settings: Settings) -> Self {
        let status = |(key, status): (&str, &setpoint_model::settings::KeyStatus)| {
            let body = KeyStatus {
                state: status.state,
                since: status.since,
                message: status.message.clone(),
            };
            (key.to_owned(), body)
        };
        Self {
            version: settings.version,
            status: settings.status.iter().map(status).collect(),
            settings: settings.document,
            overrides: settings.overrides,
            origins: settings.origins,
            reported: settings.reported,
            reported_version: settings.reported_version,
        }
    }
}

/// The settings with their `ETag`.
fn shown(settings: Settings) -> Result<Response, Problem> {
    answer::versioned(settings.version, SettingsBody::from(settings))
}

/// Shows a device's settings.
#[utoipa::path(
    get, path = "/devices/{serial}/settings", tag = "settings", security(("bearer" = ["settings:read"])),
    params(DevicePath),
    responses(
        (status = 200, description = "The settings as they stand", body = SettingsBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 404, description = "There is no such device"),
    )
)]
async fn read(State(app): State<App>, actor: Actor, Path(serial): Path<Serial>) -> Result<Response, Problem> {
    shown(app.settings(&actor, &serial).await?)
}

/// Changes a device's settings.
///
/// The body is a merge patch (RFC 7396) of what is set on the device itself: `null` drops a key's value, so that the
/// inherited one returns. The device has the new document within milliseconds, or the moment it next connects. A
/// change that changes nothing makes no new version.
#[utoipa::path(
    patch, path = "/devices/{serial}/settings", tag = "settings", security(("bearer" = ["settings:write"])),
    params(
        DevicePath,
        ("If-Match" = Option<String>, Header, description = "Only if this is the current version: `\"42\"`"),
    ),
    request_body(content(
        (Object = "application/merge-patch+json", example = json!({"privacyMode": true, "label": null})),
        (Object = "application/json", example = json!({"privacyMode": true})),
    )),
    responses(
        (status = 200, description = "The settings as they are now", body = SettingsBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 400, description = "Not a JSON object, too deep, or with a key twice"),
        (status = 404, description = "There is no such device"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 413, description = "Larger than the limit"),
        (status = 422, description = "A key is unknown or its value breaks a rule; `errors` says which and why"),
    )
)]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    IfMatch(precondition): IfMatch,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    shown(
        app.patch_settings(&actor, &serial, &body, &precondition, Source::Rest)
            .await?,
    )
}

/// Replaces a device's settings.
///
/// The body is all that is to be set on the device itself: what is not in it returns to its inherited value.
#[utoipa::path(
    put, path = "/devices/{serial}/settings", tag = "settings", security(("bearer" = ["settings:write"])),
    params(
        DevicePath,
        ("If-Match" = Option<String>, Header, description = "Only if this is the current version: `\"42\"`"),
    ),
    request_body(content = Object, content_type = "application/json", example = json!({"privacyMode": true})),
    responses(
        (status = 200, description = "The settings as they are now", body = SettingsBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 400, description = "Not a JSON object, too deep, or with a key twice"),
        (status = 404, description = "There is no such device"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 413, description = "Larger than the limit"),
        (status = 422, description = "A key is unknown or its value breaks a rule; `errors` says which and why"),
    )
)]
async fn replace(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    IfMatch(precondition): IfMatch,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    shown(
        app.replace_settings(&actor, &serial, &body, &precondition)
            .await?,
    )
}

/// A path's version, which names nothing that exists unless it is a number.
fn version(text: &str) -> Result<i64, Error> {
    text.parse().map_err(|_| Error::NotFound { what: "version" })
}
