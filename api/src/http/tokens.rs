//! `/tokens`.

use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use setpoint_model::Scope;
use setpoint_store::tokens::ApiToken;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Context, Json, Page, Path, Problem, Query,
    page::{self, IdPageQuery},
};
use crate::app::{Actor, App, Error, policy::Action, tokens};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, delete))
}

/// A token to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// What it is called: 1 to 100 characters.
    #[schema(example = "ci")]
    name: String,
    /// What it may do, never more than its maker.
    scopes: Vec<String>,
    /// From when on it no longer holds; never without it.
    expires_at: Option<DateTime<Utc>>,
}

/// A token just made.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Made {
    /// Its id.
    id: Uuid,
    /// The token itself, shown this once.
    #[schema(example = "spt_6f1e...")]
    token: String,
    /// What it is called.
    name: String,
    /// What it may do.
    scopes: Vec<Scope>,
    /// From when on it no longer holds.
    expires_at: Option<DateTime<Utc>>,
}

/// A token, without its secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Token {
    /// Its id.
    id: Uuid,
    /// What it is called.
    name: String,
    /// What it may do.
    scopes: Vec<Scope>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// From when on it no longer holds.
    expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to about a minute.
    last_used_at: Option<DateTime<Utc>>,
}

impl From<ApiToken> for Token {
    fn from(token: ApiToken) -> Self {
        Self {
            id: token.id,
            name: token.name,
            scopes: token.scopes,
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
        }
    }
}

/// Makes an API token.
#[utoipa::path(
    post, path = "/tokens", tag = "tokens", security(("bearer" = ["tokens:write"])), request_body = NewToken,
    responses(
        (status = 201, description = "Made; `token` is shown this once", body = Made),
        (status = 422, description = "A field is not valid"),
    )
)]
async fn create(
    State(app): State<App>,
    actor: Actor,
    body: Result<Json<NewToken>, Problem>,
) -> Result<(StatusCode, Json<Made>), Problem> {
    // Who may not is told so, whatever the body.
    app.authorize(&actor, Action::ManageTokens)?;
    let Json(new) = body?;
    let scopes = new.scopes.iter().map(|scope| scope.parse::<Scope>());
    let scopes = scopes.collect::<Result<Vec<_>, _>>().map_err(|error| {
        let known: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        Error::invalid("scopes", format!("{error}; known: {}", known.join(", ")))
    });
    let new = tokens::NewToken {
        name: new.name,
        scopes: scopes?,
        expires_at: new.expires_at,
    };
    let (token, secret) = app.create_token(&actor, new).await?;
    let made = Made {
        id: token.id,
        token: secret.reveal().to_owned(),
        name: token.name,
        scopes: token.scopes,
        expires_at: token.expires_at,
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Lists API tokens, newest first.
#[utoipa::path(
    get, path = "/tokens", tag = "tokens", security(("bearer" = ["tokens:write"])), params(IdPageQuery),
    responses((status = 200, description = "A page of tokens", body = Page<Token>))
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<IdPageQuery>,
) -> Result<Json<Page<Token>>, Problem> {
    let limit = page::limit(query.limit)?;
    let tokens = app.list_tokens(&actor, query.cursor, limit + 1).await?;
    Ok(Json(
        Page::of(tokens, limit, |token| token.id.to_string()).map(Token::from),
    ))
}

/// Shows an API token.
#[utoipa::path(
    get, path = "/tokens/{id}", tag = "tokens", security(("bearer" = ["tokens:write"])),
    params(("id" = Uuid, Path, description = "The token's id")),
    responses((status = 200, description = "The token, without its secret", body = Token))
)]
async fn read(State(app): State<App>, actor: Actor, Path(id): Path<Uuid>) -> Result<Json<Token>, Problem> {
    Ok(Json(app.token(&actor, id).await?.into()))
}

/// Deletes an API token, which ends at once, its MQTT sessions too.
#[utoipa::path(
    delete, path = "/tokens/{id}", tag = "tokens", security(("bearer" = ["tokens:write"])),
    params(("id" = Uuid, Path, description = "The token's id")),
    responses((status = 204, description = "It is gone"))
)]
async fn delete(State(app): State<App>, actor: Actor, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    app.delete_token(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
