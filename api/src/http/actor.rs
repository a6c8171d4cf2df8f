//! The extractors that authenticate a request.

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use setpoint_model::Serial;

use super::Problem;
use crate::app::{Actor, App, Error, Principal};

/// Whoever sent the request, by `Authorization: Bearer TOKEN`; 401 when that doesn't hold.
impl<S> FromRequestParts<S> for Actor
where
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Some(Credentials::Bearer(token)) = credentials(&parts.headers) else {
            return Err(Error::Unauthenticated.into());
        };
        Ok(App::from_ref(state).authenticate_token(token.as_bytes()).await?)
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
        let app = App::from_ref(state);
        match credentials(&parts.headers) {
            Some(Credentials::Bearer(token)) => Ok(Self(app.authenticate_token(token.as_bytes()).await?)),
            Some(Credentials::Basic { serial, token }) => {
                app.sign_in_device(&serial, token.as_bytes()).await?;
                Ok(Self(Actor {
                    principal: Principal::Device(serial),
                    scopes: Vec::new(),
                }))
            }
            None => Err(Error::Unauthenticated.into()),
        }
    }
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
