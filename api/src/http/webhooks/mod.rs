//! `/webhooks` and `/webhooks/{name}`.

mod deliveries;

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use setpoint_model::{
    event::EventType,
    webhook::{Devices, WebhookName},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Context, Json, Page, PageQuery, Path, Payload, Problem, Query, answer, etag::IfMatch, page,
    params::WebhookPath,
};
use crate::app::{
    Actor, App, Error,
    policy::Action,
    webhooks::{SigningSecret, WebhookStanding},
};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, patch, delete))
        .routes(routes!(rotate))
        .merge(deliveries::routes())
}

/// A program outside that is told of what happens to devices.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Webhook)]
struct WebhookBody {
    /// Its name.
    #[schema(example = "ops")]
    name: String,
    /// Where events go.
    #[schema(example = "https://example.com/hook")]
    url: String,
    /// The types that it hears.
    events: Vec<EventType>,
    /// Of this device alone.
    serial: Option<String>,
    /// Of the members of this group alone.
    #[schema(example = "oslo")]
    group: Option<String>,
    /// Of the devices alone whose tags are so.
    selector: Option<String>,
    /// Whether it hears anything.
    enabled: bool,
    /// Why it was disabled by itself.
    disabled_reason: Option<String>,
    /// The names of further headers of its requests; their values are never shown.
    headers: Vec<String>,
    /// Until when the former secret also signs.
    previous_secret_until: Option<DateTime<Utc>>,
    /// Events that wait to be delivered.
    pending: i64,
    /// Events that were given up, and can be sent again.
    dead: i64,
    /// Rises with each change; also the `ETag`.
    #[schema(example = 3)]
    version: i64,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

/// A webhook with its secret, which is shown this once.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct WebhookWithSecret {
    #[serde(flatten)]
    webhook: WebhookBody,
    /// What requests are signed with.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: String,
}

/// A webhook to be made.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "the shape for the documentation; `model::webhook` reads the body"
)]
struct NewWebhook {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
    #[schema(example = "ops", max_length = 64)]
    name: String,
    /// Where events go: `https`, or `http` where the configuration allows it.
    #[schema(example = "https://example.com/hook")]
    url: String,
    /// The types to hear: all but `telemetry`.
    #[schema(example = json!(["presence", "settings"]))]
    events: Vec<String>,
    /// Of this device alone. At most one of `serial`, `group` and `selector`.
    #[schema(required = false)]
    serial: String,
    /// Of the members of this group alone.
    #[schema(required = false, example = "oslo")]
    group: String,
    /// Of the devices alone whose tags are so.
    #[schema(required = false, example = "site=oslo and floor in (1,2)")]
    selector: String,
    /// Whether it hears anything; true without it.
    #[schema(required = false)]
    enabled: bool,
    /// Further headers of its requests; their values are kept encrypted and never shown.
    #[schema(required = false, value_type = Object, example = json!({"authorization": "Bearer abc"}))]
    headers: serde_json::Value,
    /// `whsec_` and 24 to 64 bytes in base64; made up without it.
    #[schema(required = false)]
    secret: String,
}

/// What a webhook says.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "the shape for the documentation; `model::webhook` reads the body"
)]
struct WebhookPatch {
    /// Where events go.
    #[schema(required = false)]
    url: String,
    /// The types to hear.
    #[schema(required = false)]
    events: Vec<String>,
    /// Of this device alone; it takes the place of `group` and `selector`. `null` for all devices.
    #[schema(required = false)]
    serial: Option<String>,
    /// Of the members of this group alone; it takes the place of the others.
    #[schema(required = false)]
    group: Option<String>,
    /// Of the devices alone whose tags are so; it takes the place of the others.
    #[schema(required = false)]
    selector: Option<String>,
    /// Whether it hears anything.
    #[schema(required = false)]
    enabled: bool,
    /// Headers to set; `null` drops one.
    #[schema(required = false, value_type = Object)]
    headers: serde_json::Value,
}

/// Another secret.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "the shape for the documentation; `app::webhooks` reads the body"
)]
struct NewSecret {
    /// `whsec_` and 24 to 64 bytes in base64; made up without it.
    #[schema(required = false)]
    secret: String,
    /// How long requests are also signed with the former one: `24h`; `0s` ends it at once.
    #[schema(required = false, example = "24h")]
    grace: String,
}

impl From<WebhookStanding> for WebhookBody {
    fn from(WebhookStanding { webhook, counts }: WebhookStanding) -> Self {
        let (serial, group, selector) = match webhook.devices {
            Devices::All => (None, None, None),
            Devices::Serial(serial) => (Some(serial.to_string()), None, None),
            Devices::Group(group) => (None, Some(group.to_string()), None),
            Devices::Selector(selector) => (None, None, Some(selector.to_string())),
        };
        Self {
            name: webhook.name.to_string(),
            url: webhook.url.as_str().to_owned(),
            events: webhook.events,
            serial,
            group,
            selector,
            enabled: webhook.enabled,
            disabled_reason: webhook.disabled_reason,
            headers: webhook.header_names,
            previous_secret_until: webhook.previous.map(|(_, until)| until),
            pending: counts.pending,
            dead: counts.dead,
            version: webhook.version,
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
        }
    }
}

/// The webhook with its `ETag`.
fn shown(standing: WebhookStanding) -> Result<Response, Problem> {
    answer::versioned(standing.webhook.version, WebhookBody::from(standing))
}

/// The same with its secret, which no cache may keep.
fn with_secret(standing: WebhookStanding, secret: &SigningSecret) -> Result<Response, Problem> {
    let version = standing.webhook.version;
    let body = WebhookWithSecret {
        webhook: standing.into(),
        secret: secret.reveal(),
    };
    let private = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([private], answer::versioned(version, body)?).into_response())
}

/// Lists webhooks by name.
#[utoipa::path(
    get, path = "/webhooks", tag = "webhooks", security(("bearer" = ["webhooks:read"])), params(PageQuery),
    responses((status = 200, description = "A page of webhooks", body = Page<WebhookBody>))
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<WebhookBody>>, Problem> {
    let limit = query.limit()?;
    let after = page::after::<WebhookName>(query.cursor.as_deref())?;
    let webhooks = app.webhooks(&actor, &after, limit + 1).await?;
    let page = Page::of(webhooks, limit, |last| last.webhook.name.to_string());
    Ok(Json(page.map(WebhookBody::from)))
}

/// Makes a webhook.
///
/// Each event is sent as a POST of JSON, signed after the Standard Webhooks specification, until it is answered 2xx: at
/// least once, in order per device.
#[utoipa::path(
    post, path = "/webhooks", tag = "webhooks", security(("bearer" = ["webhooks:write"])), request_body = NewWebhook,
    responses(
        (status = 201, description = "Made; `secret` is shown this once", body = WebhookWithSecret,
         headers(("Location" = String, description = "Where the webhook is"), ("ETag" = String, description = "The version, in quotes"))),
        (status = 409, description = "`webhook_exists`: the name is taken; `too_many_webhooks`"),
        (status = 413, description = "Larger than the limit"),
        (status = 422, description = "A field is not valid; `errors` says which and why"),
    )
)]
async fn create(
    State(app): State<App>,
    actor: Actor,
    body: Result<Payload, Problem>,
) -> Result<Response, Problem> {
    // Who may not is told so, whatever the body.
    app.authorize_all(&actor, Action::WriteWebhooks)?;
    let (standing, secret) = app.create_webhook(&actor, &body?.0).await?;
    let path = format!("/webhooks/{}", standing.webhook.name);
    answer::at(StatusCode::CREATED, &path, with_secret(standing, &secret)?)
}

/// Shows a webhook.
#[utoipa::path(
    get, path = "/webhooks/{name}", tag = "webhooks", security(("bearer" = ["webhooks:read"])),
    params(WebhookPath),
    responses(
        (status = 200, description = "The webhook", body = WebhookBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 404, description = "There is no such webhook"),
    )
)]
async fn read(State(app): State<App>, actor: Actor, Path(name): Path<String>) -> Result<Response, Problem> {
    app.authorize_all(&actor, Action::ReadWebhooks)?;
    shown(app.webhook(&actor, &known(&name)?).await?)
}

/// Changes a webhook.
///
/// The body is a merge patch (RFC 7396): `null` for a header drops it. Enabling it again sends what has waited.
#[utoipa::path(
    patch, path = "/webhooks/{name}", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(WebhookPath, IfMatch),
    request_body(content(
        (WebhookPatch = "application/merge-patch+json", example = json!({"enabled": false})),
        (WebhookPatch = "application/json"),
    )),
    responses(
        (status = 200, description = "The webhook as it is now", body = WebhookBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 404, description = "There is no such webhook"),
        (status = 409, description = "`webhook_changed`: others keep changing it; `other_server_key`"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 413, description = "Larger than the limit"),
        (status = 422, description = "A field is not valid; `errors` says which and why"),
    )
)]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    precondition: Result<IfMatch, Problem>,
    body: Result<Payload, Problem>,
) -> Result<Response, Problem> {
    app.authorize_all(&actor, Action::WriteWebhooks)?;
    let (Payload(body), name, precondition) = (body?, known(&name)?, precondition?.0);
    let patched = app.patch_webhook(&actor, &name, &body, &precondition);
    shown(patched.await?)
}

/// Deletes a webhook with everything that waits for it.
#[utoipa::path(
    delete, path = "/webhooks/{name}", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(WebhookPath, IfMatch),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such webhook"),
        (status = 412, description = "Another version is current: `current_version`"),
    )
)]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    precondition: Result<IfMatch, Problem>,
) -> Result<StatusCode, Problem> {
    app.authorize_all(&actor, Action::WriteWebhooks)?;
    let (name, precondition) = (known(&name)?, precondition?.0);
    app.delete_webhook(&actor, &name, &precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a webhook another secret.
///
/// For a while requests carry a signature of each, so that the receiver can change over at any moment of it.
#[utoipa::path(
    post, path = "/webhooks/{name}/secret", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(WebhookPath, IfMatch),
    request_body(content = NewSecret),
    responses(
        (status = 200, description = "`secret` is shown this once", body = WebhookWithSecret,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 404, description = "There is no such webhook"),
        (status = 409, description = "`webhook_changed`: others keep changing it"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 422, description = "A field is not valid; `errors` says which and why"),
    )
)]
async fn rotate(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    precondition: Result<IfMatch, Problem>,
    body: Result<Payload, Problem>,
) -> Result<Response, Problem> {
    app.authorize_all(&actor, Action::WriteWebhooks)?;
    let (Payload(body), name, precondition) = (body?, known(&name)?, precondition?.0);
    let rotated = app.rotate_webhook_secret(&actor, &name, &body, &precondition);
    let (standing, secret) = rotated.await?;
    with_secret(standing, &secret)
}

/// A path's name; there is no webhook of any other.
fn known(name: &str) -> Result<WebhookName, Error> {
    name.parse().map_err(|_| Error::NotFound { what: "webhook" })
}
