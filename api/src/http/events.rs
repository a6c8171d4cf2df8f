//! `/events`: Server-Sent Events (HTML standard, section 9.2).

use std::{collections::HashSet, convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use setpoint_model::{Serial, event::EventType};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, Problem, Query};
use crate::app::{
    Actor, App, Error,
    events::{Ended, EventStream, MAX_SERIALS, Numbered, Wanted},
};

/// With what a browser says where it was cut off.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx to pass events on as they come.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// How long a browser waits before it comes back.
const RETRY: Duration = Duration::from_secs(2);

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Which events to hear.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Only events of these types, with commas between: `presence`, `settings`, `telemetry`, `commands`, `firmware`,
    /// `alert`.
    #[serde(rename = "type")]
    #[param(example = "presence,settings")]
    types: Option<String>,
    /// Only events of these devices, with commas between: 1000 at most.
    #[param(example = "HOME-1")]
    serial: Option<String>,
    /// Only events of the devices of this group.
    group: Option<String>,
    /// As the header `Last-Event-ID`, for clients that can't send it.
    last_event_id: Option<String>,
}

/// Streams what happens to devices as it happens.
///
/// Each event has an `id`; whoever comes back with the last one as `Last-Event-ID` goes on behind it. The event `reset`
/// says that this was not possible: read what you show anew, then go on with the stream. The event `end` is the last,
/// with the `reason`: `too_slow`, `rights_ended`.
#[utoipa::path(
    get, path = "/events", tag = "events", security(("bearer" = ["devices:read"])),
    params(
        EventsQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that was heard"),
    ),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 403, description = "The scope of a type is missing"),
        (status = 404, description = "No such device or group"),
        (status = 422, description = "A parameter is not valid"),
        (status = 503, description = "Too many streams are open"),
    )
)]
async fn events(
    State(context): State<Context>,
    actor: Actor,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = wanted(&query)?;
    let header = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let last = header.or(query.last_event_id.as_deref());
    let app: &App = &context.app;
    let stream = app.open_events(&actor, wanted, last).await?;
    let events = Sse::new(told(stream, app.events.heartbeat(), context.stopping.clone()));
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, events).into_response())
}

fn wanted(query: &EventsQuery) -> Result<Wanted, Error> {
    let types = listed(query.types.as_deref()).map(str::parse::<EventType>);
    let types = types.collect::<Result<_, _>>().map_err(|error| {
        let known: Vec<_> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
        Error::invalid("type", format!("{error}; known: {}", known.join(", ")))
    })?;
    let serials = listed(query.serial.as_deref()).map(str::parse::<Serial>);
    let serials: HashSet<Serial> = serials
        .collect::<Result<_, _>>()
        .map_err(|error| Error::invalid("serial", error.to_string()))?;
    if serials.len() > MAX_SERIALS {
        return Err(Error::invalid("serial", format!("at most {MAX_SERIALS}")));
    }
    Ok(Wanted {
        types,
        serials,
        group: query.group.clone(),
    })
}

fn listed(text: Option<&str>) -> impl Iterator<Item = &str> {
    let parts = text.into_iter().flat_map(|text| text.split(','));
    parts.map(str::trim).filter(|part| !part.is_empty())
}

/// The events of a stream until it ends, or the server does.
fn told(
    events: EventStream,
    heartbeat: Duration,
    stop: CancellationToken,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let first = greeting(&events);
    let rest = stream::unfold(Some(events), move |events| {
        let stop = stop.clone();
        async move {
            let mut events = events?;
            let next = timeout(heartbeat, events.next());
            match stop.run_until_cancelled(next).await? {
                Err(_) => Some((vec![sign_of_life(&events)], Some(events))),
                Ok(Ok(found)) => {
                    let told: Vec<Event> = found.iter().map(|entry| event(&events, entry)).collect();
                    Some((told, Some(events)))
                }
                Ok(Err(ended)) => Some((vec![end(ended)], None)),
            }
        }
    });
    stream::iter(first).chain(rest.flat_map(stream::iter)).map(Ok)
}

/// What a stream begins with: how soon to come back, from where, and whether something was missed.
fn greeting(events: &EventStream) -> Vec<Event> {
    let at = events.position().to_string();
    let begin = Event::default().retry(RETRY).id(at).comment("listening");
    if events.has_gap() {
        let reset = Event::default()
            .event("reset")
            .id(events.position().to_string())
            .data(r#"{"reason":"events were missed; read anew what you show"}"#);
        return vec![begin, reset];
    }
    vec![begin]
}

fn event(events: &EventStream, entry: &Numbered) -> Event {
    Event::default()
        .event(entry.event.kind.as_str())
        .id(events.position_of(entry.number).to_string())
        .data(&*entry.event.data)
}

/// Keeps a quiet stream open, and tells its reader that nothing was missed up to here.
fn sign_of_life(events: &EventStream) -> Event {
    Event::default()
        .id(events.position().to_string())
        .comment("alive")
}

fn end(ended: Ended) -> Event {
    Event::default()
        .event("end")
        .data(format!(r#"{{"reason":"{}"}}"#, ended.as_str()))
}
