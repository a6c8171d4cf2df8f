//! `/factory/imports`.

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use setpoint_store::factory;
use tokio_util::io::{StreamReader, SyncIoBridge};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Context, Json, Path, Problem, Query, answer};
use crate::app::{Actor, App};

pub(super) fn routes() -> OpenApiRouter<Context> {
    // The file is read as it comes; `factory.max_import` bounds it.
    OpenApiRouter::new()
        .routes(routes!(begin))
        .layer(DefaultBodyLimit::disable())
        .routes(routes!(read))
}

/// How to read the file.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ImportQuery {
    /// Whether to look only: what would happen is told, and nothing changes.
    #[serde(default)]
    dry_run: bool,
    /// The model of lines that name none; `home` without it.
    #[param(example = "home")]
    model: Option<String>,
}

/// An import of factory serials.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Import {
    /// Its id.
    id: Uuid,
    /// `receiving`, `checking`, and then `done` or `refused`.
    #[schema(example = "done")]
    state: &'static str,
    /// Whether it only looks.
    dry_run: bool,
    /// Who began it.
    actor: String,
    /// When it began.
    created_at: DateTime<Utc>,
    /// When it was done or refused.
    ended_at: Option<DateTime<Utc>>,
    /// Lines so far, the header not counted.
    lines: i64,
    /// Serials that were not known before.
    added: i64,
    /// Serials that were: what was known of them is replaced.
    replaced: i64,
    /// How many errors there are. A single one refuses the whole file.
    error_count: i64,
    /// The first 100 of them.
    errors: Vec<LineError>,
}

/// What is wrong with a line of an import.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct LineError {
    /// The line of the file, the header being 1.
    line: i64,
    /// The column, or `line` for the line as a whole.
    #[schema(example = "serial")]
    field: String,
    /// What is wrong.
    message: String,
}

impl From<factory::Import> for Import {
    fn from(import: factory::Import) -> Self {
        let errors = import.errors.into_iter().map(|error| LineError {
            line: error.line,
            field: error.field,
            message: error.message,
        });
        Self {
            id: import.id,
            state: import.state.as_str(),
            dry_run: import.dry_run,
            actor: import.actor,
            created_at: import.created_at,
            ended_at: import.ended_at,
            lines: import.lines,
            added: import.added,
            replaced: import.replaced,
            error_count: import.error_count,
            errors: errors.collect(),
        }
    }
}

/// Imports a CSV file of factory serials.
///
/// The first line names the columns: `serial`, and if wanted `secret`, `model`, `name` and `tags` (`site=oslo; floor=2`).
/// Answered once the whole file is there; ask for the import until it is `done` or `refused`. One wrong line refuses
/// the whole file.
#[utoipa::path(
    post, path = "/factory/imports", tag = "devices", security(("bearer" = ["devices:write"])),
    params(ImportQuery),
    request_body(content = String, content_type = "text/csv", example = "serial,secret\nHALL-7,k3Jx-9Qpw\n"),
    responses(
        (status = 202, description = "The file is there and will be checked", body = Import),
        (status = 400, description = "The file breaks off"),
        (status = 413, description = "The file is too large"),
        (status = 422, description = "The first line does not name the columns"),
    )
)]
async fn begin(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<ImportQuery>,
    body: Body,
) -> Result<Response, Problem> {
    let bytes = body.into_data_stream().map_err(std::io::Error::other);
    let file = SyncIoBridge::new(StreamReader::new(bytes));
    let import = app
        .import_serials(&actor, file, query.dry_run, query.model)
        .await?;
    let path = format!("/factory/imports/{}", import.id);
    answer::at(StatusCode::ACCEPTED, &path, Json(Import::from(import)))
}

/// Reads how an import stands.
#[utoipa::path(
    get, path = "/factory/imports/{id}", tag = "devices", security(("bearer" = ["devices:write"])),
    params(("id" = Uuid, Path, description = "The import's id")),
    responses(
        (status = 200, description = "The import", body = Import),
        (status = 404, description = "There is no such import"),
    )
)]
async fn read(State(app): State<App>, actor: Actor, Path(id): Path<Uuid>) -> Result<Json<Import>, Problem> {
    Ok(Json(app.serial_import(&actor, id).await?.into()))
}
