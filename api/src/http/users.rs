//! `/users`.

use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use setpoint_model::Role;
use setpoint_store::users::User;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Context, Json, Page, PageQuery, Path, Problem, Query};
use crate::app::{
    Actor, App, Error,
    policy::Action,
    users::{self, UserPatch},
};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, patch, delete))
}

/// A person to be added.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    /// The name they sign in with: 1 to 64 letters, digits or `. _ - @ +`; kept in lower case.
    #[schema(example = "anna")]
    username: String,
    /// At least 8 characters, and none of the commonest.
    #[schema(min_length = 8)]
    password: String,
    /// What they may do.
    #[schema(value_type = Role)]
    role: String,
    /// Their e-mail address.
    #[schema(example = "anna@example.org")]
    email: Option<String>,
}

/// What to change of a person.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Patch {
    /// Another password, which ends their sessions.
    #[schema(min_length = 8)]
    password: Option<String>,
    /// Another role, which holds at once, for their tokens too.
    #[schema(value_type = Option<Role>)]
    role: Option<String>,
    /// Another e-mail address; null for none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    email: Option<Option<String>>,
    /// Whether they may not sign in: their sessions end, and their tokens hold no longer until this is taken back.
    disabled: Option<bool>,
}

/// A field that is there, null or not.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A person.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = User)]
struct Body {
    /// Their id.
    id: Uuid,
    /// The name they sign in with.
    #[schema(example = "anna")]
    username: String,
    /// What they may do.
    role: Role,
    /// Their e-mail address.
    email: Option<String>,
    /// Whether they may not sign in.
    disabled: bool,
    /// Whether signing in asks them for a code of a second factor.
    totp: bool,
    /// When they were added.
    created_at: DateTime<Utc>,
    /// When they were last changed.
    updated_at: DateTime<Utc>,
}

impl From<User> for Body {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            username: user.username,
            role: user.role,
            email: user.email,
            disabled: user.disabled_at.is_some(),
            totp: user.totp,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

fn role(text: &str) -> Result<Role, Error> {
    text.parse()
        .map_err(|error: setpoint_model::role::UnknownRole| Error::invalid("role", error.to_string()))
}

/// Adds a person.
#[utoipa::path(
    post, path = "/users", tag = "people", security(("bearer" = ["admin"])), request_body = NewUser,
    responses(
        (status = 201, description = "Added", body = Body),
        (status = 409, description = "`user_exists`"),
        (status = 422, description = "A field is not valid"),
    )
)]
async fn create(
    State(app): State<App>,
    actor: Actor,
    body: Result<Json<NewUser>, Problem>,
) -> Result<(StatusCode, Json<Body>), Problem> {
    // Who may not is told so, whatever the body.
    app.authorize_all(&actor, Action::ManageUsers)?;
    let Json(new) = body?;
    let new = users::NewUser {
        username: new.username,
        password: new.password,
        role: role(&new.role)?,
        email: new.email,
    };
    let user = app.create_user(&actor, new).await?;
    Ok((StatusCode::CREATED, Json(user.into())))
}

/// Lists people by name.
#[utoipa::path(
    get, path = "/users", tag = "people", security(("bearer" = ["admin"])), params(PageQuery),
    responses((status = 200, description = "A page of people", body = Page<Body>))
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Body>>, Problem> {
    let limit = query.limit()?;
    let after = query.cursor.unwrap_or_default();
    if after.contains('\0') {
        return Err(Error::invalid("cursor", "is not the `next` of a page").into());
    }
    let users = app.users(&actor, &after, limit + 1).await?;
    Ok(Json(
        Page::of(users, limit, |last| last.username.clone()).map(Body::from),
    ))
}

/// Shows a person.
#[utoipa::path(
    get, path = "/users/{username}", tag = "people", security(("bearer" = ["admin"])),
    params(("username" = String, Path, description = "Their name", example = "anna")),
    responses(
        (status = 200, description = "The person", body = Body),
        (status = 404, description = "There is nobody of this name"),
    )
)]
async fn read(
    State(app): State<App>,
    actor: Actor,
    Path(username): Path<String>,
) -> Result<Json<Body>, Problem> {
    Ok(Json(app.user(&actor, &username).await?.into()))
}

/// Changes a person: their password, role or e-mail address, and whether they may sign in.
#[utoipa::path(
    patch, path = "/users/{username}", tag = "people", security(("bearer" = ["admin"])), request_body = Patch,
    params(("username" = String, Path, description = "Their name", example = "anna")),
    responses(
        (status = 200, description = "The person as they are now", body = Body),
        (status = 404, description = "There is nobody of this name"),
        (status = 409, description = "`last_administrator`"),
    )
)]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path(username): Path<String>,
    body: Result<Json<Patch>, Problem>,
) -> Result<Json<Body>, Problem> {
    app.authorize_all(&actor, Action::ManageUsers)?;
    let Json(patch) = body?;
    let patch = UserPatch {
        password: patch.password,
        role: patch.role.as_deref().map(role).transpose()?,
        email: patch.email,
        disabled: patch.disabled,
    };
    Ok(Json(app.patch_user(&actor, &username, patch).await?.into()))
}

/// Removes a person with their sessions, tokens and registrations.
#[utoipa::path(
    delete, path = "/users/{username}", tag = "people", security(("bearer" = ["admin"])),
    params(("username" = String, Path, description = "Their name", example = "anna")),
    responses(
        (status = 204, description = "Gone"),
        (status = 404, description = "There is nobody of this name"),
        (status = 409, description = "`last_administrator`"),
    )
)]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(username): Path<String>,
) -> Result<StatusCode, Problem> {
    app.delete_user(&actor, &username).await?;
    Ok(StatusCode::NO_CONTENT)
}
