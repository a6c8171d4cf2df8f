//! `/devices/{serial}/settings/versions`.

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use setpoint_model::{
    Serial,
    settings::{Diff, Source, Timeline},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{shown, version};
use crate::{
    app::{Actor, App, settings::VersionStory},
    http::{Context, Json, Page, PageQuery, Path, Problem, Query, etag::IfMatch, page, params::DevicePath},
};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(read))
        .routes(routes!(revert))
}

/// One version of a device's settings, and what became of it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SettingsVersion)]
struct VersionBody {
    /// Its number.
    #[schema(example = 42)]
    version: i64,
    /// Who made it.
    #[schema(example = "token:ci")]
    actor: String,
    /// By which way.
    source: Source,
    /// When it was made.
    at: Option<DateTime<Utc>>,
    /// Key to its value before and after; null where the key was not in the document.
    #[schema(example = json!({"privacyMode": {"from": false, "to": true}}))]
    diff: Diff,
    /// When each step of its way to the device happened.
    timeline: Timeline,
    /// What became of it, or what it waits for.
    #[schema(example = "offline since 14:02")]
    verdict: String,
}

impl From<VersionStory> for VersionBody {
    fn from(story: VersionStory) -> Self {
        let VersionStory { version, verdict } = story;
        Self {
            version: version.version,
            actor: version.actor,
            source: version.source,
            at: version.timeline.requested,
            diff: version.diff,
            timeline: version.timeline,
            verdict,
        }
    }
}

/// Lists the versions of a device's settings, newest first.
#[utoipa::path(
    get, path = "/devices/{serial}/settings/versions", tag = "settings", security(("bearer" = ["settings:read"])),
    params(DevicePath, PageQuery),
    responses(
        (status = 200, description = "A page of versions", body = Page<VersionBody>),
        (status = 404, description = "There is no such device"),
    )
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<VersionBody>>, Problem> {
    let limit = query.limit()?;
    let before = page::cursor::<i64>(query.cursor.as_deref())?;
    let versions = app.settings_versions(&actor, &serial, before, limit + 1).await?;
    Ok(Json(
        Page::of(versions, limit, |last| last.version.version.to_string()).map(VersionBody::from),
    ))
}

/// Shows one version of a device's settings.
#[utoipa::path(
    get, path = "/devices/{serial}/settings/versions/{version}", tag = "settings",
    security(("bearer" = ["settings:read"])),
    params(DevicePath, ("version" = i64, Path, description = "The version", example = 42)),
    responses(
        (status = 200, description = "The version", body = VersionBody),
        (status = 404, description = "There is no such device or version"),
    )
)]
async fn read(
    State(app): State<App>,
    actor: Actor,
    Path((serial, number)): Path<(Serial, String)>,
) -> Result<Json<VersionBody>, Problem> {
    Ok(Json(
        app.settings_version(&actor, &serial, version(&number)?)
            .await?
            .into(),
    ))
}

/// Brings an earlier version back.
///
/// What was set on the device itself at that version is set again, as a new version with `source` `revert`.
#[utoipa::path(
    post, path = "/devices/{serial}/settings/versions/{version}/revert", tag = "settings",
    security(("bearer" = ["settings:write"])),
    params(
        DevicePath,
        ("version" = i64, Path, description = "The version to bring back", example = 41),
        ("If-Match" = Option<String>, Header, description = "Only if this is the current version: `\"42\"`"),
    ),
    responses(
        (status = 200, description = "The settings as they are now", body = super::SettingsBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 404, description = "There is no such device or version"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 422, description = "The model no longer takes these settings; `errors` says which and why"),
    )
)]
async fn revert(
    State(app): State<App>,
    actor: Actor,
    Path((serial, number)): Path<(Serial, String)>,
    IfMatch(precondition): IfMatch,
) -> Result<Response, Problem> {
    shown(
        app.revert_settings(&actor, &serial, version(&number)?, &precondition)
            .await?,
    )
}
