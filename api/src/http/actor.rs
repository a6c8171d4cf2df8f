//! The extractors that authenticate a request.

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use setpoint_model::{Serial, credential::SecretHash};

use super::{Problem, client::Client, cookie};
use crate::app::{Actor, App, Error};

/// What proves that a request with a session's cookie comes from a page of ours.
const CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
/// What a browser says of where a request comes from (W3C Fetch Metadata).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whoever sent the request: by `Authorization: Bearer TOKEN`, or else by a session's cookie, which needs its
/// `X-CSRF-Token` for all but reading. 401 when that doesn't hold, 403 `csrf` without the token.
impl<S> FromRequestParts<S> for Actor
where
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let app = App::from_ref(state);
        let actor = match (credentials(&parts.headers), cookie::read(&parts.headers)) {
            (Some(Credentials::Bearer(token)), _) => {
                let actor = app.authenticate_token(token.as_bytes()).await;
                actor.map_err(|error| {
                    let unknown = matches!(error, Error::Unauthenticated);
                    let problem = Problem::from(error);
                    if unknown {
                        problem.of_invalid_token()
                    } else {
                        problem
                    }
                })?
            }
            (None, Some(cookie)) => {
                let actor = app.authenticate_session(cookie.as_bytes()).await?;
                check_csrf(parts, cookie)?;
                actor
            }
            _ => return Err(Error::Unauthenticated.into()),
        };
        Ok(actor.from(Client::of(parts).address))
    }
}

/// A device with its own token (`Basic serial:token`), or whoever [`Actor`] takes: for the routes that devices
/// call themselves.
#[derive(Debug, Clone)]
pub struct DeviceActor(pub Actor);

impl<S> FromRequestParts<S> for DeviceActor
where
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Some(Credentials::Basic { serial, token }) = credentials(&parts.headers) else {
            let actor = Actor::from_request_parts(parts, state).await;
            return actor.map(Self).map_err(Problem::or_device);
        };
        let app = App::from_ref(state);
        let client = Client::of(parts);
        let signed_in = app.sign_in_device(&serial, token.as_bytes()).await;
        if matches!(signed_in, Err(Error::Stolen)) {
            let from = client
                .address
                .map_or_else(String::new, |address| address.to_string());
            app.stolen_seen(serial.clone(), from, "http");
        }
        signed_in.map_err(|error| Problem::from(error).or_device())?;
        Ok(Self(Actor::device(serial).from(client.address)))
    }
}

/// What a page sends along to show that it may read this server's answers: derived from the cookie, so that it needs
/// no place of its own, and useless for guessing the cookie.
pub(super) fn csrf_token(cookie: &str) -> String {
    let hash = SecretHash::of(format!("csrf:{cookie}").as_bytes());
    hash.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_csrf(parts: &Parts, cookie: &str) -> Result<(), Problem> {
    if matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let given = parts
        .headers
        .get(CSRF_TOKEN)
        .map_or(&b""[..], |value| value.as_bytes());
    // Hashes are compared in constant time.
    if SecretHash::of(given).matches(&SecretHash::of(csrf_token(cookie).as_bytes())) {
        Ok(())
    } else {
        Err(forged())
    }
}

/// Refuses what a page of another site sends, for the one request that has no CSRF token yet. A browser says so with
/// `Sec-Fetch-Site`, or where that is not sent (plain HTTP) with `Origin`, whose host must be ours; programs say neither.
///
/// # Errors
/// 403 `csrf`.
pub(super) fn check_site(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.as_bytes());
    let ours = match (text(&FETCH_SITE), text(&header::ORIGIN)) {
        (Some(site), _) => matches!(site, b"same-origin" | b"none"),
        (None, Some(origin)) => {
            let host = |scheme: &[u8]| origin.strip_prefix(scheme);
            let host = host(b"https://").or_else(|| host(b"http://"));
            host.is_some() && host == text(&header::HOST)
        }
        (None, None) => true,
    };
    if ours {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "csrf",
        "pages of other sites can't sign anybody in here",
    ))
}

fn forged() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "csrf",
        "a request with a session's cookie needs its X-CSRF-Token, which GET /api/v1/session tells",
    )
}

/// What `Authorization` holds. No `Debug`: it is secret.
enum Credentials {
    Bearer(String),
    Basic { serial: Serial, token: String },
}

fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let (scheme, rest) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Credentials::Bearer(rest.to_owned()));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let text = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
        let (serial, token) = text.split_once(':')?;
        return Some(Credentials::Basic {
            serial: serial.parse().ok()?,
            token: token.to_owned(),
        });
    }
    None
}
