//! Judging devices: what is known of them, where they stood, and where they stand from now on.
//!
//! Locks are taken in this order: what says that there is something to look at, the devices (an advisory lock each, so
//! that one server at a time judges a device and no settings wait for it), rules, states. None of them is waited for.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use setpoint_model::{
    DeviceId, Serial,
    alert::{Standing, Transition},
    timeline::Facts,
};
use sqlx::{PgConnection, Postgres, Transaction, types::Json};

use super::{Row, Rule, states::StandingRow};
use crate::{Result, settings::parse};

/// Advisory locks of devices: this, and the device's id.
const DEVICES: i64 = 0x5e79 << 48;

/// Devices held against other servers' judgement until it is committed or dropped.
#[derive(Debug)]
pub struct LockedAlerts {
    pub(super) transaction: Transaction<'static, Postgres>,
    /// What is known of those that exist.
    pub devices: Vec<DeviceFacts>,
    /// Devices that another server is at work on, or that are being deleted.
    pub busy: Vec<DeviceId>,
    /// The only rule to be judged; `None` for all.
    pub only: Option<i64>,
}

/// What is known of a device, beside its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceFacts {
    /// The device.
    pub id: DeviceId,
    /// Its serial.
    pub serial: Serial,
    /// Its model.
    pub model: String,
    /// The groups that it belongs to.
    pub groups: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Whether it is connected.
    pub online: bool,
    /// Since when it is, or is not; `None` if it never was.
    pub presence_since: Option<DateTime<Utc>>,
    /// Since when the setting that waits longest waits for its answer.
    pub pending_since: Option<DateTime<Utc>>,
    /// When it last acknowledged settings.
    pub reported_at: Option<DateTime<Utc>>,
}

/// Where a device stood towards a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredState {
    /// The rule.
    pub rule_id: i64,
    /// The device.
    pub device_id: DeviceId,
    /// The rule's era in which this began.
    pub era: i64,
    /// Where it stood.
    pub standing: Standing,
    /// The values that were looked at, by metric.
    pub values: Map<String, Value>,
    /// When it was to be looked at again.
    pub due_at: Option<DateTime<Utc>>,
}

/// Where a device stands from now on; as [`StoredState`].
pub type NewState = StoredState;

/// What is told of a device: an alert fired or is resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The device.
    pub device_id: DeviceId,
    /// Its serial.
    pub serial: Serial,
    /// What happened, and when.
    pub transition: Transition,
    /// For its timeline.
    pub facts: Facts,
    /// For those who listen.
    pub event: Value,
}

impl LockedAlerts {
    /// Locks those of `devices` that nobody else is at work on.
    pub(super) async fn lock(
        mut transaction: Transaction<'static, Postgres>,
        mut devices: Vec<i64>,
        only: Option<i64>,
    ) -> Result<Self> {
        devices.sort_unstable();
        devices.dedup();
        let locked: Vec<i64> = sqlx::query_scalar!(
            r#"SELECT u.id AS "id!" FROM unnest($1::bigint[]) AS u (id) WHERE pg_try_advisory_xact_lock($2 | u.id)"#,
            &devices,
            DEVICES,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let facts = facts(&mut transaction, &locked).await?;
        let gone: Vec<i64> = sqlx::query_scalar!(
            r#"SELECT u.id AS "id!" FROM unnest($1::bigint[]) AS u (id)
               WHERE NOT exists (SELECT FROM devices d WHERE d.id = u.id)"#,
            &devices,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let there = |id: &i64| facts.iter().any(|device| device.id.0 == *id);
        let busy = devices
            .into_iter()
            .filter(|id| !there(id) && !gone.contains(id))
            .map(DeviceId)
            .collect();
        Ok(Self {
            transaction,
            devices: facts,
            busy,
            only,
        })
    }

    /// The rules to be judged, deleted and disabled ones too: what fired under them is resolved.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rules(&mut self) -> Result<Vec<Rule>> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, name, title, condition, model, group_name, serial, severity, enabled, resolve_after, version,
                      era, begun_at, deleted, (sweep_after IS NOT NULL) AS "settling!", created_at, updated_at
               FROM alerts WHERE $1::bigint IS NULL OR id = $1 ORDER BY id FOR KEY SHARE"#,
            self.only,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        rows.into_iter().map(Rule::try_from).collect()
    }

    /// Where the devices stand.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn states(&mut self) -> Result<Vec<StoredState>> {
        let ids: Vec<i64> = self.devices.iter().map(|device| device.id.0).collect();
        let rows = sqlx::query!(
            r#"SELECT rule_id, device_id, era, state, since, true_since, false_since, observed_at,
                      values AS "values: Json<Map<String, Value>>", due_at
               FROM alert_states WHERE device_id = ANY($1) AND ($2::bigint IS NULL OR rule_id = $2)"#,
            &ids,
            self.only,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        let mut states = Vec::with_capacity(rows.len());
        for row in rows {
            let standing = StandingRow {
                state: Some(row.state),
                since: Some(row.since),
                true_since: row.true_since,
                false_since: row.false_since,
                observed_at: row.observed_at,
            };
            if let Some(standing) = standing.standing()? {
                states.push(StoredState {
                    rule_id: row.rule_id,
                    device_id: DeviceId(row.device_id),
                    era: row.era,
                    standing,
                    values: row.values.0,
                    due_at: row.due_at,
                });
            }
        }
        Ok(states)
    }

    /// Writes where devices stand from now on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write(&mut self, states: &[NewState]) -> Result<()> {
        if states.is_empty() {
            return Ok(());
        }
        let rules: Vec<i64> = states.iter().map(|state| state.rule_id).collect();
        let devices: Vec<i64> = states.iter().map(|state| state.device_id.0).collect();
        let eras: Vec<i64> = states.iter().map(|state| state.era).collect();
        let names: Vec<&str> = states.iter().map(|state| state.standing.state.as_str()).collect();
        let since: Vec<DateTime<Utc>> = states.iter().map(|state| state.standing.since).collect();
        let true_since: Vec<_> = states.iter().map(|state| state.standing.true_since).collect();
        let false_since: Vec<_> = states.iter().map(|state| state.standing.false_since).collect();
        let observed: Vec<_> = states.iter().map(|state| state.standing.observed_at).collect();
        let values: Vec<Json<&Map<String, Value>>> = states.iter().map(|state| Json(&state.values)).collect();
        let due: Vec<_> = states.iter().map(|state| state.due_at).collect();
        sqlx::query!(
            "INSERT INTO alert_states (rule_id, device_id, era, state, since, true_since, false_since, observed_at, values,
                                       due_at)
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::timestamptz[],
                                  $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::jsonb[],
                                  $10::timestamptz[])
             ON CONFLICT (rule_id, device_id) DO UPDATE
             SET era = excluded.era, state = excluded.state, since = excluded.since, true_since = excluded.true_since,
                 false_since = excluded.false_since, observed_at = excluded.observed_at, values = excluded.values,
                 due_at = excluded.due_at",
            &rules,
            &devices,
            &eras,
            &names as &[&str],
            &since,
            &true_since as &[Option<DateTime<Utc>>],
            &false_since as &[Option<DateTime<Utc>>],
            &observed as &[Option<DateTime<Utc>>],
            &values as &[Json<&Map<String, Value>>],
            &due as &[Option<DateTime<Utc>>],
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Removes the states of pairs (rule, device) to which nothing happens.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove(&mut self, pairs: &[(i64, DeviceId)]) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let rules: Vec<i64> = pairs.iter().map(|(rule, _)| *rule).collect();
        let devices: Vec<i64> = pairs.iter().map(|(_, device)| device.0).collect();
        sqlx::query!(
            "DELETE FROM alert_states s USING unnest($1::bigint[], $2::bigint[]) AS p (rule_id, device_id)
             WHERE s.rule_id = p.rule_id AND s.device_id = p.device_id",
            &rules,
            &devices,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Tells what happened: in the devices' timelines, and to whoever is to be told reliably. It stands and falls with the
    /// states.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tell(&mut self, told: &[Told]) -> Result<()> {
        tell(&mut self.transaction, told).await
    }

    /// Tells other servers that these devices are judged anew, so that they forget what they believed of them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tell_servers(&mut self, devices: &[DeviceId]) -> Result<()> {
        for step in devices.chunks(400) {
            let ids: Vec<String> = step.iter().map(|device| device.0.to_string()).collect();
            sqlx::query!(
                r#"SELECT tell_servers('judged', $1) IS NULL AS "done!""#,
                ids.join(",")
            )
            .fetch_one(&mut *self.transaction)
            .await?;
        }
        Ok(())
    }

    /// Makes it last.
    ///
    /// # Errors
    /// When the database fails; then nothing was changed, unless the answer alone was lost.
    pub async fn commit(self) -> Result<()> {
        self.transaction.commit().await?;
        Ok(())
    }
}

/// Writes entries of timelines, tells other servers for those who listen there, and hands on what webhooks want.
pub(super) async fn tell(connection: &mut PgConnection, told: &[Told]) -> Result<()> {
    if told.is_empty() {
        return Ok(());
    }
    let devices: Vec<i64> = told.iter().map(|told| told.device_id.0).collect();
    let times: Vec<DateTime<Utc>> = told.iter().map(|told| told.transition.at).collect();
    let kinds: Vec<&str> = told.iter().map(|told| told.facts.kind().as_str()).collect();
    let data: Vec<Value> = told.iter().map(|told| told.facts.to_json()).collect();
    // The device of an alert that ended with it has no timeline any more.
    sqlx::query!(
        "INSERT INTO device_events (device_id, at, kind, data)
         SELECT e.device_id, e.at, e.kind, e.data
         FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::jsonb[]) AS e (device_id, at, kind, data)
         WHERE exists (SELECT FROM devices d WHERE d.id = e.device_id)",
        &devices,
        &times,
        &kinds as &[&str],
        &data,
    )
    .execute(&mut *connection)
    .await?;
    // What is too long for a notification (8,000 bytes) is told by this server alone.
    let events: Vec<String> = told
        .iter()
        .map(|told| {
            format!(
                "{} {} {}",
                told.serial,
                told.transition.at.to_rfc3339(),
                told.event
            )
        })
        .collect();
    sqlx::query!(
        r#"SELECT count(tell_servers('alert', event)) AS "told!" FROM unnest($1::text[]) AS event
           WHERE octet_length(event) < 7900"#,
        &events,
    )
    .fetch_one(&mut *connection)
    .await?;
    Ok(())
}

/// What is known of these devices. None that is being deleted is waited for.
async fn facts(connection: &mut PgConnection, devices: &[i64]) -> Result<Vec<DeviceFacts>> {
    let rows = sqlx::query!(
        r#"SELECT d.id, d.serial, d.model, d.created_at, p.online AS "online?", p.since AS "since?",
                  s.reported_at AS "reported_at?",
                  ARRAY(SELECT m.group_name FROM group_members m JOIN groups g ON g.name = m.group_name
                        WHERE m.device_id = d.id AND NOT g.deleted) AS "groups!",
                  (SELECT min((k.value ->> 'since')::timestamptz) FROM jsonb_each(s.status) k
                   WHERE k.value ->> 'state' = 'pending') AS pending_since
           FROM devices d LEFT JOIN device_presence p ON p.device_id = d.id
           LEFT JOIN device_settings s ON s.device_id = d.id
           WHERE d.id = ANY($1) ORDER BY d.id FOR KEY SHARE OF d SKIP LOCKED"#,
        devices,
    )
    .fetch_all(connection)
    .await?;
    let facts = rows.into_iter().map(|row| {
        Ok(DeviceFacts {
            id: DeviceId(row.id),
            serial: parse(&row.serial)?,
            model: row.model,
            groups: row.groups,
            created_at: row.created_at,
            online: row.online.unwrap_or(false),
            presence_since: row.since,
            pending_since: row.pending_since,
            reported_at: row.reported_at,
        })
    });
    facts.collect()
}
