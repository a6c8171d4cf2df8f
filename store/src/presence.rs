//! Which devices are connected, as the broker last said.

use chrono::{DateTime, Utc};
use setpoint_model::{
    DeviceId, Serial,
    presence::{DisconnectReason, Presence},
    timeline::Kind,
};
use uuid::Uuid;

use crate::{Result, Store};

/// What the broker says of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceChange {
    /// The device.
    pub serial: Serial,
    /// Its presence now.
    pub presence: Presence,
    /// When it was last heard of.
    pub last_seen: DateTime<Utc>,
}

/// A device's presence, for the retained message that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPresence {
    /// The device's id, by which the pages are ordered.
    pub device_id: DeviceId,
    /// The device.
    pub serial: Serial,
    /// Its presence.
    pub presence: Presence,
}

impl Store {
    /// Writes the presence of many devices in one statement; serials without a device are passed over, and words from
    /// before the present device of a serial was made. Each serial stands there once.
    ///
    /// A device that has meanwhile connected to another server stays online.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_presence(&self, server: Uuid, changes: &[PresenceChange]) -> Result<()> {
        let serials: Vec<&str> = changes.iter().map(|change| change.serial.as_str()).collect();
        let online: Vec<bool> = changes.iter().map(|change| change.presence.online).collect();
        let sessions: Vec<Uuid> = changes.iter().map(|change| change.presence.session).collect();
        let since: Vec<DateTime<Utc>> = changes.iter().map(|change| change.presence.since).collect();
        let last_seen: Vec<DateTime<Utc>> = changes.iter().map(|change| change.last_seen).collect();
        let reasons: Vec<Option<&str>> = changes
            .iter()
            .map(|change| change.presence.reason.map(DisconnectReason::as_str))
            .collect();
        sqlx::query!(
            "INSERT INTO device_presence AS p
                 (device_id, online, session, since, last_seen, disconnect_reason, server)
             SELECT d.id, x.online, x.session, x.since, x.last_seen, x.reason, $1
             FROM unnest($2::text[], $3::boolean[], $4::uuid[], $5::timestamptz[], $6::timestamptz[], $7::text[])
                  AS x (serial, online, session, since, last_seen, reason)
             JOIN devices d ON d.serial = x.serial AND d.created_at <= x.last_seen
             ORDER BY d.id
             ON CONFLICT (device_id) DO UPDATE SET
                 online = excluded.online, session = excluded.session, since = excluded.since,
                 last_seen = greatest(p.last_seen, excluded.last_seen),
                 disconnect_reason = excluded.disconnect_reason, server = excluded.server
             WHERE excluded.online OR NOT p.online OR p.server = excluded.server",
            server,
            &serials as &[&str],
            &online,
            &sessions,
            &since,
            &last_seen,
            &reasons as &[Option<&str>],
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Notes when devices were last heard of, in one statement. Each serial stands there once.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_last_seen(&self, server: Uuid, seen: &[(Serial, DateTime<Utc>)]) -> Result<()> {
        let serials: Vec<&str> = seen.iter().map(|(serial, _)| serial.as_str()).collect();
        let times: Vec<DateTime<Utc>> = seen.iter().map(|(_, at)| *at).collect();
        sqlx::query!(
            "INSERT INTO device_presence AS p (device_id, online, last_seen, server)
             SELECT d.id, false, x.at, $1
             FROM unnest($2::text[], $3::timestamptz[]) AS x (serial, at)
             JOIN devices d ON d.serial = x.serial AND d.created_at <= x.at
             ORDER BY d.id
             ON CONFLICT (device_id) DO UPDATE SET last_seen = greatest(p.last_seen, excluded.last_seen)",
            server,
            &serials as &[&str],
            &times,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Takes offline, with `reason`, whatever other servers than `server` left online that are not alive
    /// ([`Store::changes`]): for a start after an unclean stop. Each is an entry in its timeline. Returns how many there
    /// were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_over_presence(
        &self,
        server: Uuid,
        reason: DisconnectReason,
        at: DateTime<Utc>,
    ) -> Result<u64> {
        self.take_offline(server, false, reason, at).await
    }

    /// Takes offline, with `reason`, whatever `server` still has online: for its clean end. Each is an entry in
    /// its timeline. Returns how many there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_presence(
        &self,
        server: Uuid,
        reason: DisconnectReason,
        at: DateTime<Utc>,
    ) -> Result<u64> {
        self.take_offline(server, true, reason, at).await
    }

    /// Whether devices are online at other servers than `server`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn others_have_online(&self, server: Uuid) -> Result<bool> {
        let any = sqlx::query_scalar!(
            r#"SELECT exists (SELECT FROM device_presence WHERE online AND server <> $1) AS "any!""#,
            server
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(any)
    }

    async fn take_offline(
        &self,
        server: Uuid,
        own: bool,
        reason: DisconnectReason,
        at: DateTime<Utc>,
    ) -> Result<u64> {
        let done = sqlx::query!(
            "WITH others AS MATERIALIZED (
                 SELECT DISTINCT server FROM device_presence WHERE online AND server <> $1 AND NOT $2),
             -- A server that is alive holds its lock (`Notices::claim`).
             dead AS MATERIALIZED (
                 SELECT server FROM others WHERE pg_try_advisory_xact_lock(hashtextextended(server::text, 0))),
             gone AS (
                 UPDATE device_presence SET online = false, since = $3, disconnect_reason = $4
                 WHERE online AND CASE WHEN $2 THEN server = $1 ELSE server IN (SELECT server FROM dead) END
                 RETURNING device_id, session)
             INSERT INTO device_events (device_id, at, kind, data)
             SELECT device_id, $3, $5, jsonb_build_object('session', session, 'reason', $4::text) FROM gone",
            server,
            own,
            at,
            reason.as_str(),
            Kind::Disconnected.as_str(),
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// A page of all presences, by device id: for rebuilding the retained messages. Begins behind `after` (0 for
    /// the first page); an empty page is the end. Devices that never had a session are left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn presence_page(&self, after: DeviceId, limit: i64) -> Result<Vec<StoredPresence>> {
        let rows = sqlx::query!(
            r#"SELECT d.id, d.serial, p.online, p.session AS "session!", p.since AS "since!", p.disconnect_reason
               FROM device_presence p JOIN devices d ON d.id = p.device_id
               WHERE p.device_id > $1 AND p.session IS NOT NULL AND p.since IS NOT NULL
               ORDER BY p.device_id LIMIT $2"#,
            after.0,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        let presences = rows.into_iter().filter_map(|row| {
            let reason = row.disconnect_reason.as_deref().and_then(DisconnectReason::parse);
            let presence = Presence {
                online: row.online,
                since: row.since,
                session: row.session,
                reason,
            };
            // Every stored serial was parsed once.
            Some(StoredPresence {
                device_id: DeviceId(row.id),
                serial: row.serial.parse().ok()?,
                presence,
            })
        });
        Ok(presences.collect())
    }
}

#[cfg(test)]
mod tests;
