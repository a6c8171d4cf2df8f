//! Is it alive, and may it be sent work?

use std::collections::BTreeMap;

use axum::{extract::State, http::StatusCode};
use serde::Serialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, Json, Problem};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(alive)).routes(routes!(ready))
}

/// The server's state.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Health {
    /// `ok`, or `ready`.
    #[schema(example = "ok")]
    status: &'static str,
    /// The server's version.
    version: &'static str,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether the process answers.
#[utoipa::path(
    get, path = "/healthz", tag = "server", security(()),
    responses((status = 200, description = "It does", body = Health))
)]
async fn alive() -> Json<Health> {
    Json(Health {
        status: "ok",
        version: VERSION,
    })
}

/// Whether the server can do its work: database, broker and background tasks.
#[utoipa::path(
    get, path = "/readyz", tag = "server", security(()),
    responses(
        (status = 200, description = "It can", body = Health),
        (status = 503, description = "It can't; `errors` says which part"),
    )
)]
async fn ready(State(context): State<Context>) -> Result<Json<Health>, Problem> {
    let errors = unready(&context).await;
    if errors.is_empty() {
        return Ok(Json(Health {
            status: "ready",
            version: VERSION,
        }));
    }
    Err(Problem {
        errors,
        ..Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_ready",
            "some parts of the server are not ready",
        )
    })
}

/// The parts that are not ready, each with what is wrong.
async fn unready(context: &Context) -> BTreeMap<String, String> {
    let mut wrong = context.app.unready().await;
    if let Some(task) = context.tasks.failure() {
        wrong.insert("tasks".to_owned(), format!("{task} failed"));
    } else if context.tasks.stopping().is_cancelled() {
        wrong.insert("tasks".to_owned(), "the server is stopping".to_owned());
    } else if let silent @ [_, ..] = context.tasks.silent().as_slice() {
        wrong.insert(
            "tasks".to_owned(),
            format!("no sign of life from {}", silent.join(", ")),
        );
    }
    wrong
}
