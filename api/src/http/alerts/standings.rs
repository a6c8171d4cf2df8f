//! `/alerts/{name}/devices` and `/devices/{serial}/alerts`: where devices stand.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use setpoint_model::{
    Serial,
    alert::{Severity, State as AlertState},
};
use setpoint_store::alerts::{Rule, StatePage};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Actor, App, Context, Error, Json, Page, Path, Problem, Query, known, page};
use crate::{
    app::alerts::ShownStanding,
    http::params::{AlertPath, DevicePath},
};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(devices))
        .routes(routes!(of_device))
}

/// Where a device stands towards a rule.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AlertDevice)]
struct StandingBody {
    /// The device's serial.
    #[schema(example = "HOME-1")]
    serial: String,
    /// In which state it is.
    state: AlertState,
    /// Since when; `null` if nothing ever was wrong.
    since: Option<DateTime<Utc>>,
    /// When time alone changes that: an alert that is pending fires, one that fires is resolved.
    due_at: Option<DateTime<Utc>>,
    /// The values that were looked at when it last changed.
    #[schema(value_type = Object, example = json!({"temperature": 31.5}))]
    values: Map<String, Value>,
    /// A plain sentence.
    #[schema(example = "temperature is 31.5, above 30 since 14:02")]
    message: String,
}

/// A rule that is for a device, and where that stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct DeviceAlert {
    /// The rule's name.
    #[schema(example = "too-hot")]
    alert: String,
    /// What people call it.
    #[schema(example = "Too hot")]
    title: String,
    /// How much it matters.
    severity: Severity,
    /// What must be the case, and for how long.
    #[schema(example = "temperature > 30 for 5m")]
    condition: String,
    /// Where the device stands.
    #[serde(flatten)]
    standing: StandingBody,
}

impl From<ShownStanding> for StandingBody {
    fn from(shown: ShownStanding) -> Self {
        Self {
            serial: shown.serial,
            state: shown.state,
            since: shown.since,
            due_at: shown.due_at,
            values: shown.values,
            message: shown.message,
        }
    }
}

impl From<(Rule, ShownStanding)> for DeviceAlert {
    fn from((rule, standing): (Rule, ShownStanding)) -> Self {
        Self {
            alert: rule.name,
            condition: rule.definition.condition.to_string(),
            title: rule.definition.title,
            severity: rule.definition.severity,
            standing: standing.into(),
        }
    }
}

/// Which devices to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DevicesQuery {
    /// How many items at most: 1 to 1000, 100 by default.
    limit: Option<i64>,
    /// Where to go on: the `next` of the page before.
    cursor: Option<String>,
    /// Only those in one of these states, with commas between: `ok`, `pending`, `firing`, `resolved`.
    #[param(example = "firing")]
    state: Option<String>,
}

/// Lists the devices that a rule is for by serial, and where each stands.
#[utoipa::path(
    get, path = "/alerts/{name}/devices", tag = "alerts", operation_id = "list_alert_devices",
    security(("bearer" = ["alerts:read"])),
    params(AlertPath, DevicesQuery),
    responses(
        (status = 200, description = "A page of devices", body = Page<StandingBody>),
        (status = 404, description = "There is no such rule"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn devices(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    Query(query): Query<DevicesQuery>,
) -> Result<Json<Page<StandingBody>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after = page::after::<Serial>(query.cursor.as_deref())?;
    let states = states(query.state.as_deref())?;
    let asked = StatePage {
        states: &states,
        after: &after,
        limit: limit + 1,
    };
    let standings = app.alert_devices(&actor, &known(&name)?, asked).await?;
    Ok(Json(
        Page::of(standings, limit, |last| last.serial.clone()).map(StandingBody::from),
    ))
}

/// Lists the alert rules that are for a device by name, and where it stands towards each.
#[utoipa::path(
    get, path = "/devices/{serial}/alerts", tag = "alerts", operation_id = "list_device_alerts",
    security(("bearer" = ["alerts:read"])),
    params(DevicePath, StateQuery),
    responses(
        (status = 200, description = "The rules", body = Page<DeviceAlert>),
        (status = 404, description = "There is no such device"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn of_device(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Query(query): Query<StateQuery>,
) -> Result<Json<Page<DeviceAlert>>, Problem> {
    let states = states(query.state.as_deref())?;
    let alerts = app.device_alerts(&actor, &serial).await?.into_iter();
    let asked = alerts.filter(|(_, standing)| states.is_empty() || states.contains(&standing.state));
    // There are no more than `alerts.max_rules`.
    Ok(Json(Page {
        items: asked.map(DeviceAlert::from).collect(),
        next: None,
    }))
}

/// Which of a device's alerts to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct StateQuery {
    /// Only those in one of these states, with commas between: `ok`, `pending`, `firing`, `resolved`.
    #[param(example = "firing,pending")]
    state: Option<String>,
}

fn states(asked: Option<&str>) -> Result<Vec<AlertState>, Error> {
    let parts = asked.into_iter().flat_map(|text| text.split(','));
    let states = parts.map(str::trim).filter(|part| !part.is_empty());
    states
        .map(str::parse::<AlertState>)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::invalid("state", error.to_string()))
}
