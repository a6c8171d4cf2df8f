//! `/models/{name}/versions` and `/models/{name}/versions/{version}`.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use setpoint_model::settings::Document;
use setpoint_store::models::ModelVersion;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{Actor, App, Error},
    http::{Context, Json, Page, PageQuery, Path, Problem, Query, params::ModelPath},
};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

/// A version of a model.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ModelVersion)]
struct VersionBody {
    /// Its number.
    #[schema(example = 2)]
    version: i32,
    /// Who made it.
    #[schema(example = "user:anna")]
    actor: String,
    /// When.
    at: DateTime<Utc>,
    /// What changed: field to `from` and `to`; within `settings` and `telemetry` key to `from` and `to`.
    #[schema(value_type = Object, example = json!({
        "settings": {"reportInterval": {"from": {"maximum": 3600}, "to": {"maximum": 600}}}
    }))]
    diff: Document,
    /// Setting key to what replaced stored values that didn't fit any more; null where nothing had to be.
    #[schema(value_type = Object, nullable, example = json!({"reportInterval": 600}))]
    migrate: Option<Document>,
    /// How many devices had such values.
    #[schema(example = 12)]
    migrated_devices: i64,
    /// All of the model at this version; in a list it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    definition: Option<Document>,
}

impl VersionBody {
    fn whole(version: ModelVersion) -> Self {
        Self {
            version: version.version,
            actor: version.actor,
            at: version.at,
            diff: version.diff,
            migrate: version.migrate,
            migrated_devices: version.migrated_devices,
            definition: Some(version.definition),
        }
    }

    fn brief(version: ModelVersion) -> Self {
        Self {
            definition: None,
            ..Self::whole(version)
        }
    }
}

/// Lists a model's versions, newest first.
#[utoipa::path(
    get, path = "/models/{name}/versions", tag = "models", security(("bearer" = ["models:read"])),
    params(ModelPath, PageQuery),
    responses(
        (status = 200, description = "A page of versions", body = Page<VersionBody>),
        (status = 404, description = "There is no such model"),
    )
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<VersionBody>>, Problem> {
    let limit = query.limit()?;
    let before = query.cursor.map(|cursor| cursor.parse::<i32>()).transpose();
    let before = before.map_err(|_| Error::invalid("cursor", "not a cursor of this list"))?;
    let versions = app.model_versions(&actor, &name, before, limit + 1).await?;
    Ok(Json(
        Page::of(versions, limit, |last| last.version.to_string()).map(VersionBody::brief),
    ))
}

/// Shows one version of a model with all of it.
#[utoipa::path(
    get, path = "/models/{name}/versions/{version}", tag = "models", security(("bearer" = ["models:read"])),
    params(ModelPath, ("version" = i32, Path, description = "The version", example = 2)),
    responses(
        (status = 200, description = "The version", body = VersionBody),
        (status = 404, description = "There is no such model or version"),
    )
)]
async fn read(
    State(app): State<App>,
    actor: Actor,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<VersionBody>, Problem> {
    // A number that no version can have names none either; the right is asked for first.
    let version = version.parse().unwrap_or(0);
    let version = app.model_version(&actor, &name, version).await?;
    Ok(Json(VersionBody::whole(version)))
}
