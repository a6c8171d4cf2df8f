//! `/session`: signing in and out of the pages.

use axum::{
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use setpoint_model::{Role, Scope};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Context, Json, Problem, Query,
    actor::{check_site, csrf_token},
    client::Client,
    cookie,
};
use crate::app::{Actor, App, Error, Principal};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(sign_in, who, sign_out))
}

/// Who signs in.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct SignIn {
    /// Their name.
    #[schema(example = "anna")]
    username: String,
    /// Their password.
    password: String,
}

/// Who is signed in.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Session {
    /// The person's name; null for an API token made on the server itself.
    #[schema(example = "anna")]
    username: Option<String>,
    /// What they are.
    role: Role,
    /// What they may do.
    scopes: Vec<Scope>,
    /// To be sent back as `X-CSRF-Token` with everything but GET; only for a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
}

/// What to end.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct SignOut {
    /// All of the person's sessions, not just this one.
    everywhere: Option<String>,
}

/// What is known of the request's sender besides who it is.
struct Sender {
    client: Client,
    headers: HeaderMap,
}

impl<S: Send + Sync> FromRequestParts<S> for Sender {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self {
            client: Client::of(parts),
            headers: parts.headers.clone(),
        })
    }
}

/// Signs in.
///
/// The answer sets a cookie; `csrf_token` goes back as `X-CSRF-Token` with every request that changes something.
#[utoipa::path(
    post, path = "/session", tag = "people", security(()), request_body = SignIn,
    responses(
        (status = 200, description = "Signed in", body = Session),
        (status = 401, description = "Wrong name or password", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many failures; see Retry-After", body = Problem,
         content_type = "application/problem+json"),
    )
)]
async fn sign_in(
    State(app): State<App>,
    sender: Sender,
    Json(who): Json<SignIn>,
) -> Result<Response, Problem> {
    check_site(&sender.headers)?;
    let (actor, secret) = app
        .sign_in(&who.username, who.password, sender.client.address)
        .await?;
    let session = Session {
        csrf_token: Some(csrf_token(secret.reveal())),
        ..session(actor)
    };
    let cookie = cookie::set(secret.reveal(), sender.client.secure);
    let cookie = cookie.ok_or_else(|| Problem::from(Error::Unauthenticated))?;
    Ok(([(header::SET_COOKIE, cookie)], Json(session)).into_response())
}

/// Shows who is signed in.
#[utoipa::path(
    get, path = "/session", tag = "people", security(("session" = []), ("bearer" = [])),
    responses((status = 200, description = "Who it is", body = Session))
)]
async fn who(State(app): State<App>, actor: Actor, sender: Sender) -> Result<Json<Session>, Problem> {
    let csrf_token = match &actor.principal {
        Principal::User { .. } => cookie::read(&sender.headers).map(csrf_token),
        _ => None,
    };
    let username = app.username(&actor).await?;
    Ok(Json(Session {
        csrf_token,
        username,
        ..session(actor)
    }))
}

/// Signs out.
#[utoipa::path(
    delete, path = "/session", tag = "people", security(("session" = [])), params(SignOut),
    responses((status = 204, description = "Signed out"))
)]
async fn sign_out(
    State(app): State<App>,
    actor: Actor,
    sender: Sender,
    Query(what): Query<SignOut>,
) -> Result<Response, Problem> {
    let everywhere = match what.everywhere.as_deref() {
        None | Some("false") => false,
        Some("" | "true") => true,
        Some(_) => return Err(Error::invalid("everywhere", "true or false").into()),
    };
    app.sign_out(&actor, everywhere).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(cookie) = cookie::clear(sender.client.secure) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

fn session(actor: Actor) -> Session {
    let username = match actor.principal {
        Principal::User { name, .. } => Some(name),
        _ => None,
    };
    Session {
        username,
        role: actor.role,
        scopes: actor.scopes,
        csrf_token: None,
    }
}
