//! The device's part of claiming (RFC 8628): ask for a code, show it, and poll until the owner has entered it.

use std::time::Duration;

use reqwest::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use setpoint_model::Serial;
use tokio::time::sleep;

use crate::credential::Token;

/// The grant of RFC 8628 section 3.4.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// What is added to the interval after `slow_down` (RFC 8628 section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a device shows.
#[derive(Debug, Clone, Deserialize)]
pub struct Codes {
    device_code: String,
    /// What its owner enters.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: String,
    /// Seconds that it holds.
    pub expires_in: u64,
    #[serde(default = "five")]
    interval: u64,
}

/// The interval without one (RFC 8628 section 3.2).
fn five() -> u64 {
    5
}

/// Why a device got no token.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// No answer.
    #[error("cannot reach {0}")]
    Unreachable(String),
    /// The owner refused, was too late, or the device may not be claimed.
    #[error("{error}: {description}")]
    Refused {
        /// The error's code.
        error: String,
        /// The server's words.
        description: String,
    },
    /// An answer that isn't what the contract promises.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

#[derive(Deserialize)]
struct OAuthError {
    error: String,
    #[serde(default)]
    error_description: String,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
}

/// Claims a device at the server `base` and returns its token; `show` is given what its owner needs.
///
/// # Errors
/// [`ClaimError`].
pub async fn claim(
    base: &str,
    serial: &Serial,
    secret: Option<&str>,
    show: impl FnOnce(&Codes),
) -> Result<Token, ClaimError> {
    let base = base.trim_end_matches('/');
    let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build();
    let http = http.map_err(|error| ClaimError::Unexpected(error.to_string()))?;
    let mut form = vec![("client_id", "device"), ("serial", serial.as_str())];
    form.extend(secret.map(|secret| ("secret", secret)));
    let codes: Codes = post(&http, &format!("{base}/oauth/device_authorization"), &form).await?;
    show(&codes);
    let poll = [
        ("grant_type", GRANT_TYPE),
        ("client_id", "device"),
        ("device_code", &codes.device_code),
    ];
    let mut interval = Duration::from_secs(codes.interval);
    loop {
        sleep(interval).await;
        match post::<Granted>(&http, &format!("{base}/oauth/token"), &poll).await {
            Ok(granted) => return Ok(Token::new(granted.access_token)),
            Err(ClaimError::Refused { error, .. }) if error == "authorization_pending" => {}
            Err(ClaimError::Refused { error, .. }) if error == "slow_down" => interval += SLOWER,
            // A server that restarts is asked again, more slowly each time (RFC 8628 section 3.5).
            Err(ClaimError::Unreachable(_)) => interval = (interval * 2).min(Duration::from_secs(60)),
            Err(error) => return Err(error),
        }
    }
}

async fn post<T: DeserializeOwned>(
    http: &reqwest::Client,
    url: &str,
    form: &[(&str, &str)],
) -> Result<T, ClaimError> {
    let unreachable = |_| ClaimError::Unreachable(url.to_owned());
    let answer = http.post(url).form(form).send().await.map_err(unreachable)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(unreachable)?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|error| ClaimError::Unexpected(error.to_string()));
    }
    match serde_json::from_slice::<OAuthError>(&body) {
        Ok(refused) => Err(ClaimError::Refused {
            error: refused.error,
            description: refused.error_description,
        }),
        Err(_) => Err(ClaimError::Unexpected(status.to_string())),
    }
}
