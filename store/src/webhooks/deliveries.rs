//! What became of events on their way to a webhook.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde_json::Value;
use setpoint_model::webhook::PING;
use uuid::Uuid;

use super::Counts;
use crate::{Result, Store};

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// Waiting for its first attempt, or for another one.
    Pending,
    /// The receiver took it.
    Delivered,
    /// Given up after the last attempt.
    Dead,
}

impl DeliveryState {
    /// Every state there is.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    /// Its name in the database, in queries and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a state of a delivery")]
pub struct UnknownState;

impl FromStr for DeliveryState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let mut all = Self::ALL.into_iter();
        all.find(|state| state.as_str() == text).ok_or(UnknownState)
    }
}

/// An event on its way to one webhook.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its place among the events of its webhook.
    pub seq: i64,
    /// What the receiver knows it by.
    pub id: Uuid,
    /// The type of event.
    pub kind: String,
    /// The device; `None` for a ping.
    pub serial: Option<String>,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// The facts.
    pub data: Value,
    /// Where it stands.
    pub state: String,
    /// Attempts so far.
    pub attempts: i32,
    /// Not before then, while it is pending; `None` for at once.
    pub next_at: Option<DateTime<Utc>>,
    /// The last attempt.
    pub last_at: Option<DateTime<Utc>>,
    /// The status of the last answer.
    pub last_status: Option<i32>,
    /// What was wrong with the last attempt.
    pub last_error: Option<String>,
    /// When it was delivered, or given up.
    pub ended_at: Option<DateTime<Utc>>,
}

/// What to send again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replay {
    /// What stands so; what ended in either way without it.
    pub state: Option<DeliveryState>,
    /// What happened then or later.
    pub from: Option<DateTime<Utc>>,
    /// What happened before then.
    pub to: Option<DateTime<Utc>>,
}

impl Store {
    /// A page of what was, or is to be, delivered to a webhook, newest first: what stands before `before`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn webhook_deliveries(
        &self,
        webhook: Uuid,
        state: Option<DeliveryState>,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Delivery>> {
        let deliveries = sqlx::query_as!(
            Delivery,
            r#"SELECT seq, id, type AS kind, serial, at, data, state, attempts,
                      CASE WHEN isfinite(next_at) THEN next_at END AS next_at, last_at, last_status, last_error, ended_at
               FROM webhook_deliveries
               WHERE webhook_id = $1 AND state = ANY ($2) AND seq < coalesce($3::bigint, 9223372036854775807)
               ORDER BY seq DESC LIMIT $4"#,
            webhook,
            &states(state, &DeliveryState::ALL) as &[&str],
            before,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(deliveries)
    }

    /// One delivery of a webhook.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn webhook_delivery(&self, webhook: Uuid, id: Uuid) -> Result<Option<Delivery>> {
        let delivery = sqlx::query_as!(
            Delivery,
            r#"SELECT seq, id, type AS kind, serial, at, data, state, attempts,
                      CASE WHEN isfinite(next_at) THEN next_at END AS next_at, last_at, last_status, last_error, ended_at
               FROM webhook_deliveries WHERE webhook_id = $1 AND id = $2"#,
            webhook,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(delivery)
    }

    /// How much of these webhooks waits, and was given up: in their order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn webhook_counts(&self, webhooks: &[Uuid]) -> Result<Vec<Counts>> {
        let counts = sqlx::query_as!(
            Counts,
            r#"SELECT (SELECT count(*) FROM webhook_deliveries d WHERE d.webhook_id = w.id AND d.state = 'pending')
                          AS "pending!",
                      (SELECT count(*) FROM webhook_deliveries d WHERE d.webhook_id = w.id AND d.state = 'dead')
                          AS "dead!"
               FROM unnest($1::uuid[]) WITH ORDINALITY AS w (id, place) ORDER BY w.place"#,
            webhooks,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(counts)
    }

    /// Has a webhook pinged.
    ///
    /// # Errors
    /// When the database fails; with [`crate::Error::Reference`] when it is gone.
    pub async fn ping_webhook(&self, webhook: Uuid, id: Uuid, data: &Value, at: DateTime<Utc>) -> Result<()> {
        sqlx::query!(
            r#"WITH ping AS (INSERT INTO webhook_deliveries (webhook_id, id, type, at, data) VALUES ($1, $2, $3, $4, $5))
               SELECT webhooks_wake() IS NULL AS "told!""#,
            webhook,
            id,
            PING,
            at,
            data,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(())
    }

    /// Has something that ended sent again, with attempts counted anew; `false` if it is not there, or pending.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replay_delivery(&self, webhook: Uuid, id: Uuid) -> Result<bool> {
        let replayed = sqlx::query!(
            r#"WITH replayed AS (
                   UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_at = '-infinity', ended_at = NULL
                   WHERE webhook_id = $1 AND id = $2 AND state <> 'pending' RETURNING seq)
               SELECT count(*) AS "count!", webhooks_wake() IS NULL AS "told!" FROM replayed"#,
            webhook,
            id,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(replayed.count > 0)
    }

    /// Has all of it sent again, with attempts counted anew. Returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replay_deliveries(&self, webhook: Uuid, replay: Replay) -> Result<i64> {
        let ended = [DeliveryState::Delivered, DeliveryState::Dead];
        let replayed = sqlx::query!(
            r#"WITH replayed AS (
                   UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_at = '-infinity', ended_at = NULL
                   WHERE webhook_id = $1 AND state = ANY ($2) AND type <> $5
                     AND at >= coalesce($3::timestamptz, '-infinity') AND at < coalesce($4::timestamptz, 'infinity')
                   RETURNING seq)
               SELECT count(*) AS "count!", webhooks_wake() IS NULL AS "told!" FROM replayed"#,
            webhook,
            &states(replay.state, &ended) as &[&str],
            replay.from,
            replay.to,
            PING,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(replayed.count)
    }
}

fn states(one: Option<DeliveryState>, all: &[DeliveryState]) -> Vec<&'static str> {
    match one {
        Some(state) => vec![state.as_str()],
        None => all.iter().map(|state| state.as_str()).collect(),
    }
}
