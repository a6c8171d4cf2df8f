//! `/session`: signing in and out of the pages.

use axum::{
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use setpoint_model::{Role, Scope};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Context, Json, Problem, Query,
    actor::{check_site, csrf_token},
    client::Client,
    cookie,
};
use crate::app::{Actor, App, Error, Principal, account::Account};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(sign_in, who, change, sign_out))
        .routes(routes!(change_password))
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
    /// Where they have a second factor: the six digits that their authenticator shows, or a recovery code.
    #[schema(example = "123456")]
    code: Option<String>,
}

/// What to change of one's own account.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct AccountPatch {
    /// Another e-mail address; null for none.
    #[schema(example = "anna@example.org")]
    #[serde(deserialize_with = "Option::deserialize")]
    email: Option<String>,
}

/// One's own password, and another.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    /// The one they have.
    current: String,
    /// The one they will have: at least 8 characters, and none of the commonest.
    #[schema(min_length = 8)]
    new: String,
}

/// A second factor.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Totp {
    /// Whether signing in asks for a code.
    enabled: bool,
    /// Since when.
    since: Option<DateTime<Utc>>,
    /// How many recovery codes are left.
    recovery_codes: i64,
    /// Whether their role must have one: without it they may enrol, and nothing else.
    required: bool,
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
    /// Their e-mail address; null for an API token.
    #[schema(example = "anna@example.org")]
    email: Option<String>,
    /// Their second factor; null for an API token.
    totp: Option<Totp>,
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
        (status = 401, description = "Wrong name or password; `totp_required`: right, but a `code` is needed as well; \
         `totp_invalid`: that is wrong or was used before"),
        (status = 429, description = "Too many failures; see Retry-After"),
    )
)]
async fn sign_in(
    State(app): State<App>,
    sender: Sender,
    Json(who): Json<SignIn>,
) -> Result<Response, Problem> {
    check_site(&sender.headers)?;
    let (actor, secret) = app
        .sign_in(
            &who.username,
            who.password,
            who.code.as_deref(),
            sender.client.address,
        )
        .await?;
    let csrf_token = csrf_token(secret.reveal());
    let session = session(app.account(&actor).await?, actor, Some(csrf_token));
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
    Ok(Json(shown(&app, actor, &sender.headers).await?))
}

/// Changes one's own e-mail address.
#[utoipa::path(
    patch, path = "/session", tag = "people", security(("session" = [])), request_body = AccountPatch,
    responses(
        (status = 200, description = "Who it is", body = Session),
        (status = 422, description = "A field is not valid"),
    )
)]
async fn change(
    State(app): State<App>,
    actor: Actor,
    sender: Sender,
    Json(patch): Json<AccountPatch>,
) -> Result<Json<Session>, Problem> {
    app.change_email(&actor, patch.email).await?;
    Ok(Json(shown(&app, actor, &sender.headers).await?))
}

/// Changes one's own password. One's other sessions end; API tokens stay.
#[utoipa::path(
    post, path = "/session/password", tag = "people", security(("session" = [])), request_body = NewPassword,
    responses(
        (status = 204, description = "Changed"),
        (status = 422, description = "`current` is wrong, or `new` won't do"),
        (status = 429, description = "Too many failures; see Retry-After"),
    )
)]
async fn change_password(
    State(app): State<App>,
    actor: Actor,
    Json(password): Json<NewPassword>,
) -> Result<StatusCode, Problem> {
    app.change_password(&actor, password.current, password.new)
        .await?;
    Ok(StatusCode::NO_CONTENT)
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

async fn shown(app: &App, actor: Actor, headers: &HeaderMap) -> Result<Session, Problem> {
    let csrf_token = match &actor.principal {
        Principal::User { .. } => cookie::read(headers).map(csrf_token),
        _ => None,
    };
    Ok(session(app.account(&actor).await?, actor, csrf_token))
}

fn session(account: Account, actor: Actor, csrf_token: Option<String>) -> Session {
    Session {
        username: account.username,
        role: actor.role,
        scopes: actor.scopes,
        email: account.email,
        totp: account.totp.map(|totp| Totp {
            enabled: totp.since.is_some(),
            since: totp.since,
            recovery_codes: totp.recovery_codes,
            required: totp.required,
        }),
        csrf_token,
    }
}
