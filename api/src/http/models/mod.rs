//! `/models` and `/models/{name}`.

mod exchange;
mod generated;
mod versions;

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use setpoint_model::settings::Document;
use setpoint_store::models::Model;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Context, Json, Page, PageQuery, Path, Payload, Problem, Query, answer, etag::IfMatch, params::ModelPath,
};
use crate::app::{Actor, App, Error};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, replace, patch, delete))
        .merge(versions::routes())
        .merge(exchange::routes())
        .merge(generated::routes())
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
    /// What people should know of it.
    #[schema(example = "The first generation, 2026")]
    description: String,
    /// Setting key to the JSON Schema (2020-12) of its value, with `default`, `title`, `unit`, `readOnly` and
    /// `x-min-firmware`.
    #[schema(value_type = Object, example = json!({
        "reportInterval": {"type": "integer", "minimum": 10, "maximum": 3600, "default": 60, "unit": "s"}
    }))]
    settings: Document,
    /// Metric name to its `unit`, `title`, `description` and `type` (`number`, `boolean` or `string`).
    #[schema(value_type = Object, example = json!({"temperature": {"unit": "°C", "title": "Temperature"}}))]
    telemetry: Document,
    /// Whether a device must show its factory secret to be claimed.
    claim_secret: bool,
    /// Within how many seconds a device is expected to answer a version of its settings; null for the server's default.
    #[schema(example = 300)]
    settings_expected_within: Option<i32>,
    /// Whether a device finds its schedules in its settings document, under `schedules`.
    schedules_in_document: bool,
    /// For how many seconds telemetry of its devices is kept, by whole UTC days; null for as long as the server does.
    #[schema(example = 7_776_000)]
    telemetry_retention: Option<i32>,
    /// Whether Home Assistant is told of the devices, by its MQTT discovery.
    home_assistant: bool,
    /// Its version, which rises with each change; also the `ETag`.
    #[schema(example = 1)]
    version: i32,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

impl From<Model> for ModelBody {
    fn from(model: Model) -> Self {
        let definition = model.definition;
        Self {
            name: model.name,
            title: definition.title,
            description: definition.description,
            settings: definition.settings,
            telemetry: definition.telemetry,
            claim_secret: definition.claim_secret,
            settings_expected_within: definition.settings_expected_within,
            schedules_in_document: definition.schedules_in_document,
            telemetry_retention: definition.telemetry_retention,
            home_assistant: definition.home_assistant,
            version: model.version,
            created_at: model.created_at,
            updated_at: model.updated_at,
        }
    }
}

/// What a model is made of, or replaced by.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes a body that the model crate reads")]
struct ModelFields {
    /// Its name: 1 to 64 of `a-z 0-9 . _ -`; needed to make one.
    #[schema(example = "home")]
    name: Option<String>,
    /// A title for people.
    #[schema(example = "Home device")]
    title: Option<String>,
    /// What people should know of it.
    description: Option<String>,
    /// Setting key to the JSON Schema (2020-12) of its value.
    #[schema(value_type = Object, example = json!({
        "reportInterval": {"type": "integer", "minimum": 10, "maximum": 3600, "default": 60, "unit": "s"}
    }))]
    settings: Document,
    /// Metric name to its `unit`, `title`, `description` and `type` (`number`, `boolean` or `string`).
    #[schema(value_type = Option<Object>, example = json!({"temperature": {"unit": "°C", "title": "Temperature"}}))]
    telemetry: Option<Document>,
    /// Whether a device must show its factory secret to be claimed.
    claim_secret: Option<bool>,
    /// Within how many seconds a device is expected to answer a version of its settings; null for the server's default.
    #[schema(example = 300)]
    settings_expected_within: Option<i32>,
    /// Whether a device finds its schedules in its settings document, under `schedules`.
    schedules_in_document: Option<bool>,
    /// For how many seconds telemetry of its devices is kept, by whole UTC days; null for as long as the server does.
    #[schema(example = 7_776_000)]
    telemetry_retention: Option<i32>,
    /// Whether Home Assistant is told of the devices, by its MQTT discovery.
    home_assistant: Option<bool>,
    /// For a change: setting key to what replaces a stored value that doesn't fit any more; null for nothing.
    #[schema(value_type = Option<Object>, example = json!({"reportInterval": 600}))]
    migrate: Option<Document>,
}

/// Whether a change is only tried.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DryRun {
    /// Answer as if it were done, but change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// The model with its `ETag`.
fn shown(model: Model) -> Result<Response, Problem> {
    answer::versioned(model.version.into(), ModelBody::from(model))
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

/// Makes a model.
#[utoipa::path(
    post, path = "/models", tag = "models", security(("bearer" = ["models:write"])),
    request_body(content = ModelFields, content_type = "application/json"),
    responses(
        (status = 201, description = "The model", body = ModelBody,
         headers(("ETag" = String, description = "The version, in quotes"),
                 ("Location" = String, description = "Where it is"))),
        (status = 409, description = "There is one of this name already: `model_exists`"),
        (status = 422, description = "A field is missing, unknown or wrong; `errors` says which and why"),
    )
)]
async fn create(State(app): State<App>, actor: Actor, Payload(body): Payload) -> Result<Response, Problem> {
    let model = app.create_model(&actor, &body).await?;
    let path = format!("/models/{}", model.name);
    answer::at(StatusCode::CREATED, &path, shown(model)?)
}

/// Shows a model.
#[utoipa::path(
    get, path = "/models/{name}", tag = "models", security(("bearer" = ["models:read"])),
    params(ModelPath),
    responses(
        (status = 200, description = "The model", body = ModelBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 404, description = "There is no such model"),
    )
)]
async fn read(State(app): State<App>, actor: Actor, Path(name): Path<String>) -> Result<Response, Problem> {
    shown(app.model(&actor, &name).await?)
}

/// Replaces a model.
///
/// The body is all of it: what is left out has its default. A change that some stored value doesn't fit is refused with
/// the devices it is set on, unless `migrate` says what replaces it. New defaults reach the devices by themselves. What
/// GET shows (`name`, `version`, times) may be sent back.
#[utoipa::path(
    put, path = "/models/{name}", tag = "models", security(("bearer" = ["models:write"])),
    params(ModelPath, IfMatch, DryRun),
    request_body(content = ModelFields, content_type = "application/json"),
    responses(
        (status = 200, description = "The model as it is now", body = ModelBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 404, description = "There is no such model"),
        (status = 409, description = "Stored values break the new rules: `misfits` says which"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 422, description = "A field is missing, unknown or wrong; `errors` says which and why"),
    )
)]
async fn replace(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    Query(query): Query<DryRun>,
    IfMatch(precondition): IfMatch,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    let model = app
        .replace_model(&actor, &name, &body, &precondition, query.dry_run)
        .await?;
    shown(model)
}

/// Changes a model.
///
/// The body is a merge patch (RFC 7396), in which `null` takes a setting or a keyword of its schema away; beside it
/// `migrate`, as for PUT.
#[utoipa::path(
    patch, path = "/models/{name}", tag = "models", security(("bearer" = ["models:write"])),
    params(ModelPath, IfMatch, DryRun),
    request_body(content(
        (Object = "application/merge-patch+json", example = json!({
            "settings": {"reportInterval": {"maximum": 600}}, "migrate": {"reportInterval": 600}
        })),
        (Object = "application/json", example = json!({"title": "Home device"})),
    )),
    responses(
        (status = 200, description = "The model as it is now", body = ModelBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 404, description = "There is no such model"),
        (status = 409, description = "Stored values break the new rules: `misfits` says which"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 422, description = "A field is unknown or wrong; `errors` says which and why"),
    )
)]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    Query(query): Query<DryRun>,
    IfMatch(precondition): IfMatch,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    let model = app
        .patch_model(&actor, &name, &body, &precondition, query.dry_run)
        .await?;
    shown(model)
}

/// Deletes a model that no device is of.
///
/// Its versions are kept: a model made again under the name goes on with the next.
#[utoipa::path(
    delete, path = "/models/{name}", tag = "models", security(("bearer" = ["models:write"])),
    params(ModelPath, IfMatch),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such model"),
        (status = 409, description = "Devices, or serials of the factory, are of it: `model_in_use`"),
        (status = 412, description = "Another version is current: `current_version`"),
    )
)]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, Problem> {
    app.delete_model(&actor, &name, &precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A text that Postgres can compare with.
fn storable(field: &'static str, text: String) -> Result<String, Error> {
    if text.contains('\0') {
        return Err(Error::invalid(field, "may not contain the character U+0000"));
    }
    Ok(text)
}
