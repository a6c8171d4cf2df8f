//! Webhooks: reading them; making, changing and deleting them is in [`change`]. What they are to be told is in [`outbox`], what became of it
//! in [`deliveries`]; events come in by triggers (`migrations/0115_webhooks.sql`).

mod change;
mod deliveries;
mod keeping;
mod outbox;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use setpoint_model::{
    event::EventType,
    webhook::{Devices, Endpoint, WebhookName},
};
use uuid::Uuid;

use crate::{Result, Store, settings::parse};

pub use change::{Made, NewWebhook};
pub use deliveries::{Delivery, DeliveryState, Replay};
pub use keeping::{Backlog, Keep, Removed};
pub use outbox::{Due, Outcome};

/// A webhook as it is stored: nothing in it can be read without the server's key but what anybody may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its id, which no other webhook of the same name ever has.
    pub id: Uuid,
    /// Its name.
    pub name: WebhookName,
    /// Where events go.
    pub url: Endpoint,
    /// The types that it hears.
    pub events: Vec<EventType>,
    /// Of which devices.
    pub devices: Devices,
    /// Whether it hears anything.
    pub enabled: bool,
    /// Why it was disabled by itself.
    pub disabled_reason: Option<String>,
    /// The names of further headers.
    pub header_names: Vec<String>,
    /// These headers, sealed.
    pub headers: Option<Vec<u8>>,
    /// The secret that signs, sealed.
    pub secret: Vec<u8>,
    /// The one before, sealed, and until when it signs too.
    pub previous: Option<(Vec<u8>, DateTime<Utc>)>,
    /// Rises with each change.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// How much a webhook has waiting, and given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Not delivered yet.
    pub pending: i64,
    /// Given up.
    pub dead: i64,
}

pub(super) struct Row {
    id: Uuid,
    name: String,
    url: String,
    events: Vec<String>,
    serial: Option<String>,
    group_name: Option<String>,
    selector: Option<String>,
    enabled: bool,
    disabled_reason: Option<String>,
    header_names: Vec<String>,
    headers_sealed: Option<Vec<u8>>,
    secret_sealed: Vec<u8>,
    previous_sealed: Option<Vec<u8>>,
    previous_until: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Webhook {
    type Error = crate::Error;

    fn try_from(row: Row) -> Result<Self> {
        let devices = match (row.serial, row.group_name, row.selector) {
            (Some(serial), _, _) => Devices::Serial(parse(&serial)?),
            (_, Some(group), _) => Devices::Group(parse(&group)?),
            (_, _, Some(selector)) => Devices::Selector(parse(&selector)?),
            _ => Devices::All,
        };
        let url = Endpoint::parse(&row.url, usize::MAX)
            .map_err(|error| crate::Error::Query(sqlx::Error::Decode(error.into())))?;
        Ok(Self {
            id: row.id,
            name: parse(&row.name)?,
            url,
            // A type that an older server doesn't know is passed over there.
            events: row.events.iter().filter_map(|kind| kind.parse().ok()).collect(),
            devices,
            enabled: row.enabled,
            disabled_reason: row.disabled_reason,
            header_names: row.header_names,
            headers: row.headers_sealed,
            secret: row.secret_sealed,
            previous: row.previous_sealed.zip(row.previous_until),
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl Store {
    /// A page of webhooks by name: those behind `after`, all if it is empty.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn webhooks(&self, after: &str, limit: i64) -> Result<Vec<Webhook>> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, name, url, events, serial, group_name, selector, enabled, disabled_reason, header_names,
                    headers_sealed, secret_sealed, previous_sealed, previous_until, version, created_at, updated_at
             FROM webhooks WHERE name > $1 ORDER BY name LIMIT $2",
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Webhook::try_from).collect()
    }

    /// The webhook of this name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn webhook(&self, name: &WebhookName) -> Result<Option<Webhook>> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, name, url, events, serial, group_name, selector, enabled, disabled_reason, header_names,
                    headers_sealed, secret_sealed, previous_sealed, previous_until, version, created_at, updated_at
             FROM webhooks WHERE name = $1",
            name.as_str(),
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(Webhook::try_from).transpose()
    }
}
