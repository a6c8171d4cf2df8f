//! Changes of rules, one at a time.

use chrono::{DateTime, Utc};
use setpoint_model::alert::{Definition, Scope};

use super::{NewEntry, Postgres, Row, Rule, Transaction, audit};
use crate::{Result, Store};

/// The advisory lock on changes of rules.
const RULES: i64 = 0x5e79_0149;

/// A change of a rule, held against other changes until it is committed or dropped.
#[derive(Debug)]
pub struct RuleChange {
    transaction: Transaction<'static, Postgres>,
}

impl Store {
    /// Begins a change. Waits for others.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn change_alert_rules(&self) -> Result<RuleChange> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("SELECT pg_advisory_xact_lock($1)", RULES)
            .execute(&mut *transaction)
            .await?;
        Ok(RuleChange { transaction })
    }
}

impl RuleChange {
    /// The rule of this name, as it is now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rule(&mut self, name: &str) -> Result<Option<Rule>> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT id, name, title, condition, model, group_name, serial, severity, enabled, resolve_after, version,
                      era, begun_at, deleted, (sweep_after IS NOT NULL) AS "settling!", created_at, updated_at
               FROM alerts WHERE NOT deleted AND name = $1"#,
            name,
        )
        .fetch_optional(&mut *self.transaction)
        .await?;
        row.map(Rule::try_from).transpose()
    }

    /// How many rules there are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count(&mut self) -> Result<i64> {
        let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM alerts WHERE NOT deleted"#)
            .fetch_one(&mut *self.transaction)
            .await?;
        Ok(count)
    }

    /// Whether there is what a scope names.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn knows(&mut self, scope: &Scope) -> Result<bool> {
        let (model, group, serial) = columns(scope);
        let known = sqlx::query_scalar!(
            r#"SELECT CASE WHEN $1::text IS NOT NULL THEN exists (SELECT FROM models WHERE name = $1)
                           WHEN $2::text IS NOT NULL
                               THEN exists (SELECT FROM groups WHERE name = $2 AND NOT deleted)
                           WHEN $3::text IS NOT NULL THEN exists (SELECT FROM devices WHERE serial = $3)
                           ELSE true END AS "known!""#,
            model,
            group,
            serial,
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        Ok(known)
    }

    /// Makes a rule. All its devices are looked at from now on, and once more soon after: samples may have been on their way
    /// that no server was watching for yet.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create(&mut self, name: &str, rule: &Definition, at: DateTime<Utc>) -> Result<()> {
        let (model, group, serial) = columns(&rule.scope);
        sqlx::query!(
            "INSERT INTO alerts (name, title, condition, kind, model, group_name, serial, severity, enabled, resolve_after,
                                 begun_at, sweep_at, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11::timestamptz + interval '10s', $11, $11)",
            name,
            rule.title,
            rule.condition.to_string(),
            rule.condition.kind(),
            model,
            group,
            serial,
            rule.severity.as_str(),
            rule.enabled,
            seconds(rule),
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        self.tell().await
    }

    /// Writes what a rule says from now on. With another condition, or when it is enabled again, it begins anew.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write(&mut self, before: &Rule, rule: &Definition, at: DateTime<Utc>) -> Result<()> {
        let (model, group, serial) = columns(&rule.scope);
        let old = &before.definition;
        let begins = old.condition != rule.condition || (rule.enabled && !old.enabled);
        sqlx::query!(
            "UPDATE alerts SET title = $2, condition = $3, kind = $4, model = $5, group_name = $6, serial = $7,
                    severity = $8, enabled = $9, resolve_after = $10, version = nextval('alert_versions'),
                    era = CASE WHEN $11 THEN currval('alert_versions') ELSE era END,
                    begun_at = CASE WHEN $11 THEN $12 ELSE begun_at END,
                    sweep_after = 0, sweep_at = $12::timestamptz + interval '10s', updated_at = $12
             WHERE id = $1",
            before.id,
            rule.title,
            rule.condition.to_string(),
            rule.condition.kind(),
            model,
            group,
            serial,
            rule.severity.as_str(),
            rule.enabled,
            seconds(rule),
            begins,
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        self.tell().await
    }

    /// Deletes a rule. Its alerts are resolved from now on; then its row goes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete(&mut self, rule: &Rule, at: DateTime<Utc>) -> Result<()> {
        sqlx::query!(
            "UPDATE alerts SET deleted = true, version = nextval('alert_versions'), sweep_after = 0, updated_at = $2
             WHERE id = $1",
            rule.id,
            at,
        )
        .execute(&mut *self.transaction)
        .await?;
        self.tell().await
    }

    async fn tell(&mut self) -> Result<()> {
        sqlx::query!(r#"SELECT tell_servers('alerts', '') IS NULL AS "done!""#)
            .fetch_one(&mut *self.transaction)
            .await?;
        Ok(())
    }

    /// Adds an entry that stands and falls with the change.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&mut self, entry: &NewEntry) -> Result<()> {
        audit::write(&mut self.transaction, entry).await
    }

    /// Lets go without a change.
    ///
    /// # Errors
    /// When the database fails; nothing was changed then either.
    pub async fn release(self) -> Result<()> {
        self.transaction.rollback().await?;
        Ok(())
    }

    /// Makes the change last.
    ///
    /// # Errors
    /// When the database fails; then nothing was changed, unless the answer alone was lost.
    pub async fn commit(self) -> Result<()> {
        self.transaction.commit().await?;
        Ok(())
    }
}

/// The columns of a scope: model, group, serial.
pub(super) fn columns(scope: &Scope) -> (Option<&str>, Option<&str>, Option<&str>) {
    match scope {
        Scope::All => (None, None, None),
        Scope::Model(name) => (Some(name.as_str()), None, None),
        Scope::Group(name) => (None, Some(name.as_str()), None),
        Scope::Serial(serial) => (None, None, Some(serial.as_str())),
    }
}

fn seconds(rule: &Definition) -> Option<i32> {
    rule.resolve_after
        .and_then(|span| i32::try_from(span.seconds()).ok())
}
