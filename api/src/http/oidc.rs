//! `/session/oidc`: signing in with an OpenID Connect provider.

use axum::{
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    BASE, Context, Json, Problem, Query,
    client::{Client, host},
    cookie,
};
use crate::app::{
    App, Error,
    oidc::{AWAY, Return},
};

/// What remembers a sign-in while the person is at the provider.
const COOKIE: cookie::Name = cookie::Name {
    name: "setpoint_oidc",
    path: "/api/v1/session/oidc",
};
/// Where the provider sends people back to, below the base.
const CALLBACK: &str = "/session/oidc/callback";
/// The page that people sign in at.
const PAGE: &str = "/activate";
const NO_STORE: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(methods))
        .routes(routes!(depart))
        .routes(routes!(arrive))
}

/// How people sign in here.
#[derive(Serialize, utoipa::ToSchema)]
struct Methods {
    /// With `POST /session`.
    password: bool,
    /// With a provider; null without one.
    oidc: Option<Method>,
}

/// A provider to sign in with.
#[derive(Serialize, utoipa::ToSchema)]
struct Method {
    /// What it is called.
    #[schema(example = "single sign-on")]
    name: String,
    /// Where a browser goes to begin; `return_to` may be added.
    #[schema(example = "/api/v1/session/oidc")]
    url: String,
}

/// How to begin.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Begin {
    /// Where the browser goes when the person is signed in: a path of this server, `/` by default.
    #[param(example = "/activate")]
    return_to: Option<String>,
}

/// What the provider sends back; it may add more.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Back {
    /// As it was sent there.
    state: Option<String>,
    /// What stands for the person.
    code: Option<String>,
    /// Why there is no code.
    error: Option<String>,
    /// Who the provider is (RFC 9207).
    iss: Option<String>,
}

/// This server as the browser sees it, and the browser's headers.
struct Here {
    client: Client,
    headers: HeaderMap,
    redirect: String,
}

impl FromRequestParts<Context> for Here {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Problem> {
        let client = Client::of(parts);
        let server = match &context.public.http {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => {
                let host = host(&parts.headers);
                let host =
                    host.ok_or_else(|| Problem::of_status(StatusCode::BAD_REQUEST, "a Host is needed"))?;
                format!("{}://{host}", client.scheme())
            }
        };
        Ok(Self {
            client,
            headers: parts.headers.clone(),
            redirect: format!("{server}{BASE}{CALLBACK}"),
        })
    }
}

/// Tells how people sign in here.
#[utoipa::path(
    get, path = "/session/methods", tag = "people", security(()),
    responses((status = 200, description = "The ways there are", body = Methods))
)]
async fn methods(State(app): State<App>) -> Json<Methods> {
    let oidc = app.oidc.name().map(|name| Method {
        name: name.to_owned(),
        url: format!("{BASE}/session/oidc"),
    });
    Json(Methods { password: true, oidc })
}

/// Sends a browser to the provider.
#[utoipa::path(
    get, path = "/session/oidc", tag = "people", security(()), params(Begin),
    responses(
        (status = 303, description = "To the provider"),
        (status = 409, description = "`oidc_off`: no provider is configured"),
        (status = 422, description = "`return_to` is no path of this server"),
        (status = 503, description = "`provider_unavailable`"),
    )
)]
async fn depart(State(app): State<App>, here: Here, Query(begin): Query<Begin>) -> Result<Response, Problem> {
    let departure = app.depart(&here.redirect, begin.return_to.as_deref()).await;
    let departure = match departure {
        Ok(departure) => departure,
        Err(error) => return told(error, &here),
    };
    let cookie = COOKIE.set(&departure.cookie, here.client.secure, Some(AWAY));
    redirect(&departure.url, [cookie])
}

/// Signs in a browser that comes back from the provider.
#[utoipa::path(
    get, path = "/session/oidc/callback", tag = "people", security(()), params(Back),
    responses(
        (status = 303, description = "Signed in; on to `return_to`. A browser (`Accept: text/html`) that is refused goes to \
         `/activate`, which says why"),
        (status = 403, description = "`oidc_state`: not begun in this browser, or too late; `oidc_denied`; `oidc_code`; \
         `oidc_token`: the ID token doesn't hold; `oidc_no_role`; `oidc_unknown`; `oidc_no_name`; `oidc_name_taken`; \
         `account_disabled`"),
        (status = 409, description = "`oidc_off`; `last_administrator`"),
        (status = 503, description = "`provider_unavailable`"),
    )
)]
async fn arrive(State(app): State<App>, here: Here, Query(back): Query<Back>) -> Result<Response, Problem> {
    let back = Return {
        cookie: COOKIE.read(&here.headers).map(str::to_owned),
        state: back.state,
        code: back.code,
        error: back.error,
        issuer: back.iss,
    };
    let secure = here.client.secure;
    let arrival = app.arrive(&here.redirect, back, here.client.address).await;
    let (secret, return_to) = match arrival {
        Ok(arrival) => arrival,
        Err(error) => return told(error, &here),
    };
    let session = cookie::set(secret.reveal(), secure);
    redirect(&return_to, [session, COOKIE.set("", secure, Some(0))])
}

/// A refusal, for whoever asked: a person's browser goes where it is told in words.
fn told(error: Error, here: &Here) -> Result<Response, Problem> {
    let accepted = here.headers.get(header::ACCEPT).map(|kinds| kinds.as_bytes());
    let browses = accepted.is_some_and(|kinds| kinds.starts_with(b"text/html"));
    let code = error.code();
    let problem = Problem::from(error);
    if browses {
        redirect(&format!("{PAGE}?refused={code}"), [])
    } else {
        Err(problem)
    }
}

fn redirect<const N: usize>(to: &str, cookies: [Option<HeaderValue>; N]) -> Result<Response, Problem> {
    let location = HeaderValue::from_str(to).map_err(Error::internal)?;
    let mut response = (StatusCode::SEE_OTHER, [NO_STORE, (header::LOCATION, location)]).into_response();
    for cookie in cookies {
        let cookie = cookie.ok_or_else(|| Problem::from(Error::Unauthenticated))?;
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}
