//! The removal of what deleted devices leave.

use chrono::{DateTime, Utc};
use setpoint_model::DeviceId;

use super::{Lease, end, removal::delete_rollups, rollups::hold_marks};
use crate::{Result, Store};

impl Store {
    /// Takes the leases of deleted devices whose telemetry may still be there, at most 100, with whether that is settled.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due_purges(&self, lease: Lease) -> Result<Vec<(DeviceId, bool)>> {
        let rows = sqlx::query!(
            r#"WITH due AS (
                   SELECT device_id FROM purges WHERE next_at <= $1 ORDER BY next_at, requested_at LIMIT 100
                   FOR UPDATE SKIP LOCKED)
               UPDATE purges p SET next_at = $2 FROM due WHERE p.device_id = due.device_id
               RETURNING p.device_id, p.requested_at < $3 AS "settled!""#,
            lease.now,
            lease.until,
            lease.settled,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (DeviceId(row.device_id), row.settled))
            .collect())
    }

    /// Gives the leases of purges back: they are due again at this time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release_purges(&self, devices: &[DeviceId], at: DateTime<Utc>) -> Result<()> {
        let ids: Vec<i64> = devices.iter().map(|device| device.0).collect();
        sqlx::query!(
            "UPDATE purges SET next_at = $2 WHERE device_id = ANY($1)",
            &ids,
            at
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets that a device's telemetry was to be removed, with the last roll-ups that were under way.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn finish_purge(&self, device_id: DeviceId) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        let finished = async {
            hold_marks(&mut transaction).await?;
            delete_rollups(&mut transaction, device_id.0, None).await?;
            sqlx::query!("DELETE FROM purges WHERE device_id = $1", device_id.0)
                .execute(&mut *transaction)
                .await?;
            Ok(())
        };
        let finished = finished.await;
        end(transaction, finished).await
    }
}
