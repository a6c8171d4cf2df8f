//! `/alerts` and `/alerts/{name}`: rules. Where devices stand is in [`standings`].

mod standings;

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_model::alert::{AlertName, Severity};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Context, Json, Page, Path, Payload, Problem, Query, answer, etag::IfMatch, page, params::AlertPath,
};
use crate::app::{Actor, App, Error, alerts::ListedRule};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, put, patch, delete))
        .merge(standings::routes())
}

/// A rule, and how many devices it is about.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Alert)]
struct AlertBody {
    /// Its name.
    #[schema(example = "too-hot")]
    name: String,
    /// What people call it.
    #[schema(example = "Too hot")]
    title: String,
    /// What must be the case, and for how long.
    #[schema(example = "temperature > 30 for 5m")]
    condition: String,
    /// For which devices: `model`, `group` or `serial`; an empty object for all.
    #[schema(value_type = Object, example = json!({"group": "oslo"}))]
    scope: Value,
    /// How much it matters.
    severity: Severity,
    /// Whether it is looked at at all.
    enabled: bool,
    /// How long the condition must be over before an alert is resolved; `null` for the usual: as long as it takes to fire
    /// for values, at once for a device that is there again.
    #[schema(example = "10m")]
    resolve_after: Option<String>,
    /// Rises with each change; also the `ETag`.
    #[schema(example = 3)]
    version: i64,
    /// For how many devices it is in which state; for all others it is `ok`.
    counts: CountsBody,
    /// Whether devices are still being looked at after the last change.
    settling: bool,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

/// For how many devices a rule is in which state.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AlertCounts)]
struct CountsBody {
    /// The condition holds, but not for long enough.
    #[schema(example = 2)]
    pending: i64,
    /// It fires.
    #[schema(example = 1)]
    firing: i64,
    /// It fired not long ago (`alerts.keep_resolved`), and is over.
    #[schema(example = 0)]
    resolved: i64,
}

/// For which devices a rule is: at most one of these.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "the shape for the documentation; `model::alert` reads the body"
)]
struct AlertScope {
    /// Those of this model.
    model: Option<String>,
    /// Those that belong to this group.
    #[schema(example = "oslo")]
    group: Option<String>,
    /// The one of this serial.
    serial: Option<String>,
}

/// A rule to be made.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "the shape for the documentation; `model::alert` reads the body"
)]
struct NewAlert {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
    #[schema(example = "too-hot", max_length = 64)]
    name: String,
    /// The rest of it.
    #[schema(inline)]
    #[serde(flatten)]
    definition: AlertDefinition,
}

/// All of a rule but its name.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "the shape for the documentation; `model::alert` reads the body"
)]
struct AlertDefinition {
    /// What people call it.
    #[schema(required = false, example = "Too hot", max_length = 200)]
    title: String,
    /// What must be the case, and for how long: `temperature > 30 for 5m`, `temperature > 30 clear 28 and door == true`,
    /// `no telemetry for 15m`, `no temperature for 1h`, `offline for 10m`, `settings pending for 10m`.
    #[schema(example = "temperature > 30 for 5m", max_length = 1000)]
    condition: String,
    /// For which devices; all without it.
    #[schema(required = false)]
    scope: AlertScope,
    /// How much it matters; `warning` without it.
    #[schema(required = false)]
    severity: Severity,
    /// Whether it is looked at at all; it is without it.
    #[schema(required = false)]
    enabled: bool,
    /// How long the condition must be over before an alert is resolved.
    #[schema(example = "10m")]
    resolve_after: Option<String>,
}

impl From<ListedRule> for AlertBody {
    fn from(ListedRule { rule, counts }: ListedRule) -> Self {
        let definition = rule.definition;
        Self {
            name: rule.name,
            condition: definition.condition.to_string(),
            scope: definition.scope.to_json(),
            title: definition.title,
            severity: definition.severity,
            enabled: definition.enabled,
            resolve_after: definition.resolve_after.map(|span| span.to_string()),
            version: rule.version,
            counts: CountsBody {
                pending: counts.pending,
                firing: counts.firing,
                resolved: counts.resolved,
            },
            settling: rule.settling,
            created_at: rule.created_at,
            updated_at: rule.updated_at,
        }
    }
}

/// The rule with its `ETag`.
fn shown(rule: ListedRule) -> Result<Response, Problem> {
    answer::versioned(rule.rule.version, AlertBody::from(rule))
}

/// The rule with its `ETag` and where it is.
fn made(rule: ListedRule) -> Result<Response, Problem> {
    let path = format!("/alerts/{}", rule.rule.name);
    answer::at(StatusCode::CREATED, &path, shown(rule)?)
}

/// Which rules to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// How many items at most: 1 to 1000, 100 by default.
    limit: Option<i64>,
    /// Where to go on: the `next` of the page before.
    cursor: Option<String>,
    /// A part of the name or the title, in any case.
    q: Option<String>,
}

/// Lists alert rules by name, each with for how many devices it is in which state.
#[utoipa::path(
    get, path = "/alerts", tag = "alerts", security(("bearer" = ["alerts:read"])), params(ListQuery),
    responses(
        (status = 200, description = "A page of rules", body = Page<AlertBody>),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<AlertBody>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after = page::after::<AlertName>(query.cursor.as_deref())?;
    let search = query.q.as_deref().filter(|search| !search.contains('\0'));
    let rules = app.alerts(&actor, &after, search, limit + 1).await?;
    Ok(Json(
        Page::of(rules, limit, |last| last.rule.name.clone()).map(AlertBody::from),
    ))
}

/// Makes an alert rule.
///
/// All devices that it is for are looked at from now on; `settling` says whether that is done.
#[utoipa::path(
    post, path = "/alerts", tag = "alerts", security(("bearer" = ["alerts:write"])), request_body = NewAlert,
    responses(
        (status = 201, description = "Made", body = AlertBody,
         headers(("Location" = String, description = "Where the rule is"), ("ETag" = String, description = "The version, in quotes"))),
        (status = 409, description = "`alert_exists`: the name is taken; `too_many_alerts`"),
        (status = 413, description = "Larger than 16 KiB"),
        (status = 422, description = "A field is not valid; `errors` says which and why, and where in the condition"),
    )
)]
async fn create(State(app): State<App>, actor: Actor, Payload(body): Payload) -> Result<Response, Problem> {
    made(app.create_alert(&actor, &body).await?)
}

/// Shows an alert rule.
#[utoipa::path(
    get, path = "/alerts/{name}", tag = "alerts", security(("bearer" = ["alerts:read"])),
    params(AlertPath),
    responses(
        (status = 200, description = "The rule", body = AlertBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 404, description = "There is no such rule"),
    )
)]
async fn read(State(app): State<App>, actor: Actor, Path(name): Path<String>) -> Result<Response, Problem> {
    shown(app.alert(&actor, &known(&name)?).await?)
}

/// Makes an alert rule, or replaces what it says.
///
/// With another condition it begins anew: what fires is resolved first.
#[utoipa::path(
    put, path = "/alerts/{name}", tag = "alerts", security(("bearer" = ["alerts:write"])),
    params(AlertPath, IfMatch),
    request_body = AlertDefinition,
    responses(
        (status = 200, description = "The rule as it is now", body = AlertBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 201, description = "Made", body = AlertBody),
        (status = 409, description = "`too_many_alerts`"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 413, description = "Larger than 16 KiB"),
        (status = 422, description = "A field is not valid; `errors` says which and why, and where in the condition"),
    )
)]
async fn put(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    IfMatch(precondition): IfMatch,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    let (rule, is_new) = app
        .put_alert(&actor, &known(&name)?, &body, &precondition)
        .await?;
    if is_new { made(rule) } else { shown(rule) }
}

/// Changes an alert rule.
///
/// The body is a merge patch (RFC 7396); a `scope` takes the place of the one before. `{"enabled":false}` suspends the
/// rule: what fires is resolved.
#[utoipa::path(
    patch, path = "/alerts/{name}", tag = "alerts", security(("bearer" = ["alerts:write"])),
    params(AlertPath, IfMatch),
    request_body(content(
        (AlertDefinition = "application/merge-patch+json", example = json!({"severity": "critical", "resolve_after": null})),
        (AlertDefinition = "application/json"),
    )),
    responses(
        (status = 200, description = "The rule as it is now", body = AlertBody,
         headers(("ETag" = String, description = "The version, in quotes"))),
        (status = 404, description = "There is no such rule"),
        (status = 412, description = "Another version is current: `current_version`"),
        (status = 413, description = "Larger than 16 KiB"),
        (status = 422, description = "A field is not valid; `errors` says which and why, and where in the condition"),
    )
)]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    IfMatch(precondition): IfMatch,
    Payload(body): Payload,
) -> Result<Response, Problem> {
    shown(
        app.patch_alert(&actor, &known(&name)?, &body, &precondition)
            .await?,
    )
}

/// Deletes an alert rule.
///
/// What fires under it is resolved.
#[utoipa::path(
    delete, path = "/alerts/{name}", tag = "alerts", security(("bearer" = ["alerts:write"])),
    params(AlertPath, IfMatch),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such rule"),
        (status = 412, description = "Another version is current: `current_version`"),
    )
)]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, Problem> {
    app.delete_alert(&actor, &known(&name)?, &precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A path's name; there is no rule of any other.
fn known(name: &str) -> Result<AlertName, Error> {
    name.parse().map_err(|_| Error::NotFound { what: "alert" })
}
