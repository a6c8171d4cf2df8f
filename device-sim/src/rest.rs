//! The server's REST API, as far as the simulator needs it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::{Method, StatusCode, header::RETRY_AFTER};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use setpoint_model::Serial;
use tokio::time::sleep;

use crate::credential::Token;

/// How often a busy server (429, 503) is asked again.
const ATTEMPTS: u32 = 6;
/// The longest a server may make us wait between two of them.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client of the REST API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rest {
    http: reqwest::Client,
    base: String,
    token: Option<Token>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// No answer.
    #[error("cannot reach {base}: {error}")]
    Unreachable {
        /// Where the API was looked for.
        base: String,
        /// What went wrong, with its causes.
        error: String,
    },
    /// 401 or 403.
    #[error("not authorized: {base} refused the API token")]
    NotAuthorized {
        /// Where the API is.
        base: String,
    },
    /// Any other answer than was hoped for.
    #[error("{status}: {detail}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The problem document's own words.
        detail: String,
    },
    /// An answer that isn't what the contract promises.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

impl RestError {
    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

#[derive(Deserialize)]
struct Version {
    at: DateTime<Utc>,
}

impl Rest {
    /// A client of the API at `base`, `http://127.0.0.1:8080` for example, signed in with an API token; without
    /// one, only what is open to everybody answers.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn new(base: &str, token: Option<Token>) -> Result<Self, RestError> {
        let base = base.trim_end_matches('/').to_owned();
        // Loopback and a user's own server: a proxy meant for the internet would only be in the way.
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build();
        let http = http.map_err(|error| unreachable(&base, &error))?;
        Ok(Self { http, base, token })
    }

    /// Sends a request under `/api/v1` and reads its answer. A busy server is asked again a few times.
    ///
    /// # Errors
    /// When there is no answer, or not the one hoped for.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, RestError> {
        let mut attempt = 1;
        loop {
            let mut request = self
                .http
                .request(method.clone(), format!("{}/api/v1{path}", self.base));
            if let Some(token) = &self.token {
                request = request.bearer_auth(token.reveal());
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let response = request
                .send()
                .await
                .map_err(|error| unreachable(&self.base, &error))?;
            let status = response.status();
            let busy = matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            );
            if busy && attempt < ATTEMPTS {
                attempt += 1;
                let told = response
                    .headers()
                    .get(RETRY_AFTER)
                    .and_then(|value| value.to_str().ok()?.parse().ok());
                sleep(Duration::from_secs(told.unwrap_or(1)).min(LONGEST_WAIT)).await;
                continue;
            }
            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                return Err(RestError::NotAuthorized {
                    base: self.base.clone(),
                });
            }
            let body = response
                .bytes()
                .await
                .map_err(|error| unreachable(&self.base, &error))?;
            if !status.is_success() {
                let problem: Option<Problem> = serde_json::from_slice(&body).ok();
                let detail = problem.and_then(|problem| problem.detail.or(problem.title));
                return Err(RestError::Refused {
                    status,
                    detail: detail.unwrap_or_default(),
                });
            }
            return serde_json::from_slice(&body).map_err(|error| RestError::Unexpected(error.to_string()));
        }
    }

    /// The server's metrics, in Prometheus's text format.
    ///
    /// # Errors
    /// When there is no answer, or not the one hoped for.
    pub async fn metrics(&self) -> Result<String, RestError> {
        let mut request = self.http.get(format!("{}/metrics", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        let unreachable = |error: reqwest::Error| unreachable(&self.base, &error);
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        if status.is_success() {
            Ok(text)
        } else {
            Err(RestError::Refused {
                status,
                detail: "no metrics".to_owned(),
            })
        }
    }

    /// Changes a device's settings: a merge patch (RFC 7396).
    ///
    /// # Errors
    /// As [`Rest::send`].
    pub async fn patch_settings(&self, serial: &Serial, patch: &Value) -> Result<Value, RestError> {
        self.send(Method::PATCH, &format!("/devices/{serial}/settings"), Some(patch))
            .await
    }

    /// When this version of a device's settings was made, by the server's clock.
    ///
    /// # Errors
    /// As [`Rest::send`].
    pub async fn version_made_at(&self, serial: &Serial, version: u64) -> Result<DateTime<Utc>, RestError> {
        let path = format!("/devices/{serial}/settings/versions/{version}");
        Ok(self.send::<Version>(Method::GET, &path, None).await?.at)
    }
}

/// reqwest's own text stops at "error sending request"; the reason is in the causes.
fn unreachable(base: &str, error: &reqwest::Error) -> RestError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    RestError::Unreachable {
        base: base.to_owned(),
        error: cause.to_string(),
    }
}
