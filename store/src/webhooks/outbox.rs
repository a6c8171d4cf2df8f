//! The outbox: taking what is due, and noting what came of it.
//!
//! Whoever takes a delivery has it until a time; then it is due again, wherever that server may be. So it is sent at
//! least once. Of one device and one webhook only the oldest that is pending is ever due, which keeps the order.

use chrono::{DateTime, Utc};
use serde_json::Value;
use setpoint_model::webhook::PING;
use uuid::Uuid;

use super::{Row, Webhook};
use crate::{Result, Store};

/// A delivery that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// Its place.
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
    /// Attempts so far.
    pub attempts: i32,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The delivery.
    pub id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// What was wrong; `None` when it was delivered.
    pub error: Option<String>,
    /// When to try again; `None` never.
    pub again: Option<DateTime<Utc>>,
}

impl Store {
    /// The webhooks that have something due at `now`, or soon.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn webhooks_due(&self, now: DateTime<Utc>) -> Result<Vec<Webhook>> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, name, url, events, serial, group_name, selector, enabled, disabled_reason, header_names,
                    headers_sealed, secret_sealed, previous_sealed, previous_until, version, created_at, updated_at
             FROM webhooks w
             WHERE EXISTS (SELECT FROM webhook_deliveries d
                           WHERE d.webhook_id = w.id AND d.state = 'pending' AND d.next_at <= $1
                             AND (w.enabled OR d.type = $2))",
            now,
            PING,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Webhook::try_from).collect()
    }

    /// Takes up to `limit` of what is due of a webhook, in order, until `until`; of a disabled one pings alone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_deliveries(
        &self,
        webhook: &Webhook,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: i64,
    ) -> Result<Vec<Due>> {
        let mut due = sqlx::query_as!(
            Due,
            "WITH due AS MATERIALIZED (
                 SELECT d.id FROM webhook_deliveries d
                 WHERE d.webhook_id = $1 AND d.state = 'pending' AND d.next_at <= $2 AND ($5 OR d.type = $6)
                   -- The oldest of its device, found by the index alone.
                   AND (d.serial IS NULL OR d.seq = (
                        SELECT e.seq FROM webhook_deliveries e
                        WHERE e.webhook_id = d.webhook_id AND e.serial = d.serial AND e.state = 'pending'
                        ORDER BY e.seq LIMIT 1))
                 ORDER BY d.seq LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED)
             UPDATE webhook_deliveries d SET next_at = $3 FROM due WHERE d.id = due.id
             RETURNING d.seq, d.id, d.type AS kind, d.serial, d.at, d.data, d.attempts",
            webhook.id,
            now,
            until,
            limit,
            webhook.enabled,
            PING,
        )
        .fetch_all(&self.pool)
        .await?;
        due.sort_unstable_by_key(|due| due.seq);
        Ok(due)
    }

    /// When the next delivery is due after `now`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_delivery_due(&self, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
        let next = sqlx::query_scalar!(
            "SELECT min(d.next_at) FROM webhooks w CROSS JOIN LATERAL (
                 SELECT next_at FROM webhook_deliveries
                 WHERE webhook_id = w.id AND state = 'pending' AND next_at > $1 ORDER BY next_at LIMIT 1) d
             WHERE w.enabled",
            now,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(next)
    }

    /// Notes what came of attempts, in one statement. What another server has settled meanwhile stays so.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settle_deliveries(&self, outcomes: &[Outcome]) -> Result<()> {
        let ids: Vec<Uuid> = outcomes.iter().map(|outcome| outcome.id).collect();
        let times: Vec<DateTime<Utc>> = outcomes.iter().map(|outcome| outcome.at).collect();
        let statuses: Vec<Option<i32>> = outcomes
            .iter()
            .map(|outcome| outcome.status.map(i32::from))
            .collect();
        let errors: Vec<Option<&str>> = outcomes.iter().map(|outcome| outcome.error.as_deref()).collect();
        let again: Vec<Option<DateTime<Utc>>> = outcomes.iter().map(|outcome| outcome.again).collect();
        sqlx::query!(
            "UPDATE webhook_deliveries d
             SET state = CASE WHEN o.error IS NULL THEN 'delivered' WHEN o.again IS NULL THEN 'dead' ELSE 'pending' END,
                 attempts = d.attempts + 1, last_at = o.at, last_status = o.status, last_error = o.error,
                 next_at = coalesce(o.again, o.at),
                 ended_at = CASE WHEN o.error IS NULL OR o.again IS NULL THEN o.at END
             FROM unnest($1::uuid[], $2::timestamptz[], $3::integer[], $4::text[], $5::timestamptz[])
                  AS o (id, at, status, error, again)
             WHERE d.id = o.id AND d.state = 'pending'",
            &ids,
            &times,
            &statuses as &[Option<i32>],
            &errors as &[Option<&str>],
            &again as &[Option<DateTime<Utc>>],
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Lets go of what was taken and not tried to the end: it is due at once.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release_deliveries(&self, ids: &[Uuid]) -> Result<()> {
        sqlx::query!(
            r#"WITH released AS (
                   UPDATE webhook_deliveries SET next_at = '-infinity' WHERE id = ANY ($1) AND state = 'pending')
               SELECT webhooks_wake() IS NULL AS "told!""#,
            ids,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(())
    }
}
