//! How much of the outbox is kept, and for how long.

use chrono::{DateTime, Utc};

use crate::{Result, Store};

/// How much of each webhook is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The most that may wait.
    pub waiting: i64,
    /// The most of what was delivered, and of what was given up.
    pub ended: i64,
    /// What was delivered before then goes.
    pub delivered_from: DateTime<Utc>,
    /// What was given up, or still waits, from before then goes.
    pub dead_from: DateTime<Utc>,
}

/// What made room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Given up because too many waited.
    pub given_up: u64,
    /// Removed without ever having been delivered.
    pub undelivered: u64,
    /// Removed after it was delivered.
    pub delivered: u64,
}

/// What waits in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// How many deliveries of webhooks that are enabled.
    pub waiting: i64,
    /// When the oldest of them happened.
    pub oldest: Option<DateTime<Utc>>,
}

impl Store {
    /// What waits to be delivered.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn webhook_backlog(&self) -> Result<Backlog> {
        let backlog = sqlx::query_as!(
            Backlog,
            r#"SELECT count(*) AS "waiting!", min(d.at) AS oldest
               FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id
               WHERE d.state = 'pending' AND w.enabled"#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(backlog)
    }

    /// Gives up what is too much, the oldest first, and removes what has been kept for long enough: at most `step` of each
    /// webhook and kind in one call, so that it is called until nothing is left to do.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_deliveries(&self, keep: &Keep, now: DateTime<Utc>, step: i64) -> Result<Removed> {
        let given_up = sqlx::query!(
            "UPDATE webhook_deliveries d
             SET state = 'dead', ended_at = $3, last_error = 'too many were waiting: webhooks.max_waiting'
             WHERE d.id = ANY (ARRAY(
                 SELECT x.id FROM webhooks w
                      CROSS JOIN LATERAL (SELECT count(*) - $1 AS excess FROM webhook_deliveries
                                          WHERE webhook_id = w.id AND state = 'pending') e
                      CROSS JOIN LATERAL (SELECT id FROM webhook_deliveries
                                          WHERE webhook_id = w.id AND state = 'pending'
                                          ORDER BY seq LIMIT least(greatest(e.excess, 0), $2)) x))
               AND d.state = 'pending'",
            keep.waiting,
            step,
            now,
        )
        .execute(&self.pool)
        .await?;
        let undelivered = sqlx::query!(
            "DELETE FROM webhook_deliveries d
             WHERE d.id = ANY (ARRAY(
                 SELECT x.id FROM webhooks w
                      CROSS JOIN LATERAL (SELECT count(*) - $1 AS excess FROM webhook_deliveries
                                          WHERE webhook_id = w.id AND state = 'dead') e
                      CROSS JOIN LATERAL (
                          (SELECT id FROM webhook_deliveries WHERE webhook_id = w.id AND state = 'dead'
                           ORDER BY seq LIMIT least(greatest(e.excess, 0), $2))
                          UNION
                          (SELECT id FROM webhook_deliveries
                           WHERE webhook_id = w.id AND state IN ('dead', 'pending') AND at < $3 LIMIT $2)) x))",
            keep.ended,
            step,
            keep.dead_from,
        )
        .execute(&self.pool)
        .await?;
        let delivered = sqlx::query!(
            "DELETE FROM webhook_deliveries d
             WHERE d.id = ANY (ARRAY(
                 SELECT x.id FROM webhooks w
                      CROSS JOIN LATERAL (SELECT count(*) - $1 AS excess FROM webhook_deliveries
                                          WHERE webhook_id = w.id AND state = 'delivered') e
                      CROSS JOIN LATERAL (
                          (SELECT id FROM webhook_deliveries WHERE webhook_id = w.id AND state = 'delivered'
                           ORDER BY seq LIMIT least(greatest(e.excess, 0), $2))
                          UNION
                          (SELECT id FROM webhook_deliveries
                           WHERE webhook_id = w.id AND state = 'delivered' AND ended_at < $3 LIMIT $2)) x))",
            keep.ended,
            step,
            keep.delivered_from,
        )
        .execute(&self.pool)
        .await?;
        Ok(Removed {
            given_up: given_up.rows_affected(),
            undelivered: undelivered.rows_affected(),
            delivered: delivered.rows_affected(),
        })
    }
}
