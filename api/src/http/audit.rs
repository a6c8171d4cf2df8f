//! `/audit`.

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_store::audit::{AuditFilter, Entry};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Context, Json, Page, Problem, Query};
use crate::app::{Actor, App, Error};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(list))
}

/// An entry of the audit log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AuditEntry)]
struct Item {
    /// Rises with each entry.
    id: i64,
    /// When.
    at: DateTime<Utc>,
    /// Who: `user:anna`, `token:ci`, `device:HOME-1`, `system:terminal`.
    #[schema(example = "user:anna")]
    actor: String,
    /// What.
    #[schema(example = "device.unregister")]
    action: String,
    /// To what; empty for the server as a whole.
    #[schema(example = "device:HOME-1")]
    object: String,
    /// From which address.
    address: Option<String>,
    /// `done` or `refused`.
    #[schema(example = "done")]
    outcome: String,
    /// How it was.
    before: Option<Value>,
    /// How it is since.
    after: Option<Value>,
}

impl From<Entry> for Item {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id,
            at: entry.at,
            actor: entry.actor,
            action: entry.action,
            object: entry.object,
            address: entry.address,
            outcome: entry.outcome,
            before: entry.before,
            after: entry.after,
        }
    }
}

/// Which entries to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    /// Exactly this actor.
    #[param(example = "user:anna")]
    actor: Option<String>,
    /// Exactly this action.
    #[param(example = "session.begin")]
    action: Option<String>,
    /// Exactly this object.
    #[param(example = "device:HOME-1")]
    object: Option<String>,
    /// From this address.
    address: Option<String>,
    /// `done` or `refused`.
    outcome: Option<String>,
    /// Not earlier.
    from: Option<DateTime<Utc>>,
    /// Earlier.
    to: Option<DateTime<Utc>>,
    /// `json` (the default), or a page to keep: `csv` or `ndjson`. Its `Link` header names the next one.
    format: Option<String>,
    /// How many items at most: 1 to 1000, 100 by default.
    limit: Option<i64>,
    /// Where to go on: the `next` of the page before.
    cursor: Option<i64>,
}

/// Lists who did what, newest first.
#[utoipa::path(
    get, path = "/audit", tag = "people", security(("bearer" = ["audit:read"])), params(AuditQuery),
    responses(
        (status = 200, description = "A page of the audit log", body = Page<Item>),
        (status = 422, description = "A parameter is not valid"),
    )
)]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<AuditQuery>,
) -> Result<Response, Problem> {
    let limit = super::page::limit(query.limit)?;
    let texts = [
        ("actor", &query.actor),
        ("action", &query.action),
        ("object", &query.object),
        ("address", &query.address),
        ("outcome", &query.outcome),
    ];
    for (name, text) in texts {
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(Error::invalid(name, "may not contain the character U+0000").into());
        }
    }
    let filter = AuditFilter {
        actor: query.actor,
        action: query.action,
        object: query.object,
        address: query.address,
        outcome: query.outcome,
        from: query.from,
        to: query.to,
    };
    let entries = app.audit_log(&actor, &filter, query.cursor, limit + 1).await?;
    let page = Page::of(entries, limit, |last| last.id.to_string()).map(Item::from);
    let (kind, text) = match query.format.as_deref() {
        None | Some("json") => return Ok(Json(page).into_response()),
        Some("ndjson") => ("application/x-ndjson", ndjson(&page.items)?),
        Some("csv") => ("text/csv; charset=utf-8; header=present", csv(&page.items)),
        Some(_) => return Err(Error::invalid("format", "json, ndjson or csv").into()),
    };
    let mut response = ([(header::CONTENT_TYPE, kind)], text).into_response();
    if let Some(next) = page.next {
        let link =
            HeaderValue::from_str(&format!("<?cursor={next}>; rel=\"next\"")).map_err(Error::internal)?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

fn ndjson(items: &[Item]) -> Result<String, Error> {
    let mut text = String::new();
    for item in items {
        text.push_str(&serde_json::to_string(item).map_err(Error::internal)?);
        text.push('\n');
    }
    Ok(text)
}

/// RFC 4180.
fn csv(items: &[Item]) -> String {
    let mut text = "id,at,actor,action,object,address,outcome,before,after\r\n".to_owned();
    for item in items {
        let json = |value: &Option<Value>| value.as_ref().map(Value::to_string).unwrap_or_default();
        let fields = [
            item.id.to_string(),
            item.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
            item.actor.clone(),
            item.action.clone(),
            item.object.clone(),
            item.address.clone().unwrap_or_default(),
            item.outcome.clone(),
            json(&item.before),
            json(&item.after),
        ];
        let quoted: Vec<String> = fields.iter().map(|field| quoted(field)).collect();
        text.push_str(&quoted.join(","));
        text.push_str("\r\n");
    }
    text
}

/// A field in quotes, and never a formula to the spreadsheet that opens it.
fn quoted(field: &str) -> String {
    let formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let guard = if formula { "'" } else { "" };
    format!("\"{guard}{}\"", field.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_field_is_neither_broken_nor_run() {
        assert_eq!(quoted("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
        assert_eq!(quoted("=1+1"), "\"'=1+1\"");
    }
}
