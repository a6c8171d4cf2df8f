//! `/webhooks/{name}/deliveries`, `/replay` and `/test`.

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_store::webhooks::{Delivery, DeliveryState, Replay};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::known;
use crate::{
    app::{Actor, App, Error, policy::Action},
    http::{Context, Json, Page, Path, Payload, Problem, Query, answer, page, params::WebhookPath},
};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(read))
        .routes(routes!(replay_one))
        .routes(routes!(replay))
        .routes(routes!(test))
}

/// An event on its way to a webhook.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Delivery)]
struct DeliveryBody {
    /// Its id: the `webhook-id` of each attempt.
    id: Uuid,
    /// The type of event, or `ping`.
    #[serde(rename = "type")]
    #[schema(example = "presence")]
    kind: String,
    /// The device; `null` for a ping.
    serial: Option<String>,
    /// When it happened.
    at: DateTime<Utc>,
    /// `pending`, `delivered` or `dead`: given up after the last attempt.
    #[schema(example = "delivered")]
    state: String,
    /// Attempts so far.
    attempts: i32,
    /// Not before then it is tried again.
    next_attempt_at: Option<DateTime<Utc>>,
    /// When it was last tried.
    last_attempt_at: Option<DateTime<Utc>>,
    /// What the last attempt was answered.
    #[schema(example = 200)]
    last_status: Option<i32>,
    /// What was wrong with it.
    last_error: Option<String>,
    /// When it was delivered, or given up.
    ended_at: Option<DateTime<Utc>>,
    /// The facts that are sent.
    #[schema(value_type = Object)]
    data: Value,
}

impl From<Delivery> for DeliveryBody {
    fn from(delivery: Delivery) -> Self {
        let pending = delivery.state == DeliveryState::Pending.as_str();
        Self {
            id: delivery.id,
            kind: delivery.kind,
            serial: delivery.serial,
            at: delivery.at,
            state: delivery.state,
            attempts: delivery.attempts,
            next_attempt_at: delivery.next_at.filter(|_| pending),
            last_attempt_at: delivery.last_at,
            last_status: delivery.last_status,
            last_error: delivery.last_error,
            ended_at: delivery.ended_at,
            data: delivery.data,
        }
    }
}

/// Which deliveries to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Those that stand so: `pending`, `delivered`, `dead`.
    #[param(example = "dead")]
    state: Option<String>,
    /// How many items at most: 1 to 1000, 100 by default.
    limit: Option<i64>,
    /// Where to go on: the `next` of the page before.
    cursor: Option<i64>,
}

/// What to send again.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ReplayBody {
    /// Those that stand so: `dead` or `delivered`. Without it, and without times: `dead`; with times: both.
    #[schema(example = "dead")]
    state: Option<String>,
    /// Of what happened then or later.
    from: Option<DateTime<Utc>>,
    /// Of what happened before then.
    to: Option<DateTime<Utc>>,
}

/// How much is sent again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Replayed {
    /// How many events.
    #[schema(example = 12)]
    replayed: i64,
}

/// Lists what was, or is to be, delivered to a webhook, newest first.
#[utoipa::path(
    get, path = "/webhooks/{name}/deliveries", tag = "webhooks", security(("bearer" = ["webhooks:read"])),
    params(WebhookPath, ListQuery),
    responses(
        (status = 200, description = "A page of deliveries", body = Page<DeliveryBody>),
        (status = 404, description = "There is no such webhook"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    query: Result<Query<ListQuery>, Problem>,
) -> Result<Json<Page<DeliveryBody>>, Problem> {
    app.authorize_all(&actor, Action::ReadWebhooks)?;
    let Query(query) = query?;
    let limit = page::limit(query.limit)?;
    let state = query.state.as_deref().map(state).transpose()?;
    let name = known(&name)?;
    let deliveries = app.webhook_deliveries(&actor, &name, state, query.cursor, limit + 1);
    let page = Page::of(deliveries.await?, limit, |last| last.seq.to_string());
    Ok(Json(page.map(DeliveryBody::from)))
}

/// Shows a delivery.
#[utoipa::path(
    get, path = "/webhooks/{name}/deliveries/{id}", tag = "webhooks", security(("bearer" = ["webhooks:read"])),
    params(WebhookPath, ("id" = Uuid, Path, description = "The delivery's id")),
    responses(
        (status = 200, description = "The delivery", body = DeliveryBody),
        (status = 404, description = "There is no such webhook or delivery"),
    )
)]
async fn read(
    State(app): State<App>,
    actor: Actor,
    Path((name, id)): Path<(String, Uuid)>,
) -> Result<Json<DeliveryBody>, Problem> {
    app.authorize_all(&actor, Action::ReadWebhooks)?;
    Ok(Json(
        app.webhook_delivery(&actor, &known(&name)?, id).await?.into(),
    ))
}

/// Sends something again that was delivered or given up, as the same message, with attempts counted anew.
#[utoipa::path(
    post, path = "/webhooks/{name}/deliveries/{id}/replay", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(WebhookPath, ("id" = Uuid, Path, description = "The delivery's id")),
    responses(
        (status = 202, description = "It is sent", body = DeliveryBody),
        (status = 404, description = "There is no such webhook or delivery"),
        (status = 409, description = "It is pending: `state`"),
    )
)]
async fn replay_one(
    State(app): State<App>,
    actor: Actor,
    Path((name, id)): Path<(String, Uuid)>,
) -> Result<(StatusCode, Json<DeliveryBody>), Problem> {
    app.authorize_all(&actor, Action::WriteWebhooks)?;
    let delivery = app.replay_delivery(&actor, &known(&name)?, id).await?;
    Ok((StatusCode::ACCEPTED, Json(delivery.into())))
}

/// Sends again all that was given up, or what happened within a time.
#[utoipa::path(
    post, path = "/webhooks/{name}/replay", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(WebhookPath),
    request_body = ReplayBody,
    responses(
        (status = 202, description = "So many are sent", body = Replayed),
        (status = 404, description = "There is no such webhook"),
        (status = 422, description = "A field is not valid"),
    )
)]
async fn replay(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    body: Result<Payload, Problem>,
) -> Result<(StatusCode, Json<Replayed>), Problem> {
    app.authorize_all(&actor, Action::WriteWebhooks)?;
    let Payload(body) = body?;
    let body: ReplayBody = if body.is_empty() {
        ReplayBody::default()
    } else {
        Json::read(&body)?
    };
    let state = match body.state.as_deref().map(state).transpose()? {
        Some(DeliveryState::Pending) => {
            return Err(Error::invalid("state", "what is pending is sent anyway: dead or delivered").into());
        }
        None if body.from.is_none() && body.to.is_none() => Some(DeliveryState::Dead),
        state => state,
    };
    if let (Some(from), Some(to)) = (body.from, body.to)
        && from > to
    {
        return Err(Error::invalid("from", "must not be after `to`").into());
    }
    let replay = Replay {
        state,
        from: body.from,
        to: body.to,
    };
    let replayed = app.replay_deliveries(&actor, &known(&name)?, replay).await?;
    Ok((StatusCode::ACCEPTED, Json(Replayed { replayed })))
}

/// Sends a ping, once, even to a webhook that is disabled.
///
/// What came of it is in the delivery that `Location` names.
#[utoipa::path(
    post, path = "/webhooks/{name}/test", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(WebhookPath),
    responses(
        (status = 202, description = "It is sent", body = DeliveryBody,
         headers(("Location" = String, description = "Where the delivery is"))),
        (status = 404, description = "There is no such webhook"),
    )
)]
async fn test(State(app): State<App>, actor: Actor, Path(name): Path<String>) -> Result<Response, Problem> {
    app.authorize_all(&actor, Action::WriteWebhooks)?;
    let name = known(&name)?;
    let delivery = app.ping_webhook(&actor, &name).await?;
    let path = format!("/webhooks/{name}/deliveries/{}", delivery.id);
    answer::at(StatusCode::ACCEPTED, &path, Json(DeliveryBody::from(delivery)))
}

fn state(text: &str) -> Result<DeliveryState, Error> {
    text.parse().map_err(|_| {
        let known: Vec<&str> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
        Error::invalid("state", format!("must be one of {}", known.join(", ")))
    })
}
