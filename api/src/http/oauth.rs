//! `/oauth/device_authorization` and `/oauth/token`: the device's part of RFC 8628.

use axum::{
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use setpoint_model::Serial;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Context, Json, Problem,
    client::{self, Client},
};
use crate::app::{App, Error, claims::ClaimError};

/// The only client there is: a device.
const CLIENT_ID: &str = "device";
/// The grant of RFC 8628 section 3.4.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Their paths are OAuth's own, outside the base.
pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(authorize))
        .routes(routes!(token))
}

/// What a device asks with.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the shape for the documentation; `Form` reads the body")]
struct AuthorizationRequest {
    /// `device`.
    #[schema(example = "device")]
    client_id: String,
    /// Its serial.
    #[schema(example = "HOME-1")]
    serial: String,
    /// Its factory secret, where its model demands one.
    secret: Option<String>,
}

/// What a device polls with.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the shape for the documentation; `Form` reads the body")]
struct TokenRequest {
    /// `urn:ietf:params:oauth:grant-type:device_code`.
    #[schema(example = "urn:ietf:params:oauth:grant-type:device_code")]
    grant_type: String,
    /// `device`.
    #[schema(example = "device")]
    client_id: String,
    /// As it was given.
    device_code: String,
}

/// Codes (RFC 8628 section 3.2).
#[derive(Serialize, utoipa::ToSchema)]
struct Authorization {
    /// What the device polls with; nobody else's business.
    device_code: String,
    /// What the device shows.
    #[schema(example = "BDWP-HQPK")]
    user_code: String,
    /// Where its owner enters it.
    #[schema(example = "https://things.example/activate")]
    verification_uri: String,
    /// The same with the code in it: for a QR code.
    verification_uri_complete: String,
    /// Seconds that both hold.
    #[schema(example = 900)]
    expires_in: u64,
    /// Seconds between polls.
    #[schema(example = 5)]
    interval: u64,
}

/// A device's token (RFC 6749 section 5.1), and where to go with it.
#[derive(Serialize, utoipa::ToSchema)]
struct Token {
    /// The device's token: the password of MQTT, with the serial as user name. Shown this once.
    #[schema(example = "spd_6f1e...")]
    access_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// The device's id: another one after it was taken back.
    #[schema(example = "17")]
    device_id: String,
    /// Its serial.
    #[schema(value_type = String, example = "HOME-1")]
    serial: Serial,
    /// Where it connects.
    mqtt: Mqtt,
}

/// Where a device connects.
#[derive(Serialize, utoipa::ToSchema)]
struct Mqtt {
    /// The address.
    #[schema(example = "mqtts://things.example:8883")]
    url: String,
}

/// An error (RFC 6749 section 5.2, RFC 8628 section 3.5).
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct OAuthError {
    /// Its code.
    #[schema(example = "authorization_pending")]
    error: &'static str,
    /// A sentence for people.
    error_description: String,
    #[serde(skip)]
    status: u16,
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl OAuthError {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self {
            error,
            error_description: description.into(),
            status: 400,
            retry_after: None,
        }
    }

    fn invalid_request(description: impl Into<String>) -> Self {
        Self::new("invalid_request", description)
    }

    fn invalid_client(description: impl Into<String>) -> Self {
        Self {
            status: 401,
            ..Self::new("invalid_client", description)
        }
    }
}

impl From<ClaimError> for OAuthError {
    fn from(error: ClaimError) -> Self {
        let description = error.to_string();
        let code = match error {
            ClaimError::InvalidClient => return Self::invalid_client(description),
            ClaimError::AuthorizationPending => "authorization_pending",
            ClaimError::SlowDown => "slow_down",
            ClaimError::AccessDenied => "access_denied",
            ClaimError::ExpiredToken => "expired_token",
            ClaimError::InvalidGrant => "invalid_grant",
            ClaimError::App(Error::TooManyAttempts { after }) => {
                return Self {
                    status: 429,
                    retry_after: Some(after.as_secs().saturating_add(1)),
                    ..Self::new("slow_down", description)
                };
            }
            ClaimError::App(error) => {
                // The cause goes to the log there.
                let problem = Problem::from(error);
                let code = if problem.status == 503 {
                    "temporarily_unavailable"
                } else {
                    "server_error"
                };
                return Self {
                    status: problem.status,
                    ..Self::new(code, problem.detail.into_string())
                };
            }
        };
        Self::new(code, description)
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let retry_after = self.retry_after;
        let mut response = (status, Json(self)).into_response();
        if let Some(seconds) = retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        unstored(response)
    }
}

/// RFC 6749 section 5.1: neither answer may be kept.
fn unstored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// A form of single fields, as RFC 6749 appendix B wants it.
struct Form(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = OAuthError;

    async fn from_request(request: Request, state: &S) -> Result<Self, OAuthError> {
        let form = axum::Form::<Vec<(String, String)>>::from_request(request, state).await;
        let axum::Form(fields) =
            form.map_err(|rejection| OAuthError::invalid_request(rejection.body_text()))?;
        for (index, (name, _)) in fields.iter().enumerate() {
            if fields.iter().skip(index + 1).any(|(other, _)| other == name) {
                return Err(OAuthError::invalid_request("a parameter is given twice"));
            }
        }
        Ok(Self(fields))
    }
}

impl Form {
    /// A field; an empty one is none (RFC 6749 section 3.1).
    fn get(&self, name: &str) -> Option<&str> {
        let field = self.0.iter().find(|(field, _)| field == name);
        field
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    fn need(&self, name: &str) -> Result<&str, OAuthError> {
        self.get(name)
            .ok_or_else(|| OAuthError::invalid_request(format!("{name} is needed")))
    }

    fn check_client(&self) -> Result<(), OAuthError> {
        if self.need("client_id")? == CLIENT_ID {
            Ok(())
        } else {
            Err(OAuthError::invalid_client("client_id is `device`"))
        }
    }
}

/// Where this server is, as the client sees it.
struct Server {
    client: Client,
    http: String,
    mqtt: String,
}

impl FromRequestParts<Context> for Server {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Self::Rejection> {
        let client = Client::of(parts);
        let host = client::host(&parts.headers).unwrap_or("localhost");
        let http = match &context.public.http {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("{}://{host}", client.scheme()),
        };
        let mqtt = match &context.public.mqtt {
            Some(url) => url.clone(),
            None => context.public.mqtt_at(without_port(host)),
        };
        Ok(Self { client, http, mqtt })
    }
}

/// `[::1]:8080` and `localhost:8080` without the port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

/// Begins a claim.
///
/// A device posts its serial, shows `user_code`, and polls `/oauth/token` while its owner enters the code at
/// `verification_uri`.
#[utoipa::path(
    post, path = "/oauth/device_authorization", tag = "claiming", security(()),
    request_body(content = AuthorizationRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Codes", body = Authorization),
        (status = 400, description = "`invalid_request`", body = OAuthError),
        (status = 401, description = "`invalid_client`: this device may not be claimed", body = OAuthError),
        (status = 429, description = "Too many requests; see Retry-After", body = OAuthError),
    )
)]
async fn authorize(State(app): State<App>, server: Server, form: Form) -> Result<Response, OAuthError> {
    form.check_client()?;
    let serial: Serial =
        form.need("serial")?
            .parse()
            .map_err(|error: setpoint_model::serial::InvalidSerial| {
                OAuthError::invalid_request(error.to_string())
            })?;
    let codes = app
        .begin_claim(&serial, form.get("secret"), server.client.address)
        .await?;
    let uri = format!("{}/activate", server.http);
    let answer = Authorization {
        device_code: codes.device_code.reveal().to_owned(),
        verification_uri_complete: format!("{uri}?user_code={}", codes.user_code),
        verification_uri: uri,
        user_code: codes.user_code,
        expires_in: codes.expires_in.as_secs(),
        interval: codes.interval.as_secs(),
    };
    Ok(unstored(Json(answer).into_response()))
}

/// Answers a device's poll.
#[utoipa::path(
    post, path = "/oauth/token", tag = "claiming", security(()),
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The device's token, this once", body = Token),
        (status = 400, description = "`authorization_pending`, `slow_down`, `access_denied`, `expired_token`, \
         `invalid_grant`, `invalid_request` or `unsupported_grant_type`", body = OAuthError),
        (status = 401, description = "`invalid_client`", body = OAuthError),
    )
)]
async fn token(State(app): State<App>, server: Server, form: Form) -> Result<Response, OAuthError> {
    if form.need("grant_type")? != GRANT_TYPE {
        return Err(OAuthError::new(
            "unsupported_grant_type",
            format!("grant_type is {GRANT_TYPE}"),
        ));
    }
    form.check_client()?;
    let claimed = app
        .redeem_claim(form.need("device_code")?, server.client.address)
        .await?;
    let answer = Token {
        access_token: claimed.token.reveal().to_owned(),
        token_type: "Bearer",
        device_id: claimed.device_id.to_string(),
        serial: claimed.serial,
        mqtt: Mqtt { url: server.mqtt },
    };
    Ok(unstored(Json(answer).into_response()))
}

#[cfg(test)]
mod tests {
    use super::without_port;

    #[test]
    fn a_host_is_known_without_its_port() {
        for (host, name) in [
            ("localhost:8080", "localhost"),
            ("[::1]:8080", "[::1]"),
            ("things.example", "things.example"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }
}
