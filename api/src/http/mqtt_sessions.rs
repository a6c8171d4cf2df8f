//! `/sessions`: who is connected over MQTT.

use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use setpoint_broker::{Began, SessionStatus, Transport, Version};
use setpoint_model::Identity;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Context, Json, Page, Path, Problem, Query};
use crate::app::{Actor, App, Error, mqtt_sessions::SessionFilter};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(read, end))
}

/// A live MQTT session: of a device, or of an operator with an API token.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct MqttSession {
    /// This connection's id, as in the timeline and in presence.
    id: Uuid,
    /// The device it is; null for an operator.
    #[schema(example = "HOME-1")]
    serial: Option<String>,
    /// The name of the operator's API token; null for a device.
    token: Option<String>,
    /// Its MQTT client id.
    #[schema(example = "HOME-1")]
    client_id: String,
    /// Where it comes from: address and port.
    #[schema(example = "203.0.113.9:50000")]
    address: String,
    /// `tcp`, `tls` or `websocket`.
    #[schema(value_type = String, example = "tls")]
    transport: Transport,
    /// The MQTT version: `3.1.1` or `5.0`.
    #[schema(value_type = String, example = "5.0")]
    version: Version,
    /// When it connected.
    since: DateTime<Utc>,
    /// The keep-alive in force, in seconds; 0 is none.
    #[schema(example = 60)]
    keep_alive: u16,
    /// Whether it wanted nothing of an earlier session.
    clean_start: bool,
    /// Its topic filters.
    subscriptions: Vec<String>,
    /// Messages that wait to be sent to it.
    queued: usize,
    /// QoS 1 and 2 messages sent to it that it has not acknowledged.
    in_flight: usize,
    /// Messages received from it.
    messages_in: u64,
    /// Messages sent to it.
    messages_out: u64,
    /// Bytes received from it.
    bytes_in: u64,
    /// Bytes sent to it.
    bytes_out: u64,
}

impl From<SessionStatus> for MqttSession {
    fn from(status: SessionStatus) -> Self {
        let info = &status.info;
        let (serial, token) = match &info.identity {
            Identity::Device(serial) => (Some(serial.to_string()), None),
            Identity::Operator(operator) => (None, Some(operator.name.clone())),
        };
        Self {
            id: info.id,
            serial,
            token,
            client_id: info.client_id.clone(),
            address: info.peer.address.to_string(),
            transport: info.peer.transport,
            version: info.version,
            since: info.since,
            keep_alive: info.keep_alive,
            clean_start: info.clean,
            subscriptions: status.subscriptions,
            queued: status.queued,
            in_flight: status.in_flight,
            messages_in: status.messages_in,
            messages_out: status.messages_out,
            bytes_in: status.bytes_in,
            bytes_out: status.bytes_out,
        }
    }
}

/// Which sessions to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Of exactly this device.
    #[param(example = "HOME-1")]
    serial: Option<String>,
    /// `tcp`, `tls` or `websocket`.
    #[param(example = "tls")]
    transport: Option<String>,
    /// A part of the serial, the token's name, the client id or the address, in any case.
    q: Option<String>,
    /// How many items at most: 1 to 1000, 100 by default.
    limit: Option<i64>,
    /// Where to go on: the `next` of the page before.
    cursor: Option<String>,
}

fn transport(name: &str) -> Result<Transport, Error> {
    match name {
        "tcp" => Ok(Transport::Tcp),
        "tls" => Ok(Transport::Tls),
        "websocket" => Ok(Transport::WebSocket),
        _ => Err(Error::invalid("transport", "tcp, tls or websocket")),
    }
}

/// Where the page behind this session begins.
fn cursor(last: &SessionStatus) -> String {
    let Began { since, session } = Began::of(&last.info);
    let nanoseconds = since.timestamp_subsec_nanos();
    format!("{}.{nanoseconds}.{}", since.timestamp(), session.simple())
}

fn began(cursor: &str) -> Option<Began> {
    let mut parts = cursor.split('.');
    let seconds = parts.next()?.parse().ok()?;
    let nanoseconds = parts.next()?.parse().ok()?;
    let session = parts.next()?.parse().ok()?;
    let since = DateTime::from_timestamp(seconds, nanoseconds)?;
    parts.next().is_none().then_some(Began { since, session })
}

/// Lists who is connected to this server over MQTT, newest first.
///
/// An owner sees the sessions of their own devices.
#[utoipa::path(
    get, path = "/sessions", tag = "sessions", security(("bearer" = ["devices:read"])), params(ListQuery),
    responses(
        (status = 200, description = "A page of sessions", body = Page<MqttSession>),
        (status = 422, description = "A parameter is unknown or not valid"),
    )
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<MqttSession>>, Problem> {
    let limit = super::page::limit(query.limit)?;
    let before = match query.cursor.as_deref() {
        Some(text) => {
            Some(began(text).ok_or_else(|| Error::invalid("cursor", "is not a cursor of this list"))?)
        }
        None => None,
    };
    let filter = SessionFilter {
        serial: query.serial,
        transport: query.transport.as_deref().map(transport).transpose()?,
        search: query.q.filter(|part| !part.is_empty()),
    };
    let most = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
    let sessions = app.mqtt_sessions(&actor, &filter, before, most).await?;
    Ok(Json(Page::of(sessions, limit, cursor).map(MqttSession::from)))
}

/// Shows a live MQTT session.
#[utoipa::path(
    get, path = "/sessions/{id}", tag = "sessions", security(("bearer" = ["devices:read"])),
    params(("id" = Uuid, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The session", body = MqttSession),
        (status = 404, description = "There is no such live session"),
    )
)]
async fn read(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<Uuid>,
) -> Result<Json<MqttSession>, Problem> {
    Ok(Json(app.mqtt_session(&actor, id).await?.into()))
}

/// Ends a live MQTT session.
///
/// An MQTT 5 client is told so (0x98, administrative action); any may connect again. To keep a device out, revoke its
/// credential; to keep an operator out, delete the token.
#[utoipa::path(
    delete, path = "/sessions/{id}", tag = "sessions", security(("bearer" = ["devices:write"])),
    params(("id" = Uuid, Path, description = "The session's id")),
    responses(
        (status = 204, description = "It has ended"),
        (status = 404, description = "There is no such live session"),
    )
)]
async fn end(State(app): State<App>, actor: Actor, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    app.end_mqtt_session(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_as_written_and_nothing_else_is_one() {
        let id = Uuid::from_u128(7);
        let text = format!("1700000000.123456789.{}", id.simple());
        let began = began(&text).unwrap();
        assert_eq!(began.session, id);
        assert_eq!(began.since.timestamp_subsec_nanos(), 123_456_789);
        for text in [
            "",
            "1",
            "1.2",
            "1.2.x",
            "1.2000000000.00000000000000000000000000000007",
            "a.1.7",
        ] {
            assert_eq!(super::began(text), None, "{text}");
        }
        assert_eq!(super::began(&format!("1.2.{id}.4")), None);
    }
}
