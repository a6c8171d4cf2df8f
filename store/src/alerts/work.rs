//! What there is to look at: devices something changed about, states whose time has come, and all devices of a rule, now
//! and then.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::{Postgres, Transaction, types::Json};

use super::{LockedAlerts, Row, Rule, Told, judging};
use crate::{Result, Store};

/// An alert of a device that is gone.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The rule.
    pub rule: Rule,
    /// The device's serial.
    pub serial: String,
    /// The values that were last looked at, by metric.
    pub values: Map<String, Value>,
    /// Since when it fired.
    pub since: DateTime<Utc>,
}

/// Alerts of devices that are gone, each claimed by this alone until it is told or dropped.
#[derive(Debug)]
pub struct EndedAlerts {
    transaction: Transaction<'static, Postgres>,
    /// The alerts.
    pub alerts: Vec<Ended>,
}

impl Store {
    /// Locks these devices, to be judged by all rules.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lock_alerts(&self, devices: Vec<i64>) -> Result<LockedAlerts> {
        LockedAlerts::lock(self.pool.begin().await?, devices, None).await
    }

    /// Claims up to `limit` marks on devices that something changed about; `None` when there are none. Marks on devices
    /// that are busy are made again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_alert_looks(&self, limit: i64) -> Result<Option<LockedAlerts>> {
        let mut transaction = self.pool.begin().await?;
        let devices = sqlx::query_scalar!(
            "DELETE FROM alert_looks WHERE id IN (
                 SELECT id FROM alert_looks ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
             RETURNING device_id",
            limit,
        )
        .fetch_all(&mut *transaction)
        .await?;
        if devices.is_empty() {
            transaction.rollback().await?;
            return Ok(None);
        }
        let mut locked = LockedAlerts::lock(transaction, devices, None).await?;
        locked.mark_busy().await?;
        Ok(Some(locked))
    }

    /// Locks up to `limit` devices with a state whose time has come; `None` when there are none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_due_alerts(&self, now: DateTime<Utc>, limit: i64) -> Result<Option<LockedAlerts>> {
        let mut transaction = self.pool.begin().await?;
        let devices = sqlx::query_scalar!(
            "SELECT device_id FROM alert_states WHERE due_at <= $1 ORDER BY due_at LIMIT $2",
            now,
            limit,
        )
        .fetch_all(&mut *transaction)
        .await?;
        if devices.is_empty() {
            transaction.rollback().await?;
            return Ok(None);
        }
        Ok(Some(LockedAlerts::lock(transaction, devices, None).await?))
    }

    /// When the next state is due; it may be past.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_alert_due(&self) -> Result<Option<DateTime<Utc>>> {
        let due = sqlx::query_scalar!(
            "SELECT least((SELECT min(due_at) FROM alert_states WHERE due_at IS NOT NULL),
                          (SELECT min(sweep_at) FROM alerts))"
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(due)
    }

    /// Locks the next `page` devices of a rule all of whose devices are to be looked at, be it after a change or because
    /// it is `next_sweep`'s time again; `None` when there is no such rule. The row of a deleted rule goes with the last.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_alert_sweep(
        &self,
        now: DateTime<Utc>,
        next_sweep: DateTime<Utc>,
        page: i64,
    ) -> Result<Option<LockedAlerts>> {
        let mut transaction = self.pool.begin().await?;
        let rule = sqlx::query!(
            "SELECT id, sweep_after, model, group_name, serial, enabled, deleted FROM alerts
             WHERE sweep_after IS NOT NULL OR sweep_at <= $1
             ORDER BY sweep_after IS NULL, sweep_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED",
            now,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(rule) = rule else {
            transaction.rollback().await?;
            return Ok(None);
        };
        let devices = sqlx::query_scalar!(
            r#"SELECT device_id AS "device_id!" FROM (
                   (SELECT d.id AS device_id FROM devices d
                    WHERE d.id > $2 AND $7 AND ($3::text IS NULL OR d.model = $3) AND ($4::text IS NULL OR d.serial = $4)
                      AND ($5::text IS NULL OR exists (
                          SELECT FROM group_members m WHERE m.group_name = $5 AND m.device_id = d.id))
                    ORDER BY d.id LIMIT $6)
                   UNION
                   (SELECT s.device_id FROM alert_states s WHERE s.rule_id = $1 AND s.device_id > $2
                    ORDER BY s.device_id LIMIT $6)) devices
               ORDER BY device_id LIMIT $6"#,
            rule.id,
            rule.sweep_after.unwrap_or(0),
            rule.model,
            rule.serial,
            rule.group_name,
            page,
            rule.enabled && !rule.deleted,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let last = devices
            .last()
            .copied()
            .filter(|_| i64::try_from(devices.len()).is_ok_and(|count| count >= page));
        if devices.is_empty() && rule.deleted && forget(&mut transaction, rule.id).await? {
            transaction.commit().await?;
            return Ok(None);
        }
        // A deleted rule is looked at until nothing of it is left.
        let next = if rule.deleted && !devices.is_empty() {
            Some(last.unwrap_or(0))
        } else {
            last
        };
        sqlx::query!(
            "UPDATE alerts SET sweep_after = $2,
                    sweep_at = CASE WHEN $2::bigint IS NULL AND sweep_at <= $4 THEN $3 ELSE sweep_at END
             WHERE id = $1",
            rule.id,
            next,
            next_sweep,
            now,
        )
        .execute(&mut *transaction)
        .await?;
        let mut locked = LockedAlerts::lock(transaction, devices, Some(rule.id)).await?;
        locked.mark_busy().await?;
        Ok(Some(locked))
    }

    /// Has all devices of every rule over samples looked at: some may have been missed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep_alerts(&self) -> Result<()> {
        sqlx::query!("UPDATE alerts SET sweep_after = 0 WHERE kind IN ('metrics', 'silence')")
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Claims up to `limit` alerts of devices that are gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_ended_alerts(&self, limit: i64) -> Result<EndedAlerts> {
        let mut transaction = self.pool.begin().await?;
        let ended = sqlx::query!(
            r#"DELETE FROM alert_ends WHERE id IN (
                   SELECT id FROM alert_ends ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
               RETURNING rule_id, serial, values AS "values: Json<Map<String, Value>>", since"#,
            limit,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let mut alerts = Vec::with_capacity(ended.len());
        for end in ended {
            let rule = sqlx::query_as!(
                Row,
                r#"SELECT id, name, title, condition, model, group_name, serial, severity, enabled, resolve_after, version,
                          era, begun_at, deleted, (sweep_after IS NOT NULL) AS "settling!", created_at, updated_at
                   FROM alerts WHERE id = $1"#,
                end.rule_id,
            )
            .fetch_one(&mut *transaction)
            .await?;
            alerts.push(Ended {
                rule: rule.try_into()?,
                serial: end.serial,
                values: end.values.0,
                since: end.since,
            });
        }
        Ok(EndedAlerts { transaction, alerts })
    }
}

impl EndedAlerts {
    /// Tells of them, and makes it last.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tell(mut self, told: &[Told]) -> Result<()> {
        judging::tell(&mut self.transaction, told).await?;
        self.transaction.commit().await?;
        Ok(())
    }
}

impl LockedAlerts {
    /// Has the devices that are busy looked at later.
    async fn mark_busy(&mut self) -> Result<()> {
        if self.busy.is_empty() {
            return Ok(());
        }
        let busy: Vec<i64> = self.busy.iter().map(|device| device.0).collect();
        sqlx::query!(
            "INSERT INTO alert_looks (device_id) SELECT unnest($1::bigint[])",
            &busy
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }
}

/// Removes the row of a deleted rule once nothing of it is left; whether it did.
async fn forget(transaction: &mut Transaction<'static, Postgres>, rule: i64) -> Result<bool> {
    // Whoever judges by the rule holds its row, and may be about to write a state.
    sqlx::query!("SELECT id FROM alerts WHERE id = $1 FOR UPDATE", rule)
        .fetch_optional(&mut **transaction)
        .await?;
    let gone = sqlx::query!(
        "DELETE FROM alerts a WHERE a.id = $1 AND NOT exists (SELECT FROM alert_states s WHERE s.rule_id = a.id)
         AND NOT exists (SELECT FROM alert_ends e WHERE e.rule_id = a.id)",
        rule,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(gone.rows_affected() > 0)
}
