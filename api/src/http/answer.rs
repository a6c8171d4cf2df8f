//! Answers that many nouns give alike.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{BASE, Json, Problem, etag};
use crate::app::Error;

/// Something with its version as `ETag`.
pub(super) fn versioned(version: i64, body: impl Serialize) -> Result<Response, Problem> {
    Ok(([etag::of(version)?], Json(body)).into_response())
}

/// 201, or 202 for what will take some time, and where the new thing is: a path under [`BASE`].
pub(super) fn at(status: StatusCode, path: &str, answer: impl IntoResponse) -> Result<Response, Problem> {
    let location = HeaderValue::try_from(format!("{BASE}{path}")).map_err(Error::internal)?;
    Ok((status, [(header::LOCATION, location)], answer).into_response())
}
