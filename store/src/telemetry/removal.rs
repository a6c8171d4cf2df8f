//! The removal of one metric of one device.

use setpoint_model::{DeviceId, Serial};
use sqlx::AssertSqlSafe;

use super::Partition;
use crate::{
    Result, Store,
    audit::{self, NewEntry},
};

impl Store {
    /// The id of a metric that a device has sent; `None` if it never did.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn device_metric(&self, device_id: DeviceId, name: &str) -> Result<Option<i32>> {
        Ok(sqlx::query_scalar!(
            "SELECT m.id FROM metrics m JOIN device_metrics s ON s.metric_id = m.id
             WHERE s.device_id = $1 AND m.name = $2",
            device_id.0,
            name,
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Deletes at most `limit` samples of one metric of a device from one partition. Returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_metric_samples(
        &self,
        partition: &Partition,
        device_id: DeviceId,
        metric_id: i32,
        limit: i64,
    ) -> Result<u64> {
        let name = &partition.name;
        let delete = format!(
            "DELETE FROM \"{name}\" WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM \"{name}\" WHERE device_id = $1 AND metric_id = $2 LIMIT $3))"
        );
        let deleted = sqlx::query(AssertSqlSafe(delete))
            .bind(device_id.0)
            .bind(metric_id)
            .bind(limit)
            .execute(&self.pool)
            .await?;
        Ok(deleted.rows_affected())
    }

    /// Adds an entry to the audit log, and with `forget` has the device never have sent the metric: the next sample
    /// decides of which type it is. The other servers are told.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn finish_metric_removal(
        &self,
        (device_id, serial): (DeviceId, &Serial),
        metric_id: i32,
        forget: bool,
        entry: &NewEntry,
    ) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        if forget {
            sqlx::query!(
                r#"WITH gone AS (DELETE FROM device_metrics WHERE device_id = $1 AND metric_id = $2 RETURNING 1)
                   SELECT tell_servers('device', $3) IS NULL AS "told!" FROM gone"#,
                device_id.0,
                metric_id,
                serial.as_str(),
            )
            .fetch_optional(&mut *transaction)
            .await?;
        }
        audit::write(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(())
    }
}
