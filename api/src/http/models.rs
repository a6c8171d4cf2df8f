//! `/models` and `/models/{name}`.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use setpoint_model::settings::Document;
use setpoint_store::models::Model;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, Json, Page, PageQuery, Path, Problem, Query};
use crate::app::{Actor, App, Error};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

/// A product type.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Model)]
struct ModelBody {
    /// Its name.
    #[schema(example = "home")]
    name: String,
    /// A title for people.
    #[schema(example = "Home device")]
    title: String,
    /// Setting key to the JSON Schema (2020-12) of its value, with `default`, `title` and `unit`.
    #[schema(value_type = Object, example = json!({
        "reportInterval": {"type": "integer", "minimum": 10, "maximum": 3600, "default": 60, "unit": "s"}
    }))]
    settings: Document,
    /// Metric name to its unit and title.
    #[schema(value_type = Object, example = json!({"temperature": {"unit": "°C", "title": "Temperature"}}))]
    telemetry: Document,
    /// The version of the settings schema: rises with each change.
    #[schema(example = 1)]
    version: i32,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

impl From<Model> for ModelBody {
    fn from(model: Model) -> Self {
        Self {
            name: model.name,
            title: model.title,
            settings: model.settings,
            telemetry: model.telemetry,
            version: model.version,
            created_at: model.created_at,
            updated_at: model.updated_at,
        }
    }
}

/// Lists models by name.
#[utoipa::path(
    get, path = "/models", tag = "models", security(("bearer" = ["models:read"])), params(PageQuery),
    responses((status = 200, description = "A page of models", body = Page<ModelBody>))
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ModelBody>>, Problem> {
    let limit = query.limit()?;
    let after = query.cursor.unwrap_or_default();
    let models = app.models(&actor, &storable("cursor", after)?, limit + 1).await?;
    Ok(Json(
        Page::of(models, limit, |last| last.name.clone()).map(ModelBody::from),
    ))
}

/// Shows a model.
#[utoipa::path(
    get, path = "/models/{name}", tag = "models", security(("bearer" = ["models:read"])),
    params(("name" = String, Path, description = "The model's name", example = "home")),
    responses(
        (status = 200, description = "The model", body = ModelBody),
        (status = 404, description = "There is no such model", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn read(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> Result<Json<ModelBody>, Problem> {
    if name.contains('\0') {
        return Err(Error::NotFound { what: "model" }.into());
    }
    Ok(Json(app.model(&actor, &name).await?.into()))
}

/// A text that Postgres can compare with.
fn storable(field: &'static str, text: String) -> Result<String, Error> {
    if text.contains('\0') {
        return Err(Error::invalid(field, "may not contain the character U+0000"));
    }
    Ok(text)
}
