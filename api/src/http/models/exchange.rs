//! `/models/export` and `/models/import`: models as one file.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use setpoint_model::settings::Document;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::DryRun;
use crate::{
    app::{Actor, App, models::ModelChange},
    http::{Context, Json, Payload, Problem, Query},
};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(export))
        .routes(routes!(import))
}

/// Which models.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Names with commas between; all models without it.
    #[param(example = "home,home-v2")]
    name: Option<String>,
}

/// A file of models.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes a body that the model crate reads and writes")]
struct ModelFile {
    /// Always `setpoint.models/1`.
    #[schema(example = "setpoint.models/1")]
    format: String,
    /// The models by name, each with all of its fields.
    models: Vec<super::ModelFields>,
    /// For import: model to setting key to what replaces a stored value that doesn't fit any more; null for nothing.
    #[schema(value_type = Option<Object>, example = json!({"home": {"reportInterval": 600}}))]
    migrate: Option<Document>,
}

/// What an import did, or would do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Imported {
    /// Whether it was only tried.
    dry_run: bool,
    /// Each model of the file, by name.
    models: Vec<ImportedModel>,
}

/// What became of one model.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ImportedModel {
    /// Its name.
    #[schema(example = "home")]
    name: String,
    /// What became of it.
    outcome: Outcome,
    /// Its version now.
    #[schema(example = 3)]
    version: i32,
    /// What changed; empty if nothing did.
    #[schema(value_type = Object)]
    diff: Document,
    /// How many devices had values that were replaced.
    #[schema(example = 0)]
    migrated_devices: i64,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// There was none of this name.
    Created,
    /// It was another before.
    Changed,
    /// It was the same already.
    Unchanged,
}

impl From<ModelChange> for ImportedModel {
    fn from(change: ModelChange) -> Self {
        Self {
            outcome: match (change.existed, change.diff.is_empty()) {
                (false, _) => Outcome::Created,
                (true, false) => Outcome::Changed,
                (true, true) => Outcome::Unchanged,
            },
            name: change.model.name,
            version: change.model.version,
            diff: change.diff,
            migrated_devices: change.migrated_devices,
        }
    }
}

/// Gives models as one file, which import reads as exactly the same models.
#[utoipa::path(
    get, path = "/models/export", tag = "models", security(("bearer" = ["models:read"])), params(Which),
    responses(
        (status = 200, description = "The file", body = ModelFile),
        (status = 404, description = "There is no such model"),
    )
)]
async fn export(
    State(app): State<App>,
    actor: Actor,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let names: Vec<String> = which
        .name
        .iter()
        .flat_map(|names| names.split(','))
        .map(str::to_owned)
        .collect();
    let file = app.export_models(&actor, &names).await?;
    let name = (
        header::CONTENT_DISPOSITION,
        "attachment; filename=\"models.json\"",
    );
    Ok(([name], Json(file)).into_response())
}

/// Makes or replaces the models of a file, all or none.
///
/// Models that the file doesn't name stay as they are. A model that is the same already gets no new version.
#[utoipa::path(
    post, path = "/models/import", tag = "models", security(("bearer" = ["models:write"])), params(DryRun),
    request_body(content = ModelFile, content_type = "application/json"),
    responses(
        (status = 200, description = "What became of each model", body = Imported),
        (status = 409, description = "Stored values break the new rules: `misfits` says which"),
        (status = 422, description = "Something in the file is wrong; `errors` says where and why"),
    )
)]
async fn import(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<DryRun>,
    Payload(file): Payload,
) -> Result<Json<Imported>, Problem> {
    let changes = app.import_models(&actor, &file, query.dry_run).await?;
    Ok(Json(Imported {
        dry_run: query.dry_run,
        models: changes.into_iter().map(ImportedModel::from).collect(),
    }))
}
