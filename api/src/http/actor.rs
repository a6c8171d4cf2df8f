//! The extractors that authenticate a request.

use axum::{extract::FromRef, extract::FromRequestParts, http::request::Parts};

use super::Problem;
use crate::app::{Actor, App, Error};

/// Whoever sent the request, by `Authorization: Bearer TOKEN`; 401 when that doesn't hold.
impl<S> FromRequestParts<S> for Actor
where
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(_parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Err(Error::Unauthenticated.into())
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
        Actor::from_request_parts(parts, state).await.map(Self)
    }
}
